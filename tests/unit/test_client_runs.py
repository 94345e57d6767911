"""Runs by the client: results that are read on wherever they break off, documents that are added, and erasures."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from casemill import Conflict, Erasure, NotFound, RetryPolicy, Unavailable, Unreachable
from casemill.runs import MOST_DOCUMENTS
from tests.scripted_gateway import Gateway, job, problem, stream

AWAY, BROKEN = httpx.ConnectError("refused"), httpx.ReadError("reset")
ROWS = [{"number": number, "document": f"doc_{number}", "result": {"text": "Ü\u2028"}} for number in (1, 2, 4)]
LATE = {"number": 3, "document": "doc_3", "result": None}


def lines(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def results(client: Any) -> Any:
    return client.runs.results("run_1")


@pytest.mark.parametrize("broken", [(BROKEN,), ()], ids=["reset", "as if it were the end"])
def test_results_cut_in_mid_line_are_read_on_and_none_comes_twice(gateway: Gateway, broken: tuple[Any, ...]) -> None:
    whole = lines(*ROWS)
    ends = {0, *(at + 1 for at, byte in enumerate(whole) if byte == ord("\n"))}
    for cut in range(len(whole)):
        if cut in ends and not broken:
            continue  # nothing tells it from the end
        script = stream(whole[:cut], *broken), AWAY, stream(lines(*ROWS[:2], LATE, ROWS[2]))
        found = gateway.do(results, *script)
        assert sorted(row["number"] for row in found) == [1, 2, 3, 4], cut
        assert ROWS[0] in found, cut
        assert len(gateway.asked) == 3, cut


def test_a_line_that_is_none_is_asked_for_again_and_named_in_the_end(gateway: Gateway) -> None:
    torn = lines(ROWS[0]) + b'{"number": 2, "resu\n'
    assert [row["number"] for row in gateway.do(results, stream(torn), stream(lines(*ROWS)))] == [1, 2, 4]
    for wrong in (torn, b"<html>\n", b"[]\n"):
        with pytest.raises(Unavailable) as raised:
            gateway.do(results, stream(wrong), retry=RetryPolicy(attempts=3))
        assert raised.value.code == "answer_invalid"
    with pytest.raises(Unreachable, match="ask for them again"):
        gateway.do(results, stream(lines(*ROWS)[:-1]), retry=RetryPolicy(attempts=3))


def test_tries_count_anew_with_every_row_that_comes(gateway: Gateway) -> None:
    many = [{"number": number} for number in range(9)]
    script = [stream(lines(*many[: count + 1]), BROKEN) for count in range(9)]
    assert gateway.do(results, *script, stream(lines(*many)), retry=RetryPolicy(attempts=2)) == many
    with pytest.raises(Unreachable):
        gateway.do(results, *script[:1], retry=RetryPolicy(attempts=3))
    assert len(gateway.asked) == 3, "the others brought nothing"


def run(**members: Any) -> dict[str, Any]:
    return job("waiting", id="run_1", type="review", name="r", total=0) | members


def test_documents_are_added_by_thousands_and_again_where_the_answer_was_lost(gateway: Gateway) -> None:
    ids = [f"doc_{number}" for number in range(2 * MOST_DOCUMENTS + 1)]
    script = (run(total=1), BROKEN, run(total=2), problem(503), run(total=3))
    assert gateway.do(lambda client: client.runs.add("run_1", iter(ids)), *script).total == 3
    assert gateway.paths() == ["/v1/runs/run_1/documents"] * 5
    sent = [json.loads(request.content)["documents"] for request in gateway.asked]
    assert sent[1] == sent[2]
    assert sent[3] == sent[4]
    assert sent[0] + sent[1] + sent[3] == ids
    assert gateway.do(lambda client: client.runs.add("run_1", []), run(total=7)).total == 7
    assert [request.method for request in gateway.asked] == ["GET"]
    with pytest.raises(Conflict):
        gateway.do(lambda client: client.runs.add("run_1", ids[:1]), problem(409, "run_state"))


def test_a_run_is_sealed_once_or_twice(gateway: Gateway) -> None:
    assert gateway.do(lambda client: client.runs.seal("run_1"), BROKEN, run(sealed=True)).sealed
    assert [(request.method, request.url.path) for request in gateway.asked] == [("POST", "/v1/runs/run_1/seal")] * 2


def test_an_erasure_is_asked_for_until_it_is_carried_out(gateway: Gateway) -> None:
    goes_on = problem(503, "erasure_goes_on")

    def gone(_: httpx.Request) -> httpx.Response:
        return httpx.Response(204)

    assert gateway.do(lambda client: client.documents.erase("doc_1"), BROKEN, goes_on, gone) is None
    assert gateway.paths() == ["/v1/documents/doc_1"] * 3
    counts = {"matter": "M/1", "documents": 2, "jobs": 3, "schedules": 0, "blobs": 9}
    erasure = gateway.do(lambda client: client.matters.erase("M/1"), goes_on, counts)
    assert erasure == Erasure.model_validate(counts)
    assert gateway.asked[1].url.raw_path == b"/v1/matters/M%2F1"
    assert {request.method for request in gateway.asked} == {"DELETE"}
    with pytest.raises(NotFound):
        gateway.do(lambda client: client.matters.erase("M-9"), problem(404, "matter_unknown"))
