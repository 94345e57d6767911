"""The scan on texts that break scanners, and the parts that its engines share."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest

from services.errors import CasemillError, InvalidRequest, Permanent, Transient
from services.findings import Finding
from services.playbooks import default_playbook, fold, load_playbook
from shaders import automaton, runtime
from shaders.alphabet import CODE_POINTS, literal_members, pattern_members
from shaders.automaton import build_automaton
from shaders.catalog import KERNELS
from shaders.factors import ScanPlan
from workers.analysis.ahocorasick_engine import AhoCorasickEngine
from workers.analysis.scan import CpuEngine, scan

PLAYBOOK = load_playbook(r"""
name: small
categories:
  - {id: law, title: Law, weight: .5, literals: [governing law, '§ 7', naïve, {text: indemn, whole_words: false}]}
  - id: mail
    title: Mail
    weight: .5
    patterns: ['\b[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,5}[a-z]{2,24}\b', '\b\d{3}-\d{2}-\d{4}\b']
""")
EVERYTHING = "".join(map(chr, range(CODE_POINTS)))


def spans(text: str) -> list[tuple[int, int]]:
    return [(found.start, found.end) for found in scan(text, PLAYBOOK, device="cpu").findings]


def test_findings_say_where_and_by_which_term() -> None:
    text = "\U0001f600 Governing \u00a0\r\n LAW “§\u20037” – NAÏVE unindemnified"
    result = scan(text, PLAYBOOK)
    assert result.findings == (
        Finding("law", 2, 19, "governing law"),
        Finding("law", 21, 24, "§ 7"),
        Finding("law", 28, 33, "naïve"),
        Finding("law", 36, 42, "indemn"),
    )
    assert [fold(text[found.start : found.end]) for found in result.findings][2] == "naïve"
    assert result.engine == CpuEngine.name
    assert result.seconds > 0


@pytest.mark.parametrize(
    "text", ["", "x", "\x00", "§", " ", "\n" * 5000, " \u00a0\u2028" * 3000, "\ud800", "\udfff" * 9]
)
def test_texts_without_findings(text: str) -> None:
    assert spans(text) == []


def test_words_end_where_words_end() -> None:
    assert spans("misgoverning law, governing laws, governing_law, governing law_, governing lawé") == []
    assert spans("(governing law) §governing law§ “governing law”") == [(1, 14), (17, 30), (33, 46)]


def test_five_megabytes_in_one_line() -> None:
    filler = "lorem ipsum " * 220_000
    text = filler + "governing law " + filler + "123-45-6789"
    assert spans(text) == [(len(filler), len(filler) + 13), (len(text) - 11, len(text))]


def test_blanks_by_the_megabyte_between_two_words() -> None:
    assert spans("governing" + " \n" * 1_000_000 + "law") == [(0, 2_000_012)]


@pytest.mark.parametrize("filler", ["a", "1", "@", "a@", "a.", "1-", "a" * 64 + "@", "governing ", "123-45-"])
def test_repeats_that_stall_backtracking(filler: str) -> None:
    text = filler * (1_000_000 // len(filler))
    expected = [match.span() for match in re.finditer(PLAYBOOK.categories[1].patterns[1].source, text)]
    assert spans(text) == expected


def test_right_to_left_and_every_plane() -> None:
    hebrew = "הסכם \u202egoverning law\u202c של"
    assert spans(hebrew) == [(6, 19)]
    start = EVERYTHING.index("§")
    assert spans(EVERYTHING + " governing law" + EVERYTHING) == [(CODE_POINTS + 1, CODE_POINTS + 14)]
    assert spans(EVERYTHING.replace("§", "§ 7 ")) == [(start, start + 3)]


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        scan("x", PLAYBOOK, device="tpu")  # pyright: ignore[reportArgumentType]
    assert caught.value.code == "device_unknown"


def test_threads_share_the_engine() -> None:
    text = "governing law 123-45-6789 " * 2000
    expected = scan(text, PLAYBOOK).findings
    results: list[tuple[Finding, ...]] = []
    threads = [threading.Thread(target=lambda: results.append(scan(text, PLAYBOOK).findings)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 8


@pytest.mark.parametrize(
    "source", ["k", "K", "s", "i", "İ", "ß", "σ", "ǆ", "\u0345", "-", r"\.", "[a-z]", r"\w", ".", "[^k]"]
)
def test_members_of_a_set_are_those_of_re(source: str) -> None:
    members = {code for start, end in pattern_members(source) for code in range(start, end)}
    assert members == {ord(char) for char in re.findall(source, EVERYTHING, re.IGNORECASE)}


def test_members_of_a_letter_are_all_that_fold_to_it() -> None:
    for letter in "aikßσé§":
        members = {code for start, end in literal_members(letter) for code in range(start, end)}
        assert members == {code for code, char in enumerate(fold(EVERYTHING)) if char == letter}


def test_automaton_walked_by_hand_gives_the_engines_hits() -> None:
    plan = ScanPlan(PLAYBOOK)
    table = build_automaton(plan)
    text = "governing governing law indemnify §  7 a@b.de x.y@z.org 123-45-6789 12-34 "
    stream = plan.alphabet.encode(text)
    state, walked = 0, set[tuple[int, int]]()
    for place, symbol in enumerate(stream.symbols.tolist()):
        cell = int(table.table[state + symbol])
        state = cell & 0x7FFFFFFF
        number = state // table.row
        ends = table.ends[table.first[number] : table.first[number + 1]].tolist()
        assert bool(cell >> 31) == bool(ends)
        walked |= {(end, place + 1 - int(table.lengths[end])) for end in ends}
    for engine in (AhoCorasickEngine(plan), CpuEngine(plan)):
        hits = engine.scan(stream)
        assert set(zip(hits.factors.tolist(), hits.places.tolist(), strict=True)) == walked
        assert len(hits.factors) == len(walked)


def test_default_playbook_makes_a_small_table() -> None:
    table = build_automaton(ScanPlan(default_playbook()))
    assert table.table.nbytes < 8 << 20
    assert table.table.dtype == np.uint32


def test_a_table_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automaton, "MAX_CELLS", 1000)
    with pytest.raises(Permanent) as caught:
        build_automaton(ScanPlan(PLAYBOOK))
    assert caught.value.code == "playbook_too_large"


def test_catalog_agrees_with_the_shaders() -> None:
    for kernel in KERNELS:
        source = kernel.source()
        bindings = {
            int(number): name for number, name in re.findall(r"@binding\((\d+)\) var\S* (?:\w+> )?(\w+):", source)
        }
        bodies = dict(re.findall(r"fn (\w+)\(.*?\{(.*?)\n\}", source, re.DOTALL))
        assert re.findall(r"@workgroup_size\((\d+)\)", source) == [str(kernel.workgroup)] * len(kernel.entries)
        for entry, used in kernel.entries.items():
            reached = bodies[entry] + (bodies["symbol"] if "symbol(" in bodies[entry] else "")
            assert {number for number, name in bindings.items() if re.search(rf"\b{name}\b", reached)} == set(used)
        assert not re.search(r"^\s*(enable|requires)\b", source, re.MULTILINE)


@pytest.mark.parametrize(
    ("message", "kind", "code"),
    [
        ("Parent device is lost", Transient, "gpu_lost"),
        ("Not enough memory left: out of memory", Transient, "gpu_memory"),
        ("Validation Error: binding 3", Permanent, "gpu_refused"),
    ],
)
def test_errors_of_the_gpu_say_whether_trying_again_helps(message: str, kind: type[CasemillError], code: str) -> None:
    wgpu = pytest.importorskip("wgpu")
    with pytest.raises(kind, match="GPU x") as caught, runtime._reported("x"):
        raise wgpu.GPUError(message)
    assert caught.value.code == code
