"""The Lua scripts share one scope, in which a name may stand for one thing alone, and each has all that it calls."""

from __future__ import annotations

import re
from collections import Counter
from importlib.resources import files

import pytest

from services.scripts import SHARED, script_text

SCRIPTS = sorted(
    file.name.removesuffix(".lua")
    for file in (files("services") / "lua").iterdir()
    if file.name.removesuffix(".lua") not in SHARED
)
KEYWORDS = {"and", "elseif", "error", "function", "if", "in", "ipairs", "not", "or", "pairs", "return", "select"}
FUNCTIONS = {"tonumber", "tostring", "type", "unpack", "until", "while"}
SILENT = re.compile(r"--[^\n]*|'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"")


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_function_hides_another(script: str) -> None:
    names = re.findall(r"^(?:local function (\w+)|(\w+) = function)", script_text(script), re.MULTILINE)
    counts = Counter(local or forward for local, forward in names)
    assert [name for name, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_has_all_that_it_calls_before_it_calls_it(script: str) -> None:
    text = SILENT.sub("''", script_text(script))
    for call in re.finditer(r"(?<![\w.:])((?:key\.)?\w+)\(", text):
        name = call[1]
        if name in KEYWORDS | FUNCTIONS or text[: call.start(1)].endswith("function "):
            continue
        defined = (
            rf"function {re.escape(name)}\(|^local [\w, ]*\b{name}\b|\blocal [\w, ]*\b{name}\b|\(.*\b{name}\b.*\)$"
        )
        assert re.search(defined, text[: call.start()], re.MULTILINE), f"{name} is not there yet"
    for name in set(re.findall(r"\bkey\.\w+", text)):
        assert f"function {name}(" in text


def test_a_script_has_no_more_than_it_may_need() -> None:
    assert "conclude_run" in script_text("work")
    assert "conclude_run" not in script_text("admit")
