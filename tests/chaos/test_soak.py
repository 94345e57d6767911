"""A minute of the soak: mixed load while workers and the server are killed; nothing is lost, doubled or left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.benchmarks.soak import soak


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_minute_of_mixed_load_under_kills(tmp_path: Path) -> None:
    figures = soak(tmp_path, 60)
    assert {name: figures[name] for name in ("lost", "doubled", "leaked_keys")} == {
        "lost": 0,
        "doubled": 0,
        "leaked_keys": 0,
    }
