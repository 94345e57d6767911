"""The flow that follows a job or run to its end by its events, over as many connections as that takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from casemill.calls import answered, json_of
from casemill.lines import EventLines
from casemill.models import FINAL, Event
from casemill.problems import Problem, Unavailable, problem_of
from casemill.retry import RetryPolicy, Tries, unfinished
from casemill.steps import Emit, Emitting, Lost, Open, Pause, Read, Request

INTERRUPTED = "interrupted"
# Of silence, after which a connection is dead: the gateway says something every 10 s.
SILENCE_SECONDS = 35.0


@dataclass(slots=True)
class Following:
    """Follows what is at ``path`` from behind the event ``last``, at most until a moment of :func:`time.monotonic`."""

    path: str
    retry: RetryPolicy
    last: str | None = None
    until: float | None = None
    final: bool = False
    tries: Tries = field(init=False)

    def __post_init__(self) -> None:
        self.tries = self.retry.begin(self.until)

    def flow(self) -> Emitting[Event, dict[str, Any]]:
        """Emit the events, the final state last; answers the JSON of what has ended.

        A connection that breaks off is followed by another from the last event on. Tries count anew with every sign of
        life. A job that is retried after its end is followed on.
        """
        while True:
            headers = {"Last-Event-ID": self.last} if self.last else {}
            yield from answered(Open(self._get("/events", headers)), self.tries)
            broken = yield from self._read()
            if broken is None:
                view = yield from json_of(self._get(), self.retry.begin(self.until))
                state = view["state"]
                if state in FINAL:
                    if not self.final:  # the events are not kept any more, or were all before `last`
                        yield Emit(Event(self.last or "", state, {"state": state}))
                    return view
                self.final = False
                broken = Unavailable("the stream of events was interrupted", code="events_interrupted", status=503)
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
                self.tries = self.retry.begin(self.until)
            for event in events:
                self.last, self.final = event.id or self.last, event.final
                yield Emit(event)
            if self._silence() < silence / 2:  # this connection may be silent for longer than there is time
                return None
        return None

    def _get(self, below: str = "", headers: dict[str, str] | None = None) -> Request:
        return Request("GET", self.path + below, headers=headers or {}, repeatable=True, timeout=self._silence())

    def _silence(self) -> float:
        """Seconds that a connection may say nothing. Raises ``Unfinished`` where no time is left."""
        if self.until is None:
            return SILENCE_SECONDS
        left = self.until - monotonic()
        if left <= 0:
            raise unfinished()
        return min(SILENCE_SECONDS, left)
