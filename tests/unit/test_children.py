"""Children of the stack start again with growing pauses, and a crash loop is counted."""

from __future__ import annotations

import sys
from pathlib import Path

from gateway.stack.children import Child, child_environment
from tests.conftest import wait_until


def test_a_child_that_dies_at_once_is_counted_and_waited_for(tmp_path: Path) -> None:
    child = Child("short", [sys.executable, "-c", "print('gone')"], child_environment({}), tmp_path)
    child.start()
    assert wait_until(child.died, 10)
    assert (child.deaths, child.pause) == (1, 1)
    assert child.died() is None, "not started again before its pause is over"
    assert wait_until(child.died, 10)
    assert (child.deaths, child.pause) == (2, 2)
    assert child.log.read_text(encoding="utf-8").split() == ["gone", "gone"]
