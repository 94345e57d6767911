"""Matters: erase all that belongs to one."""

from __future__ import annotations

from casemill.calls import view_of
from casemill.models import Erasure
from casemill.operations import D, Resource, operation
from casemill.steps import Flow, path_of, request


class Matters(Resource[D]):
    """``client.matters``."""

    @operation
    def erase(self, matter: str, /) -> Flow[Erasure]:
        """Erase a matter: its documents, jobs, runs and schedules with everything derived from them.

        As :meth:`casemill.documents.Documents.erase`; answers in numbers what was removed, the same when tried again.
        """
        return (yield from view_of(Erasure, request("DELETE", path_of("matters", matter)), self.retry.begin()))
