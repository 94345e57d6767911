"""What clients name, keys of repetitions and values to find jobs by: found again, and guessed by nobody."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.stack.valkey import EmbeddedValkey
from services.errors import Conflict
from services.job_index import Wanted
from services.jobs import JobType, Submission
from services.lifecycle import Lifecycle
from services.runs import Runs, RunSubmission
from services.seals import Seals
from tests.conftest import job_index
from tests.serving import settings_on

NAME = "Quetzalcoatlus ./. Zymurgy 2031/17"
NAMED = Submission(
    "acme",
    JobType.GENERATE,
    {"prompt": "hi"},
    external_id=NAME,
    matter="m-1",
    metadata={"case": NAME},
    idempotency_key=NAME,
    request_hash=hashlib.sha256(b"the request").hexdigest(),
)


@pytest.fixture(params=["sealed", "plain"])
def installations(request: pytest.FixtureRequest, server: EmbeddedValkey, tmp_path: Path) -> Iterator[list[Lifecycle]]:
    made: list[Lifecycle] = []
    for number in range(2):
        settings = settings_on(server, tmp_path / str(number))
        if request.param == "sealed":
            assert Seals.make_master_key(settings)
            settings.data_dir.mkdir()
            (settings.data_dir / "blob-secret").write_bytes(b"known to whoever has the backup")
        made.append(Lifecycle(settings))
    yield made
    for lifecycle in made:
        raw: Any = lifecycle.client
        for name in raw.scan_iter(f"{lifecycle.keys.prefix}*"):
            raw.delete(name)
        raw.close()


def digests_in(lifecycle: Lifecycle) -> set[str]:
    """The digests by which the server finds what a client named, and those of requests."""
    raw: Any = lifecycle.client
    prefix = lifecycle.keys.prefix
    found: set[str] = set()
    for name in raw.scan_iter(f"{prefix}idempotency:*"):
        found |= {name.rpartition(":")[2], raw.get(name).partition("|")[2]}
    return found | {name.rpartition(":")[2] for name in raw.scan_iter(f"{prefix}label:*")}


def test_digests_of_what_clients_name_depend_on_a_secret(installations: list[Lifecycle]) -> None:
    seen: list[set[str]] = []
    for lifecycle in installations:
        assert lifecycle.submit(NAMED)[1]
        seen.append(digests_in(lifecycle))
    assert len(seen[0]) == 5, "a key, a request, three values"
    assert not seen[0] & seen[1], "anybody can compute it"


def test_what_was_named_is_found_again(installations: list[Lifecycle]) -> None:
    lifecycle = installations[0]
    job, _ = lifecycle.submit(NAMED)
    Runs(lifecycle).submit(RunSubmission("r", Submission("acme", JobType.EXTRACT, {}, idempotency_key="run")))
    path, keys = lifecycle.settings.master_key_path, lifecycle.records.seals.keys
    if keys:
        assert path
        assert keys.rotate_master(), "names are found under the next master key too"
    again = Lifecycle(lifecycle.settings)
    assert (again.submit(NAMED)[0].id, again.submit(NAMED)[1]) == (job.id, False)
    for labels in ({"external_id": NAME}, {"metadata.case": NAME}, {"matter": "m-1"}):
        assert [row.id for row in job_index(again).list("acme", Wanted(labels=labels)).rows] == [job.id]
    run = RunSubmission("r", Submission("acme", JobType.EXTRACT, {}, idempotency_key="run"))
    assert not Runs(again).submit(run)[1]
    with pytest.raises(Conflict) as refused:
        again.submit(Submission("acme", JobType.GENERATE, {"prompt": "other"}, idempotency_key=NAME))
    assert refused.value.code == "idempotency_mismatch"
    again.client.close()
