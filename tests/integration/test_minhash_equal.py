"""Sketches are those of the definition, and the same on GPU and CPU, at every border of words, pieces and shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shaders.catalog import KERNELS, MINHASH
from shaders.minhash import FACTORS, NOTHING, PERMUTATIONS, GpuMinHash
from shaders.runtime import Runtime
from tests.unit.test_shingles import TEXT
from workers.analysis import minhash
from workers.analysis.minhash import engine, sketch, sketches
from workers.analysis.shingles import shingles

KNOWN = [1674523633, 3057014177, 3846473849]
FIVE = "a b c d e"


def reference(hashes: list[int]) -> list[int]:
    products = [[int(factor) * (value % 2**32) % 2**32 for value in hashes] for factor in FACTORS]
    return [min([NOTHING, *row]) for row in products]


def same(texts: list[str], gpu: Runtime, *, left: list[int], ignore_numbers: bool = False) -> None:
    """The GPU gives what the CPU gives, and leaves only these texts to the host."""
    on_cpu = sketches(texts, ignore_numbers=ignore_numbers)
    assert np.array_equal(sketches(texts, ignore_numbers=ignore_numbers, adapter=gpu.name), on_cpu)
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    found, beyond = GpuMinHash(gpu).sketch(encoded, ignore_numbers=ignore_numbers)
    assert beyond == left
    own = [number for number in range(len(texts)) if number not in left]
    assert np.array_equal(found[own], on_cpu[own])


@settings(max_examples=40, deadline=None)
@given(hashes=st.lists(st.integers(0, 2**64 - 1), max_size=40))
@example(hashes=[])
@example(hashes=[0, 2**64 - 1, 2**32, 2**31])
def test_sketches_are_those_of_the_definition(hashes: list[int]) -> None:
    assert sketch(np.array(hashes, np.uint64)).tolist() == reference(hashes)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXT, max_size=5), ignore_numbers=st.booleans())
@example(texts=[], ignore_numbers=False)
@example(texts=[""], ignore_numbers=True)
@example(texts=["A-b c\u212a d 1st e", "", FIVE, "\0a\0b\0c\0d\0e\0"], ignore_numbers=True)
def test_any_text_has_one_sketch(texts: list[str], ignore_numbers: bool, gpu: Runtime) -> None:
    on_gpu = sketches(texts, ignore_numbers=ignore_numbers, adapter=gpu.name)
    assert np.array_equal(on_gpu, sketches(texts, ignore_numbers=ignore_numbers))


def test_words_of_every_length_and_what_is_left_to_the_host(gpu: Runtime) -> None:
    lengths = [f"a b c d {'xY3' * 30}"[: 8 + length] for length in range(1, 67)]
    same(lengths, gpu, left=[64, 65])
    # The rest of a shingle is looked for up to 2,048 bytes behind the piece of as many that it begins in.
    far = ["a" + " " * blanks + "b c d e" for blanks in (2038, 2047, 4087, 4088, 4089, 70_000)]
    same(far, gpu, left=[3, 4, 5])
    numbers = ["a " + "12 " * count + "b c d e" for count in (1, 100, 5_000)]
    same(numbers, gpu, left=[2], ignore_numbers=True)
    same(numbers, gpu, left=[])


def test_letters_beyond_ascii_that_are_small_within_it(gpu: Runtime) -> None:
    letters = "\u212a\u0130\u0131\u212b\u2190K"
    texts = [f"{before}{letter}elvin b c d e" for letter in letters for before in ("", "x" * 40)]
    # Across the border of pieces as well.
    texts += [". " * 1023 + before + "\u212a a b c d e" for before in ("", ".", "..", "...")]
    texts += [". " * 1023 + before + "ab\u0130 a b c d\u0130e \u0130f g" for before in ("", ".", "..", "...")]
    same(texts, gpu, left=[0, 1, 12, 13, 14, 15])


def test_factors_permute_and_never_change() -> None:
    assert (FACTORS % 2 == 1).all()
    assert len(set(FACTORS.tolist())) == PERMUTATIONS
    assert FACTORS[:3].tolist() == KNOWN, "kept sketches depend on them"


def test_sets_longer_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    sets = [random.integers(0, 2**64, length, np.uint64) for length in (1, minhash._CHUNK, minhash._CHUNK + 1, 20_000)]
    found = [sketch(part) for part in sets]
    monkeypatch.setattr(minhash, "_CHUNK", 1000)
    assert all(np.array_equal(sketch(part), row) for part, row in zip(sets, found, strict=True))


def test_pieces_join_without_a_seam(gpu: Runtime) -> None:
    """Words and shingles that lie across a border, and the densest text: a word every other byte."""
    dice = np.random.default_rng(7)
    words = [letter * length for letter, length in zip("abcdefgh" * 500, dice.integers(1, 20, 4000), strict=True)]
    long = " ".join(words)
    same([long[shift : shift + size] for shift in range(9) for size in (2047, 2048, 2049, 20_000)], gpu, left=[])
    same([" ".join("abcdefghij" * 2_000), ". " * 5_000 + FIVE], gpu, left=[])


@pytest.mark.parametrize(("size", "texts"), [(30, 3), (12, 100), (200, 1)])
def test_shards_join_without_a_seam(gpu: Runtime, size: int, texts: int) -> None:
    """As on a device whose bindings hold next to nothing; a text that does not fit is left."""
    several = [FIVE.encode(), b"", b"v w x y z", b"one two three four five six", b"", b"1 2 3 4 5", b"q" * 11]
    small = GpuMinHash(gpu)
    small._most, small._texts = size, texts
    found, left = small.sketch(several)
    assert left == [number for number, text in enumerate(several) if len(text) >= size]
    expected = sketches([text.decode() for text in several])
    own = [number for number in range(len(several)) if number not in left]
    assert np.array_equal(found[own], expected[own])


def test_more_texts_than_a_row_of_workgroups(gpu: Runtime) -> None:
    found = sketches([f"a b c d e{number % 7}" for number in range(70_000)], adapter=gpu.name)
    assert np.array_equal(found, np.resize(sketches([f"a b c d e{number}" for number in range(7)]), found.shape))


def test_contracts_have_the_same_sketches(gpu: Runtime, data: Path) -> None:
    paths = sorted((data / "near_duplicates" / "texts").glob("*.txt"))[::4]
    same([path.read_bytes().decode() for path in paths], gpu, left=[])


def test_one_text_has_the_sketch_of_its_shingles() -> None:
    assert np.array_equal(sketches([FIVE])[0], sketch(shingles(FIVE)))


def test_the_engine_is_named(gpu: Runtime) -> None:
    assert MINHASH in KERNELS
    assert engine(None) == "numpy"
    assert engine(gpu.name[:4]) == gpu.name
