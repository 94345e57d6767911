"""One execution of a claimed job: what a task sees of the queue while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, TypeVar

from services.errors import Unavailable
from services.jobs import Claim
from services.lifecycle import Lifecycle

# Token events are coalesced: at most one append per job in this time.
COALESCE_SECONDS = 0.025

_T = TypeVar("_T")


class Stopped(Exception):  # control flow, not a failure
    """The execution was told to stop; ``Execution.reason`` says why."""


class Execution:
    """Handle that a task uses to show that it moves, to stream, and to learn that it must stop.

    A task calls :meth:`tick` at every engine step or page. Safe to call from the engine's thread. ``behind`` is the
    execution that waits for this one in the same slot; it moves with it.
    """

    def __init__(self, claim: Claim, lifecycle: Lifecycle, draining: Callable[[], bool]) -> None:
        self.claim = claim
        self.reason: str | None = None
        self.behind: Execution | None = None
        self.over = False
        self._lifecycle = lifecycle
        self._draining = draining
        self._steps = 0
        self._seen = -1
        self._pending: list[str] = []
        self._flushed = 0.0
        self._lock = threading.Lock()
        self._contexts = ExitStack()

    def tick(self) -> None:
        """Say that the work moved on by a step; leases of executions that do not move run out."""
        self._steps += 1
        if self.behind:
            self.behind.tick()

    def moved(self) -> bool:
        """Whether a step was made since the last call, or all of them; for the heartbeat alone."""
        if self.over:
            return True
        moved, self._seen = self._steps != self._seen, self._steps
        return moved

    def stop(self, reason: str) -> None:
        """Tell the execution to stop at its next step: ``cancel`` or ``lost``."""
        self.reason = self.reason or reason

    def stopped(self) -> bool:
        """Whether the task must stop now."""
        if self.reason is None and self._draining():
            self.reason = "drain"
        return self.reason is not None

    def check(self) -> None:
        """Tick, and raise :class:`Stopped` when the task must stop."""
        self.tick()
        if self.stopped():
            raise Stopped(self.reason)

    def use(self, context: AbstractContextManager[_T]) -> _T:
        """Enter ``context``, an engine's lease for example, until the execution ends."""
        return self._contexts.enter_context(context)

    def close(self) -> None:
        """Leave what was entered; the execution is over, and its lease is kept until its end is delivered."""
        self.over = True
        self._contexts.close()

    def text(self, piece: str) -> None:
        """Stream a piece of generated text to whoever follows the job."""
        with self._lock:
            self._pending.append(piece)
            if time.monotonic() - self._flushed >= COALESCE_SECONDS:
                self._flush()

    def flush(self) -> None:
        """Send what :meth:`text` still holds."""
        with self._lock:
            self._flush()

    def progress(self, **data: Any) -> None:
        """Report progress, small JSON-ready values and never document text."""
        self._append("progress", data)

    def _flush(self) -> None:
        if self._pending:
            text = "".join(self._pending)
            self._pending = [] if self._append("token", {"text": text}) else [text]
        self._flushed = time.monotonic()

    def _append(self, event: str, data: dict[str, Any]) -> bool:
        """Whether the event need not be sent again."""
        try:
            if not self._lifecycle.append(self.claim, event, data):
                self.stop("lost")
        except Unavailable:
            return False
        return True
