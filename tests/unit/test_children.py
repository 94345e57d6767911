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


def test_a_child_that_drains_ends_for_good_in_order_or_at_its_time(tmp_path: Path) -> None:
    for seconds, ignores in ((60.0, False), (0.2, True)):
        text = "import signal, time\n"
        text += "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if ignores else ""
        child = Child("long", [sys.executable, "-c", text + "print('up', flush=True); time.sleep(600)"], {}, tmp_path)
        child.start()
        wait_until(lambda child=child: child.log.read_text(encoding="utf-8").endswith("up\n"), 10)
        assert not child.draining and not child.drained()
        child.drain(seconds)
        assert child.draining
        assert wait_until(child.drained, 10)
        assert child.pid is None
        assert child.died() is None, "its end is no death and nothing starts again"
        child.log.unlink()
