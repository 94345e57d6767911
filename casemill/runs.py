"""Runs: the same work over many documents, with its results as they come."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, Unpack

from casemill.calls import answered, loaded, pages, read_on, view_of, viewed
from casemill.jobs import new_key
from casemill.lines import Lines
from casemill.models import Row, Run
from casemill.operations import D, iteration, operation
from casemill.problems import Problem, problem_of
from casemill.requests import RunOptions
from casemill.steps import Emit, Emitting, Flow, Lost, Open, Pause, path_of, request
from casemill.work import WorkResource

PATH = path_of("runs")
# What the gateway takes in one request.
MOST_DOCUMENTS = 10_000


class Runs(WorkResource[D, Run]):
    """``client.runs``."""

    kind, view = "runs", Run

    @operation
    def create(self, *, idempotency_key: str | None = None, **options: Unpack[RunOptions]) -> Flow[Run]:
        """Begin a run over ``documents``, or over all that a ``matter`` holds; options as :class:`casemill.RunOptions`.

        Safe to try again as :meth:`casemill.jobs.Jobs.submit` is.
        """
        asked = request("POST", PATH, body=options, idempotency_key=idempotency_key or new_key())
        return (yield from view_of(Run, asked, self.retry.begin()))

    @iteration
    def list(self, *, schedule: str | None = None) -> Emitting[Run, None]:
        """The runs, newest first; ``schedule`` keeps those of one schedule."""
        yield from pages(PATH, {"schedule": schedule}, Run, self.retry)

    @operation
    def add(self, run: str | Run, documents: Iterable[str], /) -> Flow[Run]:
        """Add documents to a run that was created with ``open=True``, by their ids, 10,000 in a request.

        Those that it has already count once, so that trying again is safe, with all of them too. Raises ``Conflict``
        (``run_state``) for a run that takes no more, ``NotFound`` for documents that are not there, and ``Throttled``
        where more would wait than may. A run that nobody adds to for an hour is sealed by itself.
        """
        added, ids = None, iter(documents)
        while some := list(islice(ids, MOST_DOCUMENTS)):
            asked = request("POST", f"{self._path(run)}/documents", body={"documents": some}, repeatable=True)
            added = yield from view_of(Run, asked, self.retry.begin())
        return added or (yield from WorkResource[D, Run].get.flow(self, run))

    @operation
    def seal(self, run: str | Run, /) -> Flow[Run]:
        """Say that no more documents come, so that the run can end. One that is sealed stays as it is."""
        asked = request("POST", f"{self._path(run)}/seal", repeatable=True)
        return (yield from view_of(Run, asked, self.retry.begin()))

    @iteration
    def results(self, run: str | Run, /) -> Emitting[dict[str, Any], None]:
        """A dict for each document that has ended so far: ``document``, ``name``, ``state`` and the job's ``result``.

        Where that is ``None``, ``code`` and ``detail`` say why. What breaks off is read on, and no document comes
        twice; one that ends meanwhile may come behind those that were added after it.
        """
        told, tries = set[int](), self.retry.begin()
        while True:
            before = len(told)
            yield from answered(Open(request("GET", f"{self._path(run)}/results")), tries)
            broken = yield from _untold(told)
            if broken is None:
                return
            if len(told) > before:
                tries = self.retry.begin()
            yield Pause(tries.pause(broken))


def _untold(told: set[int]) -> Emitting[dict[str, Any], Problem | None]:
    """Emit the rows that come and are not ``told`` yet; answers why they broke off, ``None`` at their end."""
    lines = Lines()
    try:
        while (piece := (yield from read_on())) is not None:
            for line in lines.feed(piece):
                row = loaded(line)
                number = viewed(Row, row).number
                if number not in told:
                    told.add(number)
                    yield Emit(row)
    except Problem as broken:
        return broken
    return problem_of(Lost("the results ended in mid-line; ask for them again", sent=True)) if lines.torn else None
