"""When a request is sent again: exponential back-off with jitter and ``Retry-After``, bounded in number and time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from time import monotonic

from casemill.problems import Problem, Unfinished


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long a client goes on asking. The last try begins within ``seconds`` and ends by the client's ``timeout``.

    Attributes:
        attempts: requests that are made at most; 1 never asks again.
        seconds: time in which they are made. A ``Retry-After`` beyond it is not waited for: its problem is raised.
        first: seconds of the first pause; each that follows is twice as long.
        longest: seconds of the longest pause.
    """

    attempts: int = 100  # more than the time has room for
    seconds: float = 60.0
    first: float = 0.2
    longest: float = 8.0

    def begin(self, until: float | None = None, work: str = "") -> Tries:
        """The tries of one request; ``until`` is the caller's own end, on the clock of :func:`time.monotonic`.

        ``work`` is the id of what is waited for until then.
        """
        return Tries(self, monotonic() + self.seconds, until, work)


@dataclass(slots=True)
class Tries:
    """Counts the tries of one request."""

    policy: RetryPolicy
    end: float
    until: float | None = None
    work: str = ""
    made: int = 0

    def pause(self, problem: Problem) -> float:
        """Seconds to wait after a try that failed; raises its problem where there is no further one.

        Raises ``Unfinished`` where the caller's own time would pass before.
        """
        if self.until is not None and monotonic() >= self.until:
            raise unfinished(self.work) from problem
        self.made += 1
        if self.made >= self.policy.attempts:
            raise problem
        step = min(self.policy.longest, self.policy.first * 2.0 ** min(self.made - 1, 60))
        # Half of it by chance: clients that were refused together do not come back together.
        seconds = (problem.retry_after or 0.0) + step * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)
        if self.until is not None and monotonic() + seconds >= self.until:
            raise unfinished(self.work) from problem
        if monotonic() + seconds > self.end:
            raise problem
        return seconds


def unfinished(work: str) -> Unfinished:
    """What is raised at the caller's own end."""
    detail = f"{work} has not ended in the time given; it goes on: wait for it again, or cancel it"
    return Unfinished(detail, work=work, code="unfinished", retryable=True)
