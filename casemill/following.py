"""The flows that follow events over as many connections as that takes: all there are, or those of a job to its end."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Generic, TypeVar

from casemill.calls import answered, view_of
from casemill.lines import EventLines
from casemill.models import Event, Work
from casemill.problems import Problem, problem_in, problem_of
from casemill.retry import RetryPolicy, Tries, unfinished
from casemill.steps import Emit, Emitting, Flow, Lost, Open, Pause, Read, Request

W = TypeVar("W", bound=Work)

INTERRUPTED = "interrupted"
# Of silence, after which a connection is dead: the gateway says something every 10 s.
SILENCE_SECONDS = 35.0
# By which the silence of a connection, which is bounded once, may outlast the caller's time.
LATE_SECONDS = 1.0


@dataclass(slots=True, kw_only=True)
class Stream:
    """Reads events as they are ``asked`` for from behind the event ``last``, until a moment of :func:`monotonic`.

    ``work`` is the id of what they are about, which ends the stream with its own end; without one nothing does.
    """

    asked: Request
    retry: RetryPolicy
    last: str | None = None
    until: float | None = None
    work: str = ""
    final: bool = False
    interruption: Problem | None = None
    tries: Tries = field(init=False)

    def __post_init__(self) -> None:
        self.tries = self.begin()

    def connected(self) -> Emitting[Event, Problem | None]:
        """Emit what comes until the connection breaks off, and answer why; ``None`` where it just ended.

        Tries count anew with every sign of life.
        """
        while True:
            headers, silence = {"Last-Event-ID": self.last} if self.last else {}, self.silence()
            yield from answered(Open(replace(self.asked, headers=headers, timeout=silence)), self.tries)
            lines, in_time = EventLines(), True
            while in_time:
                outcome: bytes | Lost | None = yield Read()
                if isinstance(outcome, Lost):
                    return problem_of(outcome)
                if outcome is None:
                    return None
                events = lines.feed(outcome)
                if all(event.event != INTERRUPTED for event in events):
                    self.tries = self.begin()
                for event in events:
                    if event.event == INTERRUPTED:
                        self.interruption = problem_in(event.data, event.data["status"])
                    self.last, self.final = event.id or self.last, event.final and bool(self.work)
                    yield Emit(event)
                if self.final:
                    return None
                in_time = silence - self.silence() <= LATE_SECONDS

    def again(self, broken: Problem | None) -> Flow[None]:
        """Wait until there may be another connection; raises the problem where there is none any more."""
        ended = problem_of(Lost("the stream of events ended before what it tells of", sent=True))
        broken, self.interruption = self.interruption or broken or ended, None
        yield Pause(self.tries.pause(broken))

    def begin(self) -> Tries:
        """The tries of a request."""
        return self.retry.begin(self.until, self.work)

    def silence(self) -> float:
        """Seconds that a connection may say nothing. Raises ``Unfinished`` where no time is left."""
        if self.until is None:
            return SILENCE_SECONDS
        left = self.until - monotonic()
        if left <= 0:
            raise unfinished(self.work)
        return min(SILENCE_SECONDS, left)


@dataclass(slots=True, kw_only=True)
class Following(Stream, Generic[W]):
    """Follows work to its end; a ``look`` at it answers its ``view``."""

    view: type[W]
    look: Request

    def flow(self) -> Emitting[Event, W]:
        """Emit the events, the final state last; answers what has ended.

        A connection that breaks off is followed by another from the last event on. A job that is retried after its end
        is followed on.
        """
        while True:
            broken = yield from self.connected()
            if broken is None:
                found = yield from view_of(self.view, replace(self.look, timeout=self.silence()), self.begin())
                if found.ended:
                    if not self.final:  # the events are not kept any more, or were all before `last`
                        yield Emit(Event(self.last or "", found.state, {"state": found.state}))
                    return found
                self.final = False
            yield from self.again(broken)
