"""The symbols that the GPU makes of texts are those that the host makes, at every border of characters and tiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.errors import Permanent
from shaders import corpus as corpus_module
from shaders.alphabet import BREAK, CODE_POINTS, Alphabet, literal_members, pattern_members
from shaders.corpus import Uploader
from shaders.runtime import Runtime
from tests.integration.test_scan_equal import BLANKS, CHARS, encoded

ALPHABET = Alphabet(
    [*map(literal_members, "abis漢\U0001f600"), *map(pattern_members, (r"\w", r"\d", "[é-ﬅ]", r"\u2011"))]
)


def same(texts: list[str], gpu: Runtime) -> None:
    uploader = Uploader(ALPHABET, gpu)
    upload = uploader.begin(encoded(texts))
    corpus = uploader.finish(upload, size=1000)
    ends = [shard.end for shard in corpus.shards]
    assert [shard.begin for shard in corpus.shards] == [0, *ends][: len(ends)]
    symbols = gpu.read(upload.symbols, upload.symbols.size // 4).view(np.uint8)
    end = 0
    for start, text in zip(corpus.starts.tolist(), texts, strict=True):
        assert (symbols[end:start] == BREAK).all()
        end = start + len(expected := ALPHABET.encode(text).symbols)
        assert np.array_equal(symbols[start:end], expected)
    assert len(symbols) > end + 1
    assert (symbols[end:] == BREAK).all()
    if texts:
        assert end < ends[-1] < len(symbols)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(alphabet=CHARS + BLANKS, max_size=40), max_size=4))
@example(texts=[])
@example(texts=[""])
@example(texts=["", " ", "", "  ", "\u3000 \u2028"])
@example(texts=["\0a\0", "a\0 "])
def test_any_texts(texts: list[str], gpu: Runtime) -> None:
    same(texts, gpu)


def test_every_character(gpu: Runtime) -> None:
    same(["".join(map(chr, range(CODE_POINTS)))], gpu)


def test_characters_and_blanks_lie_across_borders(gpu: Runtime) -> None:
    piece = "a \u3000 é \t漢\u2028\U0001f600  b"
    same([" " * shift + piece * 400 for shift in range(17)], gpu)
    same([" " * 10_000, "a" + " " * 10_000 + "b", "x" * 4095, "y" * 4096, "\u00a0" * 4096], gpu)
    same(["z" * (4096 * 3 - 1)], gpu)


@pytest.mark.parametrize("size", [1, 10, 50])
def test_parts_join_without_a_seam(gpu: Runtime, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """As where texts are many: each part is filled up."""
    monkeypatch.setattr(corpus_module, "_PART", size)
    same(["", "a b", "", "x" * 70, "ab is 漢", "i", "", "  s", " "] * 3, gpu)


def test_more_tiles_than_threads_add_up(gpu: Runtime) -> None:
    same(["some  words " * 200_000, "é" * 70_000], gpu)


def test_texts_beyond_a_binding_are_refused(gpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "binding_bytes", 2 << 20)
    with pytest.raises(Permanent, match="2097152") as caught:
        Uploader(ALPHABET, gpu).begin([b"x" * (2 << 20)])
    assert caught.value.code == "gpu_limit"
