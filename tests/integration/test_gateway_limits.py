"""A gateway over raw sockets: clients that are slow, too many or say too much are let go, and others are served."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

import gateway.limits
from gateway.serving import HEADER_BYTES, PatientProtocol
from gateway.stack.valkey import EmbeddedValkey
from tests.conftest import wait_until
from tests.routes import ROUTES
from tests.serving import Served, serving, settings_on

CONNECTIONS = 12


@pytest.fixture(scope="module")
def served(server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = settings_on(server, tmp_path_factory.mktemp("limits"), max_connections=CONNECTIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PatientProtocol, "header_seconds", 0.5)
        patch.setattr(gateway.limits, "BODY_SECONDS", 0.5)
        with serving(settings) as alone:
            yield alone


def connect(served: Served) -> socket.socket:
    host, _, port = served.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def read(connection: socket.socket) -> bytes:
    """What comes until the gateway closes."""
    found = b""
    while piece := _receive(connection):
        found += piece
    return found


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionResetError:
        return b""


def trickle(connection: socket.socket, piece: bytes) -> None:
    """Send piece after piece until the gateway has had enough."""
    connection.settimeout(0.1)

    def closed() -> bool:
        try:
            connection.sendall(piece)
            return connection.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    wait_until(closed, 20, "the gateway's patience to end")


@pytest.mark.parametrize("begin", [b"", b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"])
def test_a_head_that_trickles_in_is_cut_off(served: Served, begin: bytes) -> None:
    with connect(served) as slow:
        slow.sendall(begin)
        trickle(slow, b"X-A: b\r\n" if begin else b"\r\n")
    assert served.http.get("/livez").status_code == 200


def test_a_head_that_trickles_in_after_a_request_is_cut_off(served: Served) -> None:
    with connect(served) as slow:
        slow.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in slow.recv(65536)
        slow.sendall(b"GET /livez HTTP/1.1\r\n")
        trickle(slow, b"X-A: b\r\n")


def test_a_body_that_trickles_in_is_answered_408(served: Served) -> None:
    key = served.http.headers["authorization"].encode()
    with connect(served) as slow:
        head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: " + key
        slow.sendall(head + b"\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        answer = read(slow)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"request_timeout" in answer


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson", "multipart/form-data; boundary=x"])
def test_nobody_is_asked_for_a_body_who_has_no_key(served: Served, kind: str) -> None:
    with_bodies = [
        name for name, route in ROUTES.items() if route.scope and name.split()[0] in ("POST", "PUT", "PATCH")
    ]
    assert "POST /v1/jobs" in with_bodies
    for name in with_bodies:
        with connect(served) as stranger:
            head = f"{name} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 100\r\n\r\n"
            stranger.sendall(head.encode())
            assert stranger.recv(65536).startswith(b"HTTP/1.1 401"), name


def test_a_head_that_is_too_large_is_refused(served: Served) -> None:
    with connect(served) as loud:
        loud.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * (HEADER_BYTES + 1024))
        assert read(loud).startswith(b"HTTP/1.1 400")
    assert served.http.get("/livez", headers={"X-A": "a" * (HEADER_BYTES // 2)}).status_code == 200


def test_too_many_connections_are_told_so_and_served_later(served: Served) -> None:
    with served.client("acme") as http:
        assert http.get("/livez").status_code == 200
        crowd = [connect(served) for _ in range(CONNECTIONS)]
        wait_until(lambda: http.get("/livez").status_code == 503, 5, "the limit")
        for one in crowd:
            one.close()
        wait_until(lambda: http.get("/livez").status_code == 200, 20, "room")


def test_a_tenant_keeps_a_third_of_the_connections_waiting_and_the_others_are_served(served: Served) -> None:
    most, job = served.settings.tenant_waiting, {"type": "generate", "input": {"prompt": "hello"}}
    assert most == CONNECTIONS // 3

    def opened(path: str) -> int:
        with served.client("crowded") as http, http.stream("GET", path) as answer:
            return answer.status_code

    with served.client("crowded") as http, served.client("other") as other, ExitStack() as streams:
        accepted = http.post("/v1/jobs", json=job).json()["id"]
        for path in (most - 1) * ["/v1/events"] + [f"/v1/jobs/{accepted}/events"]:
            client = streams.enter_context(served.client("crowded"))
            assert streams.enter_context(client.stream("GET", path)).status_code == 200
        assert [opened("/v1/events"), opened(f"/v1/jobs/{accepted}/events")] == [429, 429]
        for full in (
            http.post("/v1/jobs", json=job, headers={"Prefer": "wait=5"}),
            http.post("/v1/chat/completions", json={"model": "m", "messages": [{"role": "user", "content": "hello"}]}),
            http.post("/v1/completions", json={"model": "m", "prompt": "hello", "stream": True}),
            http.post("/v1/embeddings", json={"model": "e", "input": "hello"}),
            http.post("/v1/documents", content=b"hello"),
        ):
            assert (full.status_code, full.json()["code"]) == (429, "waiting_full")
            assert int(full.headers["retry-after"]) > 0
        assert [one["id"] for one in http.get("/v1/jobs").json()["data"]] == [accepted], "nothing else was queued"
        assert http.post("/v1/documents?read=false", content=b"hello").status_code == 201
        with other.stream("GET", "/v1/events") as stream:
            assert stream.status_code == 200
    wait_until(lambda: opened("/v1/events") == 200, 20, "room")
    served.clear()


def test_a_method_that_a_path_has_not_is_answered_with_those_it_has(served: Served) -> None:
    answer = served.http.put("/v1/jobs/job_1")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "DELETE, GET"
    assert served.http.patch("/v1/jobs").headers["allow"] == "GET, POST"


@pytest.mark.parametrize("token", [True, "7", None, 1.5])
def test_a_token_is_a_number(served: Served, token: object) -> None:
    """Python would take ``true`` for the token 1 and ``"7"`` for 7."""
    answer = served.http.post("/v1/embeddings", json={"model": "e", "input": [[token]]})
    assert (answer.status_code, answer.json()["code"]) == (422, "request_invalid")
