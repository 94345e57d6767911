"""An answer is retold with the ids that its request has in the description, and others stay others."""

from __future__ import annotations

import json

from gateway.openapi.example_ids import EXAMPLE_IDS
from services.paging import Place, read_cursor, write_cursor
from tests.retold import retold

JOB, OTHER, RUN = (f"{kind}_{digit * 32}" for kind, digit in (("job", "a"), ("job", "b"), ("run", "c")))
DOCUMENT = f"doc_{'d' * 64}"
KNOWN = EXAMPLE_IDS["job_id"]


def test_what_the_request_names_is_what_the_answer_names() -> None:
    told = retold({"data": [{"id": OTHER}, {"id": JOB}, {"id": OTHER}]}, {"job_id": JOB})
    first, second, third = (row["id"] for row in told["data"])
    assert second == KNOWN
    assert first == third != KNOWN


def test_the_first_of_what_only_the_answer_names_is_the_known_one() -> None:
    made, _ = retold([{"id": OTHER}, {"id": JOB}], {"job_id": f"job_{'e' * 32}"})
    assert made == {"id": KNOWN}


def test_a_job_of_a_run_has_the_runs_digits_as_it_really_has() -> None:
    event = f'id: 1-1\nevent: document\ndata: {{"job": "job_{RUN[4:]}.1", "run": "{RUN}", "document": "{DOCUMENT}"}}\n'
    data = json.loads(retold(event, {"run_id": RUN}).split("data: ")[1])
    run = EXAMPLE_IDS["run_id"]
    assert data == {"job": f"job_{run[4:]}.1", "run": run, "document": EXAMPLE_IDS["document_id"]}


def test_members_named_by_ids_are_retold_and_those_named_by_steps_are_in_order() -> None:
    told = retold({"documents": {DOCUMENT: {}}, "seconds": {"scan": 1.0, "extract": 2.0}}, {})
    assert list(told["documents"]) == [EXAMPLE_IDS["document_id"]]
    assert list(told["seconds"]) == ["extract", "scan"]


def test_keys_and_their_secrets_are_of_one_id() -> None:
    told = retold([{"id": "0" * 12}, {"id": "1" * 12, "key": f"cm_{'1' * 12}_{'2' * 48}"}], {"key_id": "0" * 12})
    assert told[0]["id"] == EXAMPLE_IDS["key_id"]
    assert told[1]["key"].startswith(f"cm_{told[1]['id']}_")
    assert told[1]["id"] != told[0]["id"]


def test_a_cursor_stays_one_and_names_what_is_named_beside_it() -> None:
    cursor = write_cursor("documents", Place(1.5, DOCUMENT))
    told = retold({"data": [{"id": DOCUMENT}], "next_cursor": cursor}, {})
    assert read_cursor("documents", told["next_cursor"]) == Place(1.5, EXAMPLE_IDS["document_id"])


def test_names_are_the_descriptions_too() -> None:
    assert retold({"matter": "M-6", "name": "lease-5"}, {"matter": "M-6", "playbook": "lease-5"}) == {
        "matter": EXAMPLE_IDS["matter"],
        "name": EXAMPLE_IDS["playbook"],
    }


def test_a_worker_has_the_models_that_it_plays_and_a_list_none_twice() -> None:
    worker = {"host": "here-7", "models": [{"name": "fake", "kind": "embed", "sha256": "0" * 64}], "engine": "fake"}
    told = retold(worker, {})
    assert (told["host"], told["engine"]) == ("office", "llama")
    assert told["models"][0]["name"] == EXAMPLE_IDS["embedding_model_id"]
    assert retold({"data": [{"id": "fake", "kind": "embed"}]}, {}) == {"data": []}
