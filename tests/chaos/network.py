"""Networks of the chaos tests: namespaces for a server and its workers, each worker on a cable of its own.

The server listens on an address that each namespace reaches; the test, outside of them all, on a unix socket. Nothing
leaves the namespaces.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gateway.stack.valkey import find_server
from services.redis_client import connect
from services.settings import Settings
from tests.chaos.installation import process
from tests.conftest import missing, wait_until


def ip(*arguments: str) -> None:
    """One ``ip`` command that must succeed."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Cable:
    """The link between the server's namespace and that of one worker."""

    def __init__(self, server: str, number: int) -> None:
        self._server = server
        self.namespace = f"{server}-{number}"
        self._ends = (f"cm{number}s", f"cm{number}w")
        self._addresses = (f"10.213.{number}.1", f"10.213.{number}.2")

    @property
    def within(self) -> Sequence[str]:
        """The command before a command that runs it at the worker's end."""
        return ("ip", "netns", "exec", self.namespace)

    @property
    def url(self) -> str:
        """Where the server is from the worker's end."""
        return f"redis://{self._addresses[0]}:6379/0"

    @contextmanager
    def plugged(self) -> Generator[Cable]:
        """The cable in place."""
        ip("netns", "add", self.namespace)
        try:
            (server, worker), (near, far) = self._ends, self._addresses
            peer = ("peer", "name", worker, "netns", self.namespace)
            ip("link", "add", server, "netns", self._server, "type", "veth", *peer)
            for namespace, end, address in ((self._server, server, near), (self.namespace, worker, far)):
                ip("-n", namespace, "addr", "add", f"{address}/24", "dev", end)
                ip("-n", namespace, "link", "set", end, "up")
            yield self
        finally:
            ip("netns", "del", self.namespace)

    def cut(self) -> None:
        """Nothing passes any more, and nobody is told."""
        ip("-n", self._server, "link", "set", self._ends[0], "down")

    def mend(self) -> None:
        """All passes again."""
        ip("-n", self._server, "link", "set", self._ends[0], "up")

    def mute(self) -> None:
        """What the worker says arrives, and no answer comes back: its sockets are half open."""
        ip("-n", self._server, "route", "add", "blackhole", f"{self._addresses[1]}/32")

    def unmute(self) -> None:
        """Answers arrive again."""
        ip("-n", self._server, "route", "del", "blackhole", f"{self._addresses[1]}/32")


@contextmanager
def network(folder: Path, workers: int) -> Generator[tuple[str, list[Cable]]]:
    """A server in a namespace; answers its URL for the test and a cable for each worker. Skips without the means."""
    if sys.platform != "linux":
        pytest.skip("network namespaces are Linux")
    if not shutil.which("ip") or os.geteuid():
        missing("`ip` of iproute2, or the root that may use it,")
    name = f"casemill-{os.getpid()}"
    socket = folder / "server.sock"
    with ExitStack() as stack:
        ip("netns", "add", name)
        stack.callback(ip, "netns", "del", name)
        cables = [stack.enter_context(Cable(name, number + 1).plugged()) for number in range(workers)]
        options = ["--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", str(folder)]
        server = [str(find_server()), *options, "--appendonly", "yes", "--unixsocket", str(socket)]
        stack.enter_context(process(["ip", "netns", "exec", name, *server], os.environ))
        url = f"unix://{socket}?db=0"
        client = connect(Settings.model_validate({"REDIS_URL": url}))
        wait_until(socket.exists, 20, "the server's socket")
        assert client.ping()
        client.close()
        yield url, cables
