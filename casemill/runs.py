"""Runs: the same work over many documents, with its results as they come."""

from __future__ import annotations

import json
from typing import Any, Unpack

from casemill.calls import answered, pages, read_on, view_of
from casemill.jobs import new_key
from casemill.lines import Lines
from casemill.models import Run
from casemill.operations import D, iteration, operation
from casemill.requests import RunOptions
from casemill.steps import Emit, Emitting, Flow, Open, path_of, request
from casemill.work import WorkResource

PATH = path_of("runs")


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

    @iteration
    def results(self, run: str | Run) -> Emitting[dict[str, Any], None]:
        """A dict for each document that has ended so far: ``document``, ``name``, ``state`` and the job's ``result``.

        Where that is ``None``, ``code`` and ``detail`` say why. A connection that breaks off raises ``Unreachable``.
        """
        lines = Lines()
        yield from answered(Open(request("GET", f"{self._path(run)}/results")), self.retry.begin())
        while (piece := (yield from read_on())) is not None:
            for line in lines.feed(piece):
                yield Emit(json.loads(line))
