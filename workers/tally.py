"""What one ticket did, as Flower shows and finds it after its end: ids, ends and codes, never text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from services.jobs import Completion, State

# A ticket can run thousands of small jobs; Flower keeps the result of each of its last tickets in memory.
MAX_IDS = 20
# Celery cuts what it shows at 1,024 characters; twenty ids and their surroundings are longer.
MAX_SHOWN = 2048

# A job that is put back says by its state what became of this execution.
_WORDS = {State.SCHEDULED: "retry", State.QUEUED: "released", None: "discarded"}


class Tally:
    """Counts the executions of one ticket; for one thread at a time."""

    def __init__(self) -> None:
        self._ended: Counter[str] = Counter()
        self._ids: dict[str, None] = {}
        self._problem: str | None = None

    def add(self, done: Sequence[Completion], states: Sequence[State | None]) -> None:
        """Note what was done and the state that each job is in now, ``None`` where the end did not count."""
        for completion, state in zip(done, states, strict=True):
            self._note(completion, _WORDS.get(state) or str(state))

    def undelivered(self, done: Sequence[Completion]) -> None:
        """Note what was done while Redis was away for too long: those leases run out, and the jobs run again."""
        for completion in done:
            self._note(completion, "undelivered")

    def view(self) -> dict[str, Any]:
        """``{"jobs": n, "ended": {state: n}, "problem": code of the last failure or retry, "ids": the last twenty}``.

        The ids are those of the jobs that clients submitted, also where the ticket ran a step of one.
        """
        problem = {"problem": self._problem} if self._problem else {}
        return {"jobs": self._ended.total(), "ended": dict(self._ended), **problem, "ids": list(self._ids)}

    def _note(self, completion: Completion, word: str) -> None:
        self._ended[word] += 1
        root = completion.claim.root
        self._ids.pop(root, None)
        self._ids[root] = None
        if len(self._ids) > MAX_IDS:
            del self._ids[next(iter(self._ids))]
        if completion.problem:
            self._problem = str(completion.problem["code"])
