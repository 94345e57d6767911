"""The Lua scripts share one scope, in which a name may stand for one thing alone."""

from __future__ import annotations

import re
from collections import Counter

from services.scripts import script_text


def test_no_function_hides_another() -> None:
    names = re.findall(r"^(?:local function (\w+)|(\w+) = function)", script_text("care"), re.MULTILINE)
    counts = Counter(local or forward for local, forward in names)
    assert len(counts) > 20
    assert [name for name, count in counts.items() if count > 1] == []
