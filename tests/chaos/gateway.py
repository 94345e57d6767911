"""A gateway for chaos tests: the real application under uvicorn, killed at a chosen step of a request, started again.

``python -m tests.chaos.gateway`` prints its port and serves until its stdin ends. A request with the header
``die-at: N`` kills the process by SIGKILL before its N-th step: a file opened, synced or renamed, a command sent to
Redis, its answer read, a part of the HTTP answer sent. The parent has everything imported and forks each life of the
gateway.
"""

from __future__ import annotations

import functools
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import redis.connection
import uvicorn

from gateway.app import create_app
from services.settings import load_settings


class Fate:
    """Counts the steps of the one request that is to die, whatever thread makes them; the caretaker's do not count."""

    def __init__(self) -> None:
        self._left = 0
        self._lock = threading.Lock()

    def arm(self, steps: int) -> None:
        """Die before the step of this number, from now on."""
        self._left = steps

    def step(self) -> None:
        """One more step begins."""
        if not self._left or threading.current_thread().name == "caretaker":
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def before(self, owner: Any, name: str) -> None:
        """Make each call of ``owner.name`` a step."""
        real: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(real)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.step()
            return real(*args, **kwargs)

        setattr(owner, name, wrapped)

    def around(self, app: Any) -> Any:
        """The application, whose answers are steps too and whose requests say where to die."""

        async def armed(scope: Any, receive: Any, send: Any) -> None:
            async def sent(message: Any) -> None:
                self.step()
                await send(message)

            steps = int(dict(scope.get("headers", ())).get(b"die-at", b"0"))
            if steps:
                self.arm(steps)
            await app(scope, receive, sent)
            if steps:
                self.arm(0)

        return armed


def live(listener: socket.socket) -> None:
    """One life of the gateway."""
    fate = Fate()
    for owner, name in (
        (os, "open"),
        (os, "fsync"),
        (os, "replace"),
        (redis.connection.AbstractConnection, "send_packed_command"),
        (redis.connection.AbstractConnection, "read_response"),
    ):
        fate.before(owner, name)
    config = uvicorn.Config(fate.around(create_app(load_settings())), log_level="error", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


def main() -> int:
    """Start life after life until nobody holds our stdin any more."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(listener.getsockname()[1], flush=True)
    child = 0
    while True:
        if not child:
            child = os.fork()
            if child == 0:
                live(listener)
                os._exit(0)
        if os.waitpid(child, os.WNOHANG)[0]:
            child = 0
        elif select.select([sys.stdin], [], [], 0.02)[0]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return 0


if __name__ == "__main__":
    sys.exit(main())
