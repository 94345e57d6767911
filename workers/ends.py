"""The ends of the jobs of one claim: delivered together if they come quickly, without the rest if that takes long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from services.jobs import Completion

# A script and a sync of the disk are a few milliseconds, so what waits no longer than this costs next to nothing.
TOGETHER_SECONDS = 0.1


class Ends:
    """What a slot has done and not delivered yet; ``deliver`` is called in a thread of its own."""

    def __init__(self, deliver: Callable[[Sequence[Completion]], object]) -> None:
        self._deliver = deliver
        self._done: list[Completion] = []
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def add(self, completion: Completion) -> None:
        """Note an end while more of the claim is left to run."""
        with self._lock:
            self._done.append(completion)
            if self._timer is None:
                self._timer = threading.Timer(TOGETHER_SECONDS, self._send)
                self._timer.daemon = True
                self._timer.start()

    def take(self) -> list[Completion]:
        """What is left to deliver, once nothing is being delivered any more."""
        with self._lock:
            if self._timer:
                self._timer.cancel()
            done, self._done = self._done, []
            return done

    def _send(self) -> None:
        with self._lock:
            self._timer = None
            if self._done:
                self._deliver(self._done)
                self._done = []
