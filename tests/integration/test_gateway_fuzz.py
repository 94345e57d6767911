"""Headers, cursors and lines as hostile clients make them up: whatever comes, it is no error of the gateway's."""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.job_lines import MEDIA_TYPE
from gateway.stack.valkey import EmbeddedValkey
from services.paging import MOST_SCORE, Place, write_cursor
from tests.fuzz_hooks import CURSORS
from tests.serving import Served, serving, settings_on

# What may stand in a header's value; the rest never reaches the application.
VISIBLE = st.characters(codec="latin-1", exclude_categories=("Cc",))
VALUES = st.text(VISIBLE, max_size=400).map(str.strip)
PLACES = st.from_regex(r"[0-9]{0,22}(-[0-9]{0,22})?", fullmatch=True) | st.sampled_from([str(2**64), f"1-{2**64}"])
# Forms that a key has, and credentials that only look so.
KEYS = st.from_regex(r"cm_[0-9a-f]{12}_[0-9a-f]{48}", fullmatch=True) | st.binary(max_size=80).map(
    lambda raw: base64.b64encode(raw).decode()
)
KINDS = st.sampled_from(
    [
        "application/json",
        "application/json; charset=utf-16",
        "application/x-ndjson",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "multipart/form-data; boundary=B",
        'multipart/form-data; boundary="',
        "text/plain",
    ]
)
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


@pytest.fixture(scope="module")
def lists(served: Served) -> dict[str, str]:
    """The path of each list that has cursors, by their kind."""
    run = served.http.post("/v1/runs", json={"open": True, "type": "extract"}).json()["id"]
    webhook = served.http.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/fuzz"}).json()["id"]
    return {kind: path.format(run_id=run, webhook_id=webhook) for path, kind in CURSORS.items()}


@given(
    kind=st.sampled_from(list(CURSORS.values())),
    other=st.sampled_from(list(CURSORS.values())),
    score=st.floats(allow_nan=False, allow_infinity=False) | st.floats(-MOST_SCORE, MOST_SCORE),
    name=st.from_regex(r"[!-~]{1,200}", fullmatch=True),
)
@FUZZ
def test_any_place_in_any_list(
    served: Served, lists: dict[str, str], kind: str, other: str, score: float, name: str
) -> None:
    """A cursor that is made up in the right form reads on from somewhere in its list, and in no other."""
    answer = served.http.get(lists[kind], params={"cursor": write_cursor(other, Place(score, name)), "limit": 3})
    reads_on = kind == other and abs(score) <= MOST_SCORE
    assert answer.status_code == (200 if reads_on else 422), answer.text
    assert reads_on or answer.json()["code"] == "cursor_invalid"


@given(scheme=st.sampled_from(["Bearer", "bearer", "Basic", "Digest", "", "cm_"]), value=VALUES | KEYS)
@FUZZ
def test_any_authorization(served: Served, scheme: str, value: str) -> None:
    for path in ("/v1/jobs", "/v1/keys", "/openapi.json"):
        assert ask(served, "GET", path, {"Authorization": f"{scheme} {value}".strip()}) == 401
    assert ask(served, "GET", "/livez", {"Authorization": f"{scheme} {value}".strip()}) == 200


@given(kind=VALUES | KINDS, urgency=VALUES, body=st.binary(max_size=200) | st.just(b'{"model": "none", "prompt": "x"}'))
@FUZZ
def test_any_content_type_and_priority(served: Served, kind: str, urgency: str, body: bytes) -> None:
    headers = {"Content-Type": kind, "X-Casemill-Priority": urgency}
    refused = (400, 403, 404, 415, 422)
    for path in ("/v1/completions", "/v1/embeddings", "/v1/files", "/v1/schedules", "/v1/webhooks"):
        assert ask(served, "POST", path, headers, body) in refused
    assert ask(served, "POST", "/v1/playbooks/validate", headers, body) == 422


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
