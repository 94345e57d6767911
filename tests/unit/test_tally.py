"""What Flower shows of a ticket: every end in a word, the last job ids, the last problem's code and no text."""

from __future__ import annotations

from celery.utils.saferepr import saferepr

from services.errors import Unavailable
from services.jobs import Claim, Completion, Lane, Priority, State, new_id
from workers.tally import MAX_IDS, MAX_SHOWN, Tally


def done(job: str, parent: str | None = None, problem: bool = False) -> Completion:
    claim = Claim(
        "acme", job, 1, "embed", Lane.EMBED, Priority.NORMAL, {"text": "secret"}, None, parent, None, {}, None
    )
    return Completion(claim, "retry", problem=Unavailable("a secret sentence").problem() if problem else None)


def test_ends_are_told_by_what_became_of_the_jobs() -> None:
    tally = Tally()
    tally.add([done("a"), done("b", problem=True)], [State.SUCCEEDED, State.SCHEDULED])
    tally.add([done("c"), done("d"), done("p.x", "p"), done("p.y", "p")], [State.QUEUED, None, *[State.SUCCEEDED] * 2])
    tally.add([done("e", problem=True)], [State.FAILED])
    tally.undelivered([done("f")])
    assert tally.view() == {
        "jobs": 8,
        "ended": {"succeeded": 3, "retry": 1, "released": 1, "discarded": 1, "failed": 1, "undelivered": 1},
        "problem": "unavailable",
        "ids": ["a", "b", "c", "d", "p", "e", "f"],
    }
    assert "secret" not in str(tally.view())


def test_thousands_of_jobs_stay_small_and_the_last_are_shown_whole() -> None:
    tally = Tally()
    ids = [new_id("job") for _ in range(3000)]
    for job in ids:
        tally.add([done(job, problem=True)], [State.FAILED])
    shown = saferepr(tally.view(), MAX_SHOWN)
    assert all(job in shown for job in ids[-MAX_IDS:])
    assert tally.view()["jobs"] == 3000
    assert len(tally.view()["ids"]) == MAX_IDS
