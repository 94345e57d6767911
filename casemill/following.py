"""The flow that follows a job or run to its end by its events, over as many connections as that takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic
from typing import Generic, TypeVar

from casemill.calls import answered, view_of
from casemill.lines import EventLines
from casemill.models import Event, Work
from casemill.problems import Problem, problem_in, problem_of
from casemill.retry import RetryPolicy, Tries, unfinished
from casemill.steps import Emit, Emitting, Lost, Open, Pause, Read, Request

W = TypeVar("W", bound=Work)

INTERRUPTED = "interrupted"
# Of silence, after which a connection is dead: the gateway says something every 10 s.
SILENCE_SECONDS = 35.0


@dataclass(slots=True)
class Following(Generic[W]):
    """Follows ``work``, which is at ``path``, from behind the event ``last``, until a moment of :func:`monotonic`."""

    work: str
    path: str
    view: type[W]
    retry: RetryPolicy
    last: str | None = None
    until: float | None = None
    final: bool = False
    interruption: Problem | None = None
    tries: Tries = field(init=False)

    def __post_init__(self) -> None:
        self.tries = self._begin()

    def flow(self) -> Emitting[Event, W]:
        """Emit the events, the final state last; answers what has ended.

        A connection that breaks off is followed by another from the last event on. Tries count anew with every sign of
        life. A job that is retried after its end is followed on.
        """
        while True:
            headers = {"Last-Event-ID": self.last} if self.last else {}
            yield from answered(Open(self._get("/events", headers)), self.tries)
            broken = yield from self._read()
            if broken is None:
                found = yield from view_of(self.view, self._get(), self._begin())
                if found.ended:
                    if not self.final:  # the events are not kept any more, or were all before `last`
                        yield Emit(Event(self.last or "", found.state, {"state": found.state}))
                    return found
                self.final = False
                broken = problem_of(Lost("the stream of events ended before what it tells of", sent=True))
            broken, self.interruption = self.interruption or broken, None
            yield Pause(self.tries.pause(broken))

    def _read(self) -> Emitting[Event, Problem | None]:
        """Emit what comes; answers why it broke off, ``None`` where the state is to be looked at."""
        lines, silence = EventLines(), self._silence()
        while not self.final:
            outcome: bytes | Lost | None = yield Read()
            if isinstance(outcome, Lost):
                return problem_of(outcome)
            if outcome is None:
                return None
            events = lines.feed(outcome)
            if all(event.event != INTERRUPTED for event in events):
                self.tries = self._begin()
            for event in events:
                if event.event == INTERRUPTED:
                    self.interruption = problem_in(event.data, event.data["status"])
                self.last, self.final = event.id or self.last, event.final
                yield Emit(event)
            if self._silence() < silence / 2:  # this connection may be silent for longer than there is time
                return None
        return None

    def _begin(self) -> Tries:
        return self.retry.begin(self.until, self.work)

    def _get(self, below: str = "", headers: dict[str, str] | None = None) -> Request:
        return Request("GET", self.path + below, headers=headers or {}, repeatable=True, timeout=self._silence())

    def _silence(self) -> float:
        """Seconds that a connection may say nothing. Raises ``Unfinished`` where no time is left."""
        if self.until is None:
            return SILENCE_SECONDS
        left = self.until - monotonic()
        if left <= 0:
            raise unfinished(self.work)
        return min(SILENCE_SECONDS, left)
