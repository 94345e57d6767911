"""Runs a state machine of hypothesis through many lives."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def run_lives(machine: type[RuleBasedStateMachine], lives: int, steps: int) -> None:
    """So many lives of at most so many steps, however long one takes."""
    profile = settings(
        max_examples=lives,
        stateful_step_count=steps,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    run_state_machine_as_test(machine, settings=profile)
