"""The scan on texts that break scanners, and the parts that its engines share."""

from __future__ import annotations

import math
import re
import threading

import numpy as np
import pytest

from services.errors import CasemillError, InvalidRequest, Permanent, Transient
from services.findings import Finding
from services.playbooks import default_playbook, fold, load_playbook
from shaders import automaton, runtime
from shaders.alphabet import CODE_POINTS, Alphabet, Ranges, pattern_members
from shaders.automaton import build_automata
from shaders.catalog import KERNELS, MAX_TURNS
from shaders.factors import ScanPlan
from shaders.scan import chunk_for
from workers.analysis.ahocorasick_engine import AhoCorasickEngine
from workers.analysis.prepared import CpuEngine, Kept
from workers.analysis.scan import scan

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


def test_a_set_that_stands_often_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A playbook has room for 20,000 sets, each a millisecond or more to read."""
    read: list[Ranges] = []

    def symbols_of(alphabet: Alphabet, ranges: Ranges) -> frozenset[int]:
        read.append(ranges)
        return counted(alphabet, ranges)

    counted = Alphabet.symbols_of
    monkeypatch.setattr(Alphabet, "symbols_of", symbols_of)
    patterns = "".join(f"\n      - '{'[qz]' * 20}{number}'" for number in range(9))
    ScanPlan(load_playbook(f"name: x\ncategories:\n  - id: c\n    title: C\n    weight: 1\n    patterns:{patterns}\n"))
    assert read.count(pattern_members("[qz]")) == 1


def walked(plan: ScanPlan, symbols: list[int]) -> set[tuple[int, int]]:
    """Factors and where they begin, by the tables and nothing else."""
    found = set[tuple[int, int]]()
    for table in build_automata(plan):
        state = 0
        for place, symbol in enumerate(symbols):
            cell = int(table.table[state + symbol])
            state = cell & 0x7FFFFFFF
            number = state // table.row
            ends = table.ends[table.first[number] : table.first[number + 1]].tolist()
            assert bool(cell >> 31) == bool(ends)
            hits = {(end, place + 1 - int(plan.lengths[end])) for end in ends}
            assert len(hits) == len(ends)
            assert not hits & found
            found |= hits
    return found


@pytest.mark.parametrize("cells", [automaton.MAX_CELLS, 1200, 600])
def test_automata_walked_by_hand_give_the_engines_hits(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automaton, "MAX_CELLS", cells)
    plan = ScanPlan(PLAYBOOK)
    tables = build_automata(plan)
    assert all(len(table.table) <= cells for table in tables)
    assert len(tables) >= {1200: 2, 600: 3}.get(cells, 1)
    stream = plan.alphabet.encode("governing governing law indemnify §  7 a@b.de x.y@z.org 123-45-6789 12-34 ")
    expected = walked(plan, stream.symbols.tolist())
    assert len(expected) == 6
    for engine in (AhoCorasickEngine(plan), CpuEngine(plan)):
        hits = engine.scan(stream)
        assert set(zip(hits.factors.tolist(), hits.places.tolist(), strict=True)) == expected
        assert len(hits.factors) == len(expected)


def test_words_within_words_end_together() -> None:
    words = ["a", "ab", "b", "abab", "bab", "babb", "ba", "a b"]
    literals = ", ".join(f"{{text: {word}, whole_words: false}}" for word in words)
    head = f"name: x\ncategories:\n  - {{id: c, title: C, weight: 1, literals: [{literals}]}}\n"
    playbook = load_playbook(head + "  - {id: d, title: D, weight: 1, literals: [ab, abab]}")
    plan, text = ScanPlan(playbook), "ababbabab a babba b"
    expected = {
        (number, at)
        for number, term in enumerate(plan.terms)
        for at in range(len(text))
        if text.startswith(getattr(term.term, "text", ""), at)
    }
    assert walked(plan, plan.alphabet.encode(text).symbols.tolist()) == expected


def test_default_playbook_makes_small_tables() -> None:
    tables = build_automata(ScanPlan(default_playbook()))
    assert sum(table.table.nbytes for table in tables) < 8 << 20
    assert all(table.table.dtype == np.uint32 for table in tables)


def test_a_pattern_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automaton, "MAX_CELLS", 100)
    plan = ScanPlan(PLAYBOOK)
    with pytest.raises(Permanent) as caught:
        build_automata(plan, [number for number, factor in enumerate(plan.factors) if not factor.is_word])
    assert caught.value.code == "playbook_too_large"


@pytest.mark.parametrize(("overlap", "turns"), [(0, 1), (199, 1), (199, 127), (11, 1)])
def test_a_thread_stays_within_the_turns_of_lavapipe(overlap: int, turns: int) -> None:
    chunk = chunk_for(overlap, turns)
    assert chunk >= 1
    assert (chunk + overlap) * turns < MAX_TURNS


def test_more_turns_than_a_thread_has_are_an_error() -> None:
    for overlap, turns in ((199, 300), (257, 1)):
        with pytest.raises(AssertionError, match="cannot walk"):
            chunk_for(overlap, turns)


def test_a_playbook_that_is_prepared_keeps_nobody_else_waiting() -> None:
    kept, entered, go_on = Kept[str](), threading.Event(), threading.Event()

    def slow() -> str:
        entered.set()
        assert go_on.wait(10)
        return "large"

    made: list[str] = []
    both = [threading.Thread(target=lambda: made.append(kept.get(("large",), 100_000, slow))) for _ in range(2)]
    for thread in both:
        thread.start()
    assert entered.wait(10)
    assert kept.get(("small",), 10, lambda: "small") == "small"
    go_on.set()
    for thread in both:
        thread.join()
    assert made == ["large"] * 2


def test_what_is_kept_is_bounded_by_terms_and_made_again() -> None:
    kept, made = Kept[int](), list[int]()

    def ask(key: int, terms: int) -> int:
        return kept.get((str(key),), terms, lambda: made.append(key) or key)

    for key in (1, 2, 1, 3):
        ask(key, 150_000)  # 2 goes for 3
    assert [ask(1, 150_000), ask(3, 150_000), ask(2, 150_000)] == [1, 3, 2]
    assert made == [1, 2, 3, 2]
    assert ask(4, 10_000_000) == 4


def test_what_could_not_be_made_is_tried_again() -> None:
    kept = Kept[str]()
    with pytest.raises(ZeroDivisionError):
        kept.get(("x",), 1, lambda: str(1 // 0))
    assert kept.get(("x",), 1, lambda: "made") == "made"


def test_catalog_agrees_with_the_shaders() -> None:
    for kernel in KERNELS:
        source = kernel.source()
        bindings = {
            int(number): name for number, name in re.findall(r"@binding\((\d+)\) var\S* (?:\w+> )?(\w+):", source)
        }
        bodies = dict(re.findall(r"fn (\w+)\(.*?\{(.*?)\n\}", source, re.DOTALL))
        assert re.findall(r"@workgroup_size\((\d+)\)", source) == [str(kernel.workgroup)] * len(kernel.entries)
        for entry, used in kernel.entries.items():
            reached = bodies[entry]
            for _ in bodies:  # what is called, and what that calls
                reached += "".join(
                    body for name, body in bodies.items() if f"{name}(" in reached and body not in reached
                )
            assert {number for number, name in bindings.items() if re.search(rf"\b{name}\b", reached)} == set(used)
        assert not re.search(r"^\s*(enable|requires)\b", source, re.MULTILINE)


def workgroup_bytes(source: str) -> int:
    """Memory that the variables of a workgroup take."""
    numbers = {name: int(value) for name, value in re.findall(r"const (\w+): u32 = (\d+)u;", source)}
    declared = re.findall(r"var<workgroup> \w+: array<(.+), ([\w *]+)>;", source)
    single = re.findall(r"var<workgroup> \w+: (?:atomic<u32>|u32);", source)
    assert len(declared) + len(single) == source.count("var<workgroup>")
    sizes = {"u32": 4, "f32": 4, "vec2<u32>": 8, "vec2<f32>": 8, "vec4<f32>": 16}
    return 4 * len(single) + sum(
        sizes[kind] * math.prod(numbers.get(factor) or int(factor.rstrip("u")) for factor in length.split(" * "))
        for kind, length in declared
    )


def test_workgroups_take_no_more_memory_than_webgpu_promises() -> None:
    """wgpu-native lets more pass, and other adapters then fail."""
    taken = {kernel.file: workgroup_bytes(kernel.source()) for kernel in KERNELS}
    assert taken["minhash.wgsl"] == 8 * 1028 + 4 * 1024 + 4 * 128 + 4
    assert max(taken.values()) <= 16 << 10


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
