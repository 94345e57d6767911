"""The pulse outlives whatever goes wrong around it, and ends a process whose engine hangs."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from tests.conftest import wait_until
from workers.execution import Execution
from workers.pulse import Pulse


class Lifecycle:
    """Fails twice, then works."""

    def __init__(self) -> None:
        self.settings = SimpleNamespace(lease_seconds=0.04)
        self.calls: list[list[str]] = []

    def renew(self, moved: list[str], still: list[str]) -> dict[str, str]:
        self.calls.append(moved)
        if len(self.calls) <= 2:
            raise ValueError("surprise")
        return dict.fromkeys([*moved, *still], "cancel")


def broken_description(_: int) -> Any:
    raise OSError("the catalog cannot be read")


def test_the_pulse_goes_on_after_any_error() -> None:
    lifecycle: Any = Lifecycle()
    fleet: Any = SimpleNamespace(announce=lambda _: None)
    claim: Any = SimpleNamespace(member="acme|job|1", id="job")
    execution = Execution(claim, lifecycle, lambda: False)
    pulse = Pulse(lifecycle, fleet, broken_description, lambda: 0.0)
    pulse.add(execution)
    execution.tick()
    pulse.start()
    wait_until(lambda: execution.reason == "cancel", 5, "the cancellation after two failed beats")
    pulse.stop()
    pulse.join(5)
    assert lifecycle.calls[0] == ["acme|job|1"]


def test_only_what_moved_is_renewed() -> None:
    lifecycle: Any = Lifecycle()
    claim: Any = SimpleNamespace(member="acme|job|1", id="job")
    execution = Execution(claim, lifecycle, lambda: False)
    execution.tick()
    assert execution.moved()
    assert not execution.moved()
    execution.tick()
    assert execution.moved()


def test_a_process_whose_engine_hangs_ends() -> None:
    code = (
        "import time; from types import SimpleNamespace as N; from workers.pulse import Pulse\n"
        "lifecycle = N(settings=N(lease_seconds=0.1), renew=lambda *_: {})\n"
        "Pulse(lifecycle, N(announce=lambda _: None), lambda _: None, lambda: 999.0).start()\n"
        "time.sleep(20)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 70
    assert "has not moved" in done.stderr
