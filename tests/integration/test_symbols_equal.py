"""The symbols that the GPU makes of texts are those that the host makes, at every border of characters and tiles."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.errors import DeviceLost, Permanent
from shaders import staging
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


@pytest.mark.parametrize("size", [4, 12, 76])
def test_texts_go_on_in_the_next_buffer(gpu: Runtime, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """As where texts are larger than what is uploaded at a time, or end where it does."""
    monkeypatch.setattr(staging, "CHUNK", size)
    monkeypatch.setattr(gpu, "_staging", staging.Staging(gpu._device, gpu._answer))
    texts = ["", "a b", "", "x" * 70, "ab is 漢", "i", "", "  s", " ", "abc", "y" * 75] * 3
    same(texts, gpu)
    same(texts[::-1], gpu)


def test_texts_of_several_threads_do_not_mix(gpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "CHUNK", 64)
    monkeypatch.setattr(gpu, "_staging", staging.Staging(gpu._device, gpu._answer))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda letter: same([letter * length for length in range(90)], gpu), "abis"))


def test_what_fails_halfway_leaves_nothing_behind(gpu: Runtime) -> None:
    def texts() -> Iterator[bytes]:
        yield b"a" * 100
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        gpu.upload_texts(texts(), 0, 1000)
    same(["", "b"], gpu)


def test_a_buffer_that_could_not_be_sent_stops_no_later_text(gpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is unmapped by then, and nothing maps it again."""
    ring = gpu._staging
    same(["before"], gpu)
    with monkeypatch.context() as broken:
        broken.setattr(ring, "_device", None)
        with pytest.raises(AttributeError):
            gpu.upload_texts([b"a"], 0, 4)
    for _ in range(3):
        same(["a", "b c"], gpu)


def test_who_waits_behind_a_device_that_hangs_is_not_refused(gpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would end its job for good."""
    entered, hang = threading.Event(), threading.Event()

    def never(_: object, _seconds: float) -> None:
        entered.set()
        hang.wait(10)
        raise TimeoutError

    monkeypatch.setattr(gpu, "lost", None)
    monkeypatch.setattr(gpu, "_staging", staging.Staging(gpu._device, gpu._answer))
    for _ in range(2):
        gpu.upload_texts([b"a"], 0, 4)
    monkeypatch.setattr(gpu._waiters, "answer", never)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(gpu.upload_texts, [b"a"], 0, 4)
        assert entered.wait(10)
        second = threads.submit(gpu.upload_texts, [b"a"], 0, 4)
        hang.set()
        assert isinstance(first.exception(30), DeviceLost)
        assert not isinstance(second.exception(30), Permanent)
    with pytest.raises(DeviceLost):
        gpu.upload_texts([b"a"], 0, 4)


def test_more_tiles_than_threads_add_up(gpu: Runtime) -> None:
    same(["some  words " * 200_000, "é" * 70_000], gpu)


def test_texts_beyond_a_binding_are_refused(gpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "binding_bytes", 2 << 20)
    with pytest.raises(Permanent, match="2097152") as caught:
        Uploader(ALPHABET, gpu).begin([b"x" * (2 << 20)])
    assert caught.value.code == "gpu_limit"
