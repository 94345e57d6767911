"""The stack of one machine: server, gateway, workers and Flower as children of one supervisor."""

from __future__ import annotations

import errno
import json
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import psutil

from gateway.client_file import ClientFile
from gateway.stack.children import Child, Stopped, child_environment
from gateway.stack.lock import StackLock
from gateway.stack.plan import WorkerRole, fit
from gateway.stack.valkey import EmbeddedValkey, free_port
from gateway.stack.workforce import Workforce
from services.access import Access
from services.capacity import Capacity
from services.errors import CasemillError, InvalidRequest, Unauthorized, Unavailable, from_problem
from services.fleet import Announcement, Fleet
from services.lifecycle import Lifecycle
from services.seals import Seals
from services.settings import Settings, local_host

READY_SECONDS = 180
STOP_SECONDS = 20
CRASH_LOOP = 3
SERVER_PAUSE_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Started:
    """What a user needs to know of a stack that is up."""

    url: str
    login: str
    workers: list[WorkerRole]
    server: str


def ask_workers(
    *arguments: str,
    env: dict[str, str] | None = None,
    timeout: float = 600,
    stop: threading.Event | None = None,
) -> dict[str, Any]:
    """The JSON answer of ``python -m workers …``; raises the problem that it reports.

    Raises ``Unavailable`` after ``timeout`` seconds, and ``Stopped`` when ``stop`` is set.
    """
    command = [sys.executable, "-m", "workers", *arguments]
    until = time.monotonic() + timeout
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        try:
            while True:
                try:
                    stdout, stderr = process.communicate(timeout=min(0.2, timeout))
                    break
                except subprocess.TimeoutExpired:
                    if time.monotonic() > until:
                        raise Unavailable(
                            f"`python -m workers {' '.join(arguments)}` did not answer within {timeout:.0f} s",
                            code="workers_silent",
                        ) from None
                _go_on(stop)
        finally:
            process.kill()
    _go_on(stop)  # Ctrl-C on a terminal ends the process as well
    lines = stdout.strip().splitlines()
    try:
        answer: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        reason = stderr.strip().splitlines()[-1:] or [f"exit status {process.returncode}"]
        raise CasemillError(f"`python -m workers {' '.join(arguments)}` failed: {reason[0]}") from None
    if "problem" in answer:
        raise from_problem(answer["problem"])
    return answer


