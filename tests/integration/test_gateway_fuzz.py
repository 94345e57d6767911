"""Headers, cursors and lines as hostile clients make them up: whatever comes, it is no error of the gateway's."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.job_lines import MEDIA_TYPE
from gateway.stack.valkey import EmbeddedValkey
from tests.serving import Served, serving, settings_on

# What may stand in a header's value; the rest never reaches the application.
VISIBLE = st.characters(codec="latin-1", exclude_categories=("Cc",))
VALUES = st.text(VISIBLE, max_size=400).map(str.strip)
PLACES = st.from_regex(r"[0-9]{0,22}(-[0-9]{0,22})?", fullmatch=True) | st.sampled_from([str(2**64), f"1-{2**64}"])
FUZZ = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def served(server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(settings_on(server, tmp_path_factory.mktemp("fuzz"), max_wait_seconds=0)) as gateway:
        yield gateway
        gateway.clear()


def ask(served: Served, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> int:
    """The status of an answer, over a socket of its own, so that no client mends what is sent."""
    host, _, port = served.url.removeprefix("http://").partition(":")
    sent = {"Host": host, "Authorization": served.http.headers["authorization"], "Connection": "close"} | headers
    head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    lines = f"{method} {path} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(lines.encode("latin-1") + body)
        return int(connection.recv(4096).split()[1])


@given(prefer=VALUES, key=VALUES, request_id=VALUES)
@FUZZ
def test_any_headers_of_a_submission(served: Served, prefer: str, key: str, request_id: str) -> None:
    headers = {"Prefer": prefer, "Idempotency-Key": key, "X-Request-ID": request_id}
    headers |= {"Content-Type": "application/json"}
    status = ask(served, "POST", "/v1/jobs", headers, b'{"type": "generate", "input": {"prompt": "x"}}')
    assert status == (202 if len(key) <= 255 else 422)


@given(last=VALUES | PLACES)
@FUZZ
def test_any_last_event_id(served: Served, last: str) -> None:
    parts = last.split("-")
    ids = len(parts) < 3 and all(re.fullmatch("[0-9]{1,20}", part) and int(part) < 2**64 for part in parts)
    for path in ("/v1/events", f"/v1/jobs/{served.submit()['id']}/events"):
        assert ask(served, "GET", path, {"Last-Event-ID": last}) == (200 if ids or not last else 422)


@given(tag=VALUES, cursor=st.text(st.characters(codec="ascii", categories=("L", "N")), max_size=600))
@FUZZ
def test_any_cursor_and_tag(served: Served, tag: str, cursor: str) -> None:
    for path in ("/v1/jobs", "/v1/documents", "/v1/runs", "/v1/schedules", "/v1/dead-letters"):
        assert ask(served, "GET", f"{path}?cursor={cursor}", {"If-None-Match": tag}) in (200, 422)


@given(
    body=st.binary(max_size=300)
    | st.lists(st.sampled_from([b"{}", b"[[", b"\xff", b'{"type":1}', b"null"])).map(b"\n".join)
)
@FUZZ
def test_any_lines(served: Served, body: bytes) -> None:
    assert ask(served, "POST", "/v1/jobs", {"Content-Type": MEDIA_TYPE}, body) in (200, 422)


@given(
    name=st.text(st.characters(codec="ascii", categories=("L", "N")), max_size=20), value=st.text(VISIBLE, max_size=50)
)
@FUZZ
def test_any_search(served: Served, name: str, value: str) -> None:
    answer = served.http.get("/v1/jobs", params={f"metadata.{name}": value, "external_id": value, "run": value})
    assert answer.status_code == 200
