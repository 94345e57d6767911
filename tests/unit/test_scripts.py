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


def missing(script: str) -> set[str]:
    """The names that a script calls and does not have by then; those declared ahead may get their function later."""
    text, found = SILENT.sub("''", script), set[str]()
    ahead = {
        name
        for names in re.findall(r"^local (\w+(?:, \w+)*) *(?:'')?$", text, re.MULTILINE)
        for name in names.split(", ")
    }
    for call in re.finditer(r"(?<![\w.:])((?:key\.)?\w+)\(", text):
        name = call[1]
        if name in KEYWORDS | FUNCTIONS or text[: call.start(1)].endswith("function "):
            continue
        before, defined = (
            text[: call.start()],
            rf"function {re.escape(name)}\(|\blocal [\w, ]*\b{name}\b|\(.*\b{name}\b.*\)$",
        )
        if name in ahead:
            before, defined = text, rf"^{name} = function\b"
        if not re.search(defined, before, re.MULTILINE):
            found.add(name)
    return found | {name for name in re.findall(r"\bkey\.\w+", text) if f"function {name}(" not in text}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_has_all_that_it_calls_before_it_calls_it(script: str) -> None:
    assert missing(script_text(script)) == set()


def test_what_is_missing_is_noticed() -> None:
    ahead = "local one, two -- later\nlocal function first() one() two() end\n"
    assert missing(ahead + "first() key.jobs()\n") == {"one", "two", "key.jobs"}
    assert missing(ahead + "one = function() end\ntwo = function() end\nfirst()\n") == set()
    assert missing("third()\nlocal function third() end\n") == {"third"}


def test_a_script_has_no_more_than_it_may_need() -> None:
    assert "conclude_run" in script_text("work")
    assert "conclude_run" not in script_text("admit")
