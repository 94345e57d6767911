"""One POST to receivers that hang, drip, flood, redirect, break TLS, or whose name changes its mind."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest
import trustme

from services.errors import Transient
from services.settings import Settings
from tests.receiver import receiving
from workers import webhook_post
from workers.webhook_post import post

ALLOWED = Settings().webhook_allowed


def send(url: str, tick: Callable[[], None] = lambda: None) -> tuple[int, float | None]:
    return post(url, b"{}", {"webhook-id": "dlv_1"}, ALLOWED, tick)


def refusal(url: str) -> str:
    with pytest.raises(Transient) as failed:
        send(url)
    return failed.value.code


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time limits that a test can wait for."""
    monkeypatch.setattr(webhook_post, "EXCHANGE_SECONDS", 0.6)
    monkeypatch.setattr(webhook_post, "TICK_SECONDS", 0.1)


@contextmanager
def raw(talk: Callable[[socket.socket], None]) -> Generator[str]:
    """A server of bytes: ``talk`` gets each connection once a request has begun to come."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                try:
                    talk(connection)
                except OSError:  # the caller has hung up, as it should
                    return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/"
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(10)
    assert not thread.is_alive(), "the connection was not closed"


def test_a_plain_exchange_carries_the_name_and_answers_the_wish() -> None:
    with receiving((503, {"Retry-After": "7"})) as receiver:
        assert send(receiver.url) == (503, 7.0)
    headers = receiver.received[0].headers
    assert headers["host"] == receiver.url.split("/")[2]
    assert (headers["content-type"], headers["webhook-id"]) == ("application/json", "dlv_1")


@pytest.mark.parametrize(
    ("wish", "seconds"), [("Fri, 01 Jan 2999 00:00:00 GMT", 1e9), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0)]
)
def test_a_wish_may_be_a_date(wish: str, seconds: float) -> None:
    with receiving((503, {"Retry-After": wish})) as receiver:
        wait = send(receiver.url)[1]
    assert wait is not None
    assert wait >= seconds if seconds else wait == 0


@pytest.mark.parametrize("wish", ["soon", "-5", "1e3", "٣", "²", ""])
def test_a_wish_that_is_none_is_none(wish: str) -> None:
    with receiving((503, {"Retry-After": wish.encode().decode("latin-1")})) as receiver:
        assert send(receiver.url) == (503, None)


def test_a_redirect_is_an_answer() -> None:
    with receiving() as elsewhere, receiving((302, {"Location": elsewhere.url})) as receiver:
        assert send(receiver.url)[0] == 302
        assert elsewhere.received == []


@pytest.mark.usefixtures("hurried")
def test_who_never_answers_is_given_up_while_the_work_is_seen_to_move() -> None:
    def listen(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    ticks: list[float] = []
    with raw(listen) as url:
        with pytest.raises(Transient) as failed:
            send(url, lambda: ticks.append(time.monotonic()))
        assert failed.value.code == "webhook_timeout"
    assert len(ticks) >= 3


@pytest.mark.usefixtures("hurried")
def test_who_drips_headers_is_given_up() -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-A: ")
        while True:
            connection.sendall(b"a")
            time.sleep(0.05)

    with raw(drip) as url:
        assert refusal(url) == "webhook_timeout"


def test_who_floods_headers_is_cut_off() -> None:
    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-A: ")
        while True:
            connection.sendall(b"a" * 65536)

    with raw(flood) as url:
        assert refusal(url) == "webhook_unreachable"


def test_an_endless_body_is_not_read() -> None:
    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"10000\r\n" + b"a" * 65536 + b"\r\n")

    with raw(flood) as url:
        assert send(url)[0] == 200


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 2x OK\r\n\r\n", b"\x00" * 64])
def test_who_speaks_no_http_is_unreachable(answer: bytes) -> None:
    with raw(lambda connection: connection.sendall(answer)) as url:
        assert refusal(url) == "webhook_unreachable"


def test_nobody_there_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert refusal(f"http://127.0.0.1:{port}/") == "webhook_unreachable"


def test_the_next_address_is_tried_where_one_takes_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_post, "resolve", lambda *_: ["127.0.0.2", "127.0.0.1"])
    with receiving() as receiver:
        assert send(receiver.url)[0] == 204


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    monkeypatch.setattr(webhook_post, "_trusted", lambda: context)


def served(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.mark.usefixtures("trusted")
def test_tls_is_checked_against_the_name_though_the_address_is_called(authority: trustme.CA) -> None:
    asked: list[str | None] = []
    context = served(authority, "localhost")
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    with receiving(tls=context) as receiver:
        assert send(receiver.url)[0] == 204
        assert asked == ["localhost"]
        assert refusal(receiver.url.replace("localhost", "127.0.0.1")) == "webhook_tls"
    with receiving(tls=served(authority, "127.0.0.1")) as receiver:
        assert send(receiver.url.replace("localhost", "127.0.0.1"))[0] == 204
        assert refusal(receiver.url) == "webhook_tls"


def test_an_authority_that_nobody_trusts_is_refused(authority: trustme.CA) -> None:
    with receiving(tls=served(authority, "localhost")) as receiver:
        assert refusal(receiver.url) == "webhook_tls"
        assert receiver.received == []


def test_who_breaks_tls_is_told_apart() -> None:
    with raw(lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")) as url:
        assert refusal(url.replace("http://", "https://")) == "webhook_tls"


def test_a_name_is_asked_once_and_what_it_says_later_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = socket.getaddrinfo, list[Any]()

    def rebinding(host: Any, *arguments: Any, **options: Any) -> Any:
        if host in ("127.0.0.1", b"127.0.0.1"):
            return real(host, *arguments, **options)
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "169.254.169.254"
        return real(address, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with receiving() as receiver:
        url = receiver.url.replace("localhost", "rebinding.firm.example")
        assert send(url)[0] == 204
        assert asked == ["rebinding.firm.example"]
        assert refusal(url) == "webhook_address_refused"
        assert len(receiver.received) == 1


@pytest.mark.usefixtures("hurried")
def test_a_resolver_that_hangs_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(webhook_post, "RESOLVE_SECONDS", 0.2)
    monkeypatch.setattr(webhook_post, "resolve", lambda *_: release.wait() and ["127.0.0.1"])
    with receiving() as receiver:
        assert refusal(receiver.url) == "webhook_timeout"
        release.set()
        for thread in threading.enumerate():
            if thread.name == "webhook":
                thread.join(10)
        assert receiver.received == []
