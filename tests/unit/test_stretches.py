"""Long work on one text shows that it moves, can be stopped, and finds what it found in one go."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.playbooks import default_playbook
from services.texts import DocumentText, Page, Paragraph
from workers.analysis import stretches
from workers.analysis.ahocorasick_engine import AhoCorasickEngine
from workers.analysis.clause_heads.logits import lexical_logits
from workers.analysis.clause_heads.score import score_document
from workers.analysis.clause_heads.weights import shipped
from workers.analysis.prepared import plan_of
from workers.analysis.scan import scan
from workers.analysis.sensitive import defined, identifiers, network, phones, privilege, structured, times
from workers.analysis.sensitive.personal import find_personal_data
from workers.analysis.sensitive.privilege import find_privilege
from workers.analysis.sensitive.tokens import tokenize
from workers.analysis.stretches import REACH, STRETCH, matches
from workers.execution import Execution, Stopped
from workers.tasks.clauses import by_terms, find_clauses
from workers.tasks.compare import differences
from workers.tasks.scan import scan_document
from workers.tasks.sensitive import find_sensitive

LINE = (
    "From: counsel@example-law.com\nThe Supplier pays Peter Lindqvist $5 by May 4, 2011; tel. (212) 736-5000. "
    "Liability is unlimited and this Agreement may not be assigned without prior written consent.\n"
)
LONG = LINE * (3 * STRETCH // len(LINE) + 1)


class Count:
    """Counts the calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1


def document(text: str) -> DocumentText:
    return DocumentText("txt", text, (Page(1, 0, len(text)),), ())


@pytest.mark.parametrize(
    "pattern",
    [r"a{1,4}", r"(?<!\w)a{1,3}b?(?!c)", r"^[ab]{1,5}$", r"\b[abc]{2}\b", r"(?<=a)b(?=.{0,3}c)", r"a(?!.{0,6}b)"],
)
@given(st.text(st.sampled_from("aaabc \n"), max_size=80))
def test_matches_are_those_of_one_search(pattern: str, text: str) -> None:
    compiled = re.compile(pattern, re.MULTILINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stretches, "STRETCH", 5)
        patch.setattr(stretches, "REACH", 9)
        found = [match.span() for match in matches(compiled, text, lambda: None)]
    assert found == [match.span() for match in compiled.finditer(text)]


@pytest.mark.parametrize("module", [defined, identifiers, network, phones, privilege, structured, times])
def test_what_is_matched_by_stretches_is_bounded(module: Any) -> None:
    parser: Any = importlib.import_module("re._parser")
    names: set[str] = set(re.findall(r"matches\((_\w+)", inspect.getsource(module)))
    names |= {"_DEFINED", "_MEANS"} if module is defined else set()
    assert names
    for name in names:
        pattern: re.Pattern[str] = getattr(module, name)
        least, most = parser.parse(pattern.pattern, pattern.flags).getwidth()
        assert 0 < least <= most <= REACH // 2  # the rest is for what is looked at behind a match


def test_a_long_text_is_found_the_same_in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    text, playbook = LINE * 40, default_playbook()
    expected = find_personal_data(text), find_privilege(text), scan(text, playbook, device="cpu").findings
    monkeypatch.setattr(stretches, "STRETCH", 97)
    if engine := sys.modules.get("workers.analysis.hyperscan_engine"):  # has no wheel for Windows
        monkeypatch.setattr(engine, "STRETCH", 97)
    assert expected == (find_personal_data(text), find_privilege(text), scan(text, playbook, device="cpu").findings)
    assert all(expected)


PLAN = plan_of(default_playbook())
ENDLESS: dict[str, Callable[[Count], object]] = {
    "matches": lambda check: list(matches(re.compile("z"), LONG.replace("z", ""), check)),
    "hyperscan": lambda check: scan("nothing " * (len(LONG) // 8), default_playbook(), device="cpu", check=check),
    "aho-corasick": lambda check: AhoCorasickEngine(PLAN).scan(PLAN.alphabet.encode(LONG), check),
    "tokens": lambda check: tokenize(LONG, [], check),
    "heads": lambda check: lexical_logits(shipped(), [LINE] * (len(LONG) // STRETCH), check),
}


@pytest.mark.parametrize("work", ENDLESS)
def test_work_without_end_asks_without_end(work: str) -> None:
    count = Count()
    ENDLESS[work](count)
    assert count.calls >= len(LONG) // STRETCH


FINDERS = {
    *("emails", "domains", "ibans", "driver_licences", "cards", "social_security_numbers", "ip_addresses", "dates"),
    *("phone_numbers", "ages", "postal_codes", "defined_terms"),
}
PARTS: dict[str, tuple[set[str], Callable[[Callable[[], None]], object]]] = {
    "personal": (FINDERS | {"tokenize", "_scores", "tag"}, lambda check: find_personal_data(LINE, check=check)),
    "privilege": ({"_law_firms", "_in_words", "scan"}, lambda check: find_privilege(LINE, check)),
    "scan": (
        {"_literals", "_patterns"},
        lambda check: scan(LINE, default_playbook(), device="cpu", check=check),
    ),
    "heads": (
        {"lexical_logits", "find_spans"},
        lambda check: score_document(
            shipped(), [LINE], np.zeros((1, 384), np.float32), np.zeros((1, 41), np.float32), None, check
        ),
    ),
    "terms": (
        {"by_terms"},
        lambda check: by_terms(
            default_playbook(),
            document(LINE),
            scan(LINE, default_playbook()).findings,
            None,
            {"cap_on_liability"},
            check,
        ),
    ),
}


@pytest.mark.parametrize("work", PARTS)
def test_every_part_of_the_work_asks(work: str) -> None:
    asking: set[str] = set()

    def check() -> None:
        frame = inspect.currentframe()
        while frame := frame and frame.f_back:
            asking.add(frame.f_code.co_name)

    parts, run = PARTS[work]
    run(check)
    assert parts <= asking


def test_the_words_of_a_comparison_are_read_clause_by_clause(monkeypatch: pytest.MonkeyPatch) -> None:
    count, asked = Count(), list[int]()
    monkeypatch.setattr(sys.modules[differences.__module__], "align", lambda *_: asked.append(count.calls) or [])
    paragraphs = tuple(Paragraph(8 * number, 8 * number + 7) for number in range(50))
    read = DocumentText("txt", "one two\n" * 50, (Page(1, 0, 400),), paragraphs)
    differences(read, read, count)
    assert asked == [100]


@pytest.mark.parametrize("step", [find_sensitive, scan_document, find_clauses])
def test_a_step_stops_within_a_text(step: Callable[[Any, Execution], object]) -> None:
    """Told to stop when it has its text, a step ends there and then: the work on the text asks too."""
    playbook = default_playbook()
    findings = scan(LINE, playbook, device="cpu").findings
    execution = Execution(cast("Any", SimpleNamespace(outputs={})), cast("Any", None), lambda: False)

    def text(claim: object) -> DocumentText:
        execution.stop("cancel")
        return document(LINE)

    toolbox = SimpleNamespace(
        text=text,
        playbook=lambda claim: playbook,
        step_output=lambda claim, name: json.dumps({"findings": [found.to_json() for found in findings]}).encode(),
        settings=SimpleNamespace(adapter=None),
        derive=lambda claim, kind, version, run: run(),
    )
    with pytest.raises(Stopped):
        step(toolbox, execution)
