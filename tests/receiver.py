"""A receiver of webhooks for tests: a real HTTP server that keeps what it gets and answers what a test wants."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    def verified(self, secret: str) -> dict[str, Any]:
        """What the message says, if the package of Standard Webhooks finds it signed by this secret."""
        return Webhook(secret).verify(self.body, self.headers)


@dataclass
class Receiver:
    """``answer`` gets what came and answers a status, or a status and headers; it may also write what it likes."""

    url: str
    answer: Callable[[Received, BaseHTTPRequestHandler], Any]
    received: list[Received] = field(default_factory=list[Received])

    def of(self, subject: str | None) -> list[Received]:
        """What told of a job or run."""
        return [message for message in self.received if f'"id":"{subject}"'.encode() in message.body]


@contextmanager
def receiving(answer: Any = 204, *, tls: ssl.SSLContext | None = None) -> Generator[Receiver]:
    """A receiver on a free port of the loopback address; ``answer`` is a status or a function as ``Receiver`` takes."""
    receiver = Receiver("", answer if callable(answer) else lambda message, handler: answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            message = Received(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            receiver.received.append(message)
            wanted = receiver.answer(message, self)
            if wanted is None:
                return
            status, headers = wanted if isinstance(wanted, tuple) else (wanted, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name it is given)
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A caller that hangs up is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver.url = f"{'https' if tls else 'http'}://localhost:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
