"""A gateway of the test's own process over a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from tests.conftest import wait_until
from tests.witness import Witnessed


@contextmanager
def served(app: FastAPI) -> Generator[str]:
    """The URL at which the application answers."""
    # Named as TCP, so that asyncio sets TCP_NODELAY: else each answer waits 40 ms for the acknowledgement of its head.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        witness = Witnessed(app)
        server = uvicorn.Server(uvicorn.Config(witness, log_level="error"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
    witness.check()
