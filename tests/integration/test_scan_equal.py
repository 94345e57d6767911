"""Every engine finds exactly what pyahocorasick and `re` find, on invented and on real text."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ahocorasick
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.errors import Permanent
from services.patterns import PatternError, parse_pattern
from services.playbooks import Category, Literal, Playbook, canonical, default_playbook
from shaders.factors import ScanPlan
from shaders.runtime import Runtime
from shaders.scan import GpuScanner
from workers.analysis.ahocorasick_engine import AhoCorasickEngine
from workers.analysis.confirm import confirm
from workers.analysis.prepared import CpuEngine
from workers.analysis.scan import scan

Spans = set[tuple[str, int, int, str]]
ENGINES = ["hyperscan", "pyahocorasick", "gpu"]


def one_by_one(text: str) -> str:
    """Lower case of each character alone; only the dotted capital I would become two."""
    return "".join("i" if char == "İ" else char.lower() for char in text)


def reference(text: str, playbook: Playbook) -> Spans:
    """The definition, written anew: pyahocorasick over lowered text without repeated blanks, and `re` over the text."""
    lowered: list[str] = []
    origin: list[int] = []
    for part in re.finditer(r"\s+|\S+", text):
        if part[0].isspace():
            lowered.append(" ")
            origin.append(part.start())
        else:
            lowered.append(one_by_one(part[0]))
            origin += range(*part.span())
    squeezed = "".join(lowered)
    found: Spans = set()
    for category in playbook.categories:
        automaton: Any = ahocorasick.Automaton()
        for literal in category.literals:
            words = re.sub(r"\s+", " ", "".join(c.lower() if len(c.lower()) == 1 else "i" for c in literal.text)).strip(
                " "
            )
            automaton.add_word(words, (words, literal))
        if category.literals:
            automaton.make_automaton()
        for last, (words, literal) in automaton.iter(squeezed) if category.literals else ():
            first = last + 1 - len(words)
            if literal.whole_words and re.match(r"\w", words) and re.match(r"\w", squeezed[first - 1 : first]):
                continue
            if literal.whole_words and re.match(r"\w", words[-1]) and re.match(r"\w", squeezed[last + 1 : last + 2]):
                continue
            found.add((category.id, origin[first], origin[last] + 1, literal.text))
        for pattern in category.patterns:
            for match in re.finditer(pattern.source, text, re.IGNORECASE):
                found.add((category.id, *match.span(), pattern.source))
    return found


def encoded(texts: list[str]) -> list[bytes]:
    return [text.encode("utf-8", "surrogatepass") for text in texts]


def found_by(engine: str, texts: list[str], playbook: Playbook, gpu: Callable[[], Runtime]) -> list[Spans]:
    plan = ScanPlan(playbook)
    streams = [plan.alphabet.encode(text) for text in texts]
    if engine == "gpu":
        hits = GpuScanner(plan, gpu()).scan(encoded(texts))
    elif engine == "hyperscan":
        module = pytest.importorskip("workers.analysis.hyperscan_engine")
        prepared = module.HyperscanEngine(plan)
        hits = [prepared.scan(stream) for stream in streams]
    else:
        prepared = AhoCorasickEngine(plan)
        hits = [prepared.scan(stream) for stream in streams]
    results: list[Spans] = []
    for text, stream, hit in zip(texts, streams, hits, strict=True):
        findings = confirm(text, stream, hit, plan, playbook)
        spans = [(item.category, item.start, item.end, item.term) for item in findings]
        assert len(set(spans)) == len(spans)
        assert [(start, end) for _, start, end, _ in spans] == sorted((start, end) for _, start, end, _ in spans)
        results.append(set(spans))
    return results


# Letters whose case folding is odd (İ ı ſ ß K Σ ς ﬅ), word and other characters, all planes, blanks of all kinds.
CHARS = "aAbBiIsSkK1٣_-.,§'’“–\u2011İıſßẞ\u212aΣσςﬅéÉЖж漢\U0001f600\U00010428\U000e0041\ud800\u0301\u200bא"
BLANKS = " \n\t\r\u00a0\u2028\u3000\x1c"
TEXT = st.text(alphabet=CHARS + BLANKS, max_size=40) | st.text(alphabet="aAbiKſ1 -.\n", max_size=60)
SETS = ["a", "b", "i", "s", "k", "K", "1", " ", "-", ".", "§", "é", "Σ", "ß", "\u2011", r"\.", r"\d", r"\w", r"\s",
        r"\n", "[ab]", "[^a]", "[a-s]", "[A-K ]", r"[\w.-]", r"[^\s1]", r"[ \t]", r"[\W_]", r"\S", r"\D"]  # fmt: skip
ITEM = st.recursive(
    st.sampled_from([*SETS, r"\b"]),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: "(?:" + "|".join(parts) + ")"),
        st.tuples(inner, st.sampled_from(["?", "{2}", "{1,3}", "{0,2}", "{3,20}"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=7,
)


def taken(source: str) -> bool:
    try:
        parse_pattern(source)
    except PatternError:
        return False
    return True


PATTERNS = st.lists(ITEM.filter(taken), max_size=3, unique=True)
LITERALS = st.lists(
    st.builds(Literal, st.text(alphabet="abAB1 .-§ißİKΣ\n\U0001f600", min_size=1, max_size=5), st.booleans()),
    max_size=4,
    unique_by=lambda literal: canonical(literal.text),
)


@st.composite
def playbooks(draw: st.DrawFn) -> Playbook:
    literals = tuple(literal for literal in draw(LITERALS) if literal.text.strip())
    written = {literal.text for literal in literals}
    patterns = tuple(parse_pattern(source) for source in draw(PATTERNS) if source not in written)
    if not literals and not patterns:
        literals = (Literal("a"),)
    return Playbook("p", "p", (Category("c", "C", "", "clause", 1.0, False, literals, patterns),))


def book(*patterns: str, literals: tuple[str, ...] = ()) -> Playbook:
    """A playbook of one category."""
    terms = tuple(Literal(text) for text in literals)
    return Playbook(
        "p", "p", (Category("c", "C", "", "clause", 1.0, False, terms, tuple(map(parse_pattern, patterns))),)
    )


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(texts=st.lists(TEXT, min_size=1, max_size=3), playbook=playbooks())
@example(texts=["aa  aaa", "a", "a"], playbook=book("aa", literals=("a a", "aa a")))
@example(texts=["aab1 aaaaaaaaa- a  1 a 1"], playbook=book("[ab]{1,3}1", r"\w{3,20}-", r"a\s 1"))
@example(texts=["SKı İ\u212aſ", ""], playbook=book("[a-s]k", "sk", "i", literals=("sk", "i k")))
@example(
    texts=["a \n\u00a0 1", " a", "1 "], playbook=book(r"a\s{2,4}1", r"\s{1,3}1", r"a[ -]{1,4}\W?", literals=("a 1",))
)
def test_engines_find_what_the_libraries_find(
    engine: str, texts: list[str], playbook: Playbook, request: pytest.FixtureRequest
) -> None:
    found = found_by(engine, texts, playbook, lambda: request.getfixturevalue("gpu"))
    assert found == [reference(text, playbook) for text in texts]


@pytest.mark.parametrize("engine", ENGINES)
def test_more_letters_than_symbols(engine: str, request: pytest.FixtureRequest) -> None:
    """Terms of hundreds of different characters share symbols; nothing is missed and nothing invented."""
    ideographs = "".join(map(chr, range(0x4E00, 0x4E00 + 700)))
    literals = tuple(ideographs[at : at + 2] for at in range(0, 700, 2))
    playbook = book("漢{2}[一-丟]", literals=literals)
    text = ideographs + " ".join(literals) + ideographs[::-1] + "漢漢一"
    found = found_by(engine, [text], playbook, lambda: request.getfixturevalue("gpu"))
    assert found == [reference(text, playbook)]
    # All pairs but the first and the last, which touch other letters, and the pattern.
    assert len(found[0]) == 349


def contracts(data: Path) -> list[str]:
    return [path.read_bytes().decode() for path in sorted((data / "cuad" / "texts").glob("*.txt"))]


@pytest.mark.slow
def test_all_contracts_on_the_cpu(data: Path) -> None:
    playbook, total = default_playbook(), 0
    for text in contracts(data):
        result = scan(text, playbook, device="cpu")
        assert {(item.category, item.start, item.end, item.term) for item in result.findings} == reference(
            text, playbook
        )
        total += len(result.findings)
    assert total > 10_000


@pytest.mark.parametrize("engine", ["pyahocorasick", "gpu"])
def test_contracts_on_the_other_engines(engine: str, data: Path, request: pytest.FixtureRequest) -> None:
    """All of them on the GPU; every tenth by the pure engine, which is slower by far."""
    texts, playbook = contracts(data)[:: 1 if engine == "gpu" else 10], default_playbook()
    found = found_by(engine, texts, playbook, lambda: request.getfixturevalue("gpu"))
    for text, spans in zip(texts, found, strict=True):
        expected = scan(text, playbook, device="cpu").findings
        assert spans == {(item.category, item.start, item.end, item.term) for item in expected}


def test_german_and_english_terms_of_service(data: Path) -> None:
    playbook = book(
        r"\b§ ?\d{1,3}",
        r"\w{2,20}ung\b",
        r"„[^“]{1,80}“",
        literals=("Haftung für", "größe", "schließen", "your account"),
    )
    for path in sorted((data / "unfair_terms" / "texts").glob("*/*.txt"))[::5]:
        text = path.read_bytes().decode()
        result = scan(text, playbook, device="cpu")
        assert {(item.category, item.start, item.end, item.term) for item in result.findings} == reference(
            text, playbook
        )


def test_shards_join_without_a_seam(gpu: Runtime) -> None:
    """Terms across the border of two shards are found once, whatever the border."""
    playbook = book(r"\d{3}-\d{2}", literals=("governing law", "law"))
    plan = ScanPlan(playbook)
    text = "the governing  law 123-45 " * 40
    scanner = GpuScanner(plan, gpu)
    stream = plan.alphabet.encode(text)
    expected = reference(text, playbook)
    for size in (16, 20, 37, 100):
        corpus = scanner.uploader.corpus(encoded([text]), size)
        assert len(corpus.shards) > 5
        findings = confirm(text, stream, scanner.finish(scanner.begin(corpus))[0], plan, playbook)
        assert len(findings) == len(expected)
        assert {(item.category, item.start, item.end, item.term) for item in findings} == expected


def test_scan_on_the_gpu_names_the_adapter(gpu: Runtime) -> None:
    playbook = book(literals=("law",))
    on_gpu, on_cpu = (scan("the law", playbook, device=device) for device in ("gpu", "cpu"))
    assert on_gpu.findings == on_cpu.findings
    assert on_gpu.engine == gpu.name
    assert on_cpu.engine == CpuEngine.name


def test_an_unknown_adapter_is_refused_with_the_known_names(gpu: Runtime) -> None:
    with pytest.raises(Permanent, match=re.escape(gpu.name)) as caught:
        scan("x", default_playbook(), device="gpu", adapter="no such adapter")
    assert caught.value.code == "gpu_not_found"