class Stack:
    """Starts everything, keeps it running, stops it in order; use as a context manager."""

    def __init__(self, settings: Settings, say: Callable[[str], None], stop: threading.Event | None = None) -> None:
        """``say`` shows a line to the user; ``stop``, once set, ends ``start`` with ``Stopped``."""
        self._say = say
        self._stop = stop
        self._base = settings
        self._settings = settings
        self._lock = StackLock(settings.data_dir)
        self._server: EmbeddedValkey | None = None
        self._server_due = 0.0
        self._children: list[Child] = []
        self._workforce: Workforce | None = None
        self._env: dict[str, str] = {}
        self._recorded: set[int] = set()

    def __enter__(self) -> Stack:
        """Take the lock on the data folder."""
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop whatever runs."""
        self.stop()
        self._lock.release()

    def start(self) -> Started:
        """Start all roles and wait until they serve; raises ``Unavailable`` naming the log of what did not."""
        settings = self._base
        updates: dict[str, Any] = {"flower_password": secrets.token_urlsafe(16)}
        for name in ("port", "flower_port"):
            updates[name] = getattr(settings, name) or free_port()
        _check_port(settings.host, updates["port"])
        _check_port(settings.flower_host, updates["flower_port"])
        if made := Seals.make_master_key(settings):
            self._say(f"documents are sealed under {made}, made now; keep a copy elsewhere: without it, all is lost")
        if "redis_url" not in settings.model_fields_set:
            self._server = EmbeddedValkey(settings.data_dir / "valkey")
            updates["redis_url"] = self._server.start(self._stop)
            self._record()
        self._settings = settings = settings.model_copy(update=updates)
        self._env = child_environment(
            {
                "REDIS_URL": settings.redis_url,
                "CASEMILL_DATA_DIR": str(settings.data_dir),
                "CASEMILL_MODELS_DIR": str(settings.models_folder),
                "CASEMILL_MASTER_KEY_FILE": settings.master_key_file or "",
                "CASEMILL_HOST": settings.host,
                "CASEMILL_PORT": str(settings.port),
                "CASEMILL_ENGINE": settings.engine,
                "CASEMILL_FLOWER_HOST": settings.flower_host,
                "CASEMILL_FLOWER_PORT": str(settings.flower_port),
                "CASEMILL_FLOWER_PASSWORD": str(settings.flower_password),
            }
        )
        if settings.engine == "fake":
            self._say("engine: fake; no model runs, the text is made up")
        elif installed := ask_workers("demo-models", env=self._env, stop=self._stop)["installed"]:
            self._say(f"demo models: {', '.join(installed)}")
        hardware = ask_workers("hardware", env=self._env, stop=self._stop)
        lifecycle = Lifecycle(settings)
        url = settings.local_url
        login = self._sign_in(lifecycle, url)
        self._children.append(self._launch("gateway", "gateway.cli.main", "gateway"))
        self._workforce = Workforce(fit(hardware, settings), Capacity(lifecycle), self._launch_worker, self._say)
        workers = self._workforce.start()
        self._children.append(self._launch("flower", "gateway.cli.main", "flower"))
        self._record()
        self._wait_ready(lifecycle, url, workers)
        return Started(url, f"{url}/login?token={login}", workers, self._server_name())

    def watch(self) -> None:
        """One look at the children: what died starts again, and workers start and drain as it was decided."""
        self._mend()
        if self._workforce:
            self._workforce.follow()
        self._record()

    def _mend(self) -> None:
        """What died is reported, its jobs are handed on at once, and it starts again; what was drained may end."""
        if self._server and not self._server.alive() and time.monotonic() >= self._server_due:
            self._say("the embedded server died; starting it again")
            try:
                self._server.start()
            except Unavailable as error:  # a full disk, say: who frees it finds the stack still up
                self._server_due = time.monotonic() + SERVER_PAUSE_SECONDS
                self._say(f"{error.detail}; trying again in {SERVER_PAUSE_SECONDS} s")
        for child in self._all():
            pid = child.pid
            if child.draining:
                if child.drained() and self._workforce:
                    self._workforce.forget(child)
                    if pid:
                        self._reap(child.name, pid)
            elif child.died() and pid:
                again = f"it dies again and again, {child.deaths} times now; " if child.deaths >= CRASH_LOOP else ""
                self._say(f"{child.name} died; {again}starting it again in {child.pause} s (log: {child.log})")
                self._reap(child.name, pid)

    def stop(self) -> None:
        """Workers first, which hand back what they run; then the gateway; the server last."""
        ordered = sorted(self._all(), key=lambda child: child.name == "gateway")
        for child in ordered:
            child.ask_to_stop()
        until = time.monotonic() + STOP_SECONDS
        for child in ordered:
            child.wait(until - time.monotonic())
        self._children.clear()
        self._workforce = None
        if self._server:
            self._server.stop()
            self._server = None

    def _all(self) -> list[Child]:
        return self._children + (self._workforce.children if self._workforce else [])

    def _launch_worker(self, role: WorkerRole) -> Child:
        return self._launch(role.name, "workers", "run", *role.arguments())

    def _launch(self, name: str, module: str, *arguments: str) -> Child:
        command = [sys.executable, "-m", module, *arguments]
        child = Child(name, command, self._env, self._settings.data_dir / "logs")
        child.start()
        return child

    def _record(self) -> None:
        pids = [child.pid for child in self._all()] + [self._server.pid if self._server else None]
        alive = {pid for pid in pids if pid}
        if alive != self._recorded:  # every record is synced to the disk
            self._lock.record(alive)
            self._recorded = alive

    def _reap(self, name: str, pid: int) -> None:
        lifecycle = Lifecycle(self._settings)
        try:
            dead = dead_workers(Fleet(lifecycle.client, lifecycle.keys).workers(), name, pid)
            requeued, _, _ = lifecycle.care(dead_workers=dead)
        except Unavailable:
            return  # its leases run out by themselves
        if requeued:
            self._say(f"{requeued} jobs of {name} go back to the backlog")

    def _sign_in(self, lifecycle: Lifecycle, url: str) -> str:
        access = Access(lifecycle.client, lifecycle.keys)
        file = ClientFile(self._settings.data_dir)
        known = file.read()
        try:
            principal = access.check(known.key if known else "")
            key = known.key if known else ""
        except Unauthorized:
            key = access.create("casemill up")
            principal = access.check(key)
        file.write(url, key)
        return access.start_login(principal.key_id)

    def _wait_ready(self, lifecycle: Lifecycle, url: str, workers: list[WorkerRole]) -> None:
        fleet = Fleet(lifecycle.client, lifecycle.keys)
        until = time.monotonic() + READY_SECONDS
        flower = f"http://{local_host(self._settings.flower_host)}:{self._settings.flower_port}/flower/healthcheck"
        while True:
            _go_on(self._stop)
            live = {worker.id.partition("@")[0] for worker in fleet.workers()}
            waiting = [role.name for role in workers if role.name not in live]
            waiting += ["gateway"] if not _answers(f"{url}/livez") else []
            waiting += ["flower"] if not _answers(flower) else []
            if not waiting:
                return
            if time.monotonic() > until:
                logs = self._settings.data_dir / "logs"
                raise Unavailable(
                    f"{', '.join(waiting)} did not start; look at the logs in {logs}", code="stack_failed"
                )
            self.watch()
            time.sleep(0.1)

    def _server_name(self) -> str:
        if self._server:
            return f"embedded Valkey in {self._settings.data_dir / 'valkey'}"
        return "REDIS_URL"


def dead_workers(known: list[Announcement], name: str, child: int) -> list[str]:
    """Ids of a role's workers on this machine that run no more, after its process ``child`` has died.

    On Windows the python of a virtual environment runs the worker as a process below it, with a process id of its own.
    """
    host = socket.gethostname()
    ours = [worker for worker in known if worker.host == host and worker.id.startswith(f"{name}@")]
    return sorted({f"{name}@{host}.{child}"} | {worker.id for worker in ours if not _runs(worker.pid)})


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _go_on(stop: threading.Event | None) -> None:
    if stop and stop.is_set():
        raise Stopped


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _check_port(host: str, port: int) -> None:
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        addresses = []
    usable = 0
    for family, kind, protocol, _, address in addresses:
        try:
            with socket.socket(family, kind, protocol) as probe:
                if sys.platform != "win32":
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
                usable += 1
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                continue
            raise Unavailable(
                f"port {port} of {host} is taken; "
                "set CASEMILL_PORT and CASEMILL_FLOWER_PORT to free ones (0 chooses one)",
                code="port_taken",
            ) from None
    if not usable:
        raise InvalidRequest(
            f"{host} is no address of this machine; set CASEMILL_HOST and CASEMILL_FLOWER_HOST to ones that are",
            code="host_unusable",
        )
