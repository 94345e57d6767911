"""What jobs and runs have in common: look, follow, wait, cancel."""

from __future__ import annotations

from time import monotonic
from typing import Any, Generic, TypeVar

from casemill.calls import view_of
from casemill.following import Following
from casemill.models import Event, Work
from casemill.operations import D, Resource, iteration, operation
from casemill.steps import Emitting, Flow, path_of, request

W = TypeVar("W", bound=Work)


class WorkResource(Resource[D], Generic[D, W]):
    """Things that end. Wherever one is meant, its id and the thing itself are good."""

    kind: str
    view: type[W]

    @operation
    def get(self, work: str | W, /) -> Flow[W]:
        """Where it stands now. Raises ``NotFound``."""
        return (yield from view_of(self.view, request("GET", self._path(work)), self.retry.begin()))

    @operation
    def cancel(self, work: str | W, /) -> Flow[W]:
        """Cancel it: at once what waits, at its next step what runs; one that has ended stays as it is."""
        return (yield from view_of(self.view, request("DELETE", self._path(work)), self.retry.begin()))

    @operation
    def wait(self, work: str | W, /, *, timeout: float | None = None) -> Flow[W]:
        """Wait until it has ended, however it has; answers it as it ended.

        Raises ``Unfinished`` after ``timeout`` seconds; the work goes on. A gateway that restarts meanwhile does no
        harm; one that stays away longer than the client's ``retry`` allows raises ``Unreachable``.
        """
        return (yield from self._following(work, None, timeout).flow())

    @iteration
    def events(
        self, work: str | W, /, *, after: str | None = None, timeout: float | None = None
    ) -> Emitting[Event, Any]:
        """Its events from the first on, or behind the one with the id ``after``, until it has ended.

        No event is missed or told twice when the connection breaks off, and the last one tells the final state. Raises
        as :meth:`wait` does.
        """
        yield from self._following(work, after, timeout).flow()

    def _path(self, work: str | W) -> str:
        return path_of(self.kind, _id(work))

    def _following(self, work: str | W, after: str | None, timeout: float | None) -> Following[W]:
        return Following(
            asked=request("GET", f"{self._path(work)}/events"),
            look=request("GET", self._path(work)),
            view=self.view,
            retry=self.retry,
            last=after,
            until=None if timeout is None else monotonic() + timeout,
            work=_id(work),
        )


def _id(work: str | Work) -> str:
    return work if isinstance(work, str) else work.id
