"""The GGUF header reader: what it reads, and what it does with files that are cut off or lie."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.errors import ModelError
from services.gguf_header import read_header
from tests.tiny_model import CONTEXT, write_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("gguf") / "tiny.gguf", template="{{ messages }}")


def pair(key: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def header(
    keys: list[bytes], tensors: bytes = b"", *, count: int = 0, version: int = 3, claimed: int | None = None
) -> bytes:
    number = len(keys) if claimed is None else claimed
    return b"GGUF" + struct.pack("<IQQ", version, count, number) + b"".join(keys) + tensors


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(ModelError) as caught:
        read_header(path)
    assert caught.value.code == "model_damaged"
    return caught.value.detail


ARCHITECTURE = pair("general.architecture", 8, text("llama"))


def test_reads_what_the_catalog_needs(tiny: Path) -> None:
    found = read_header(tiny)
    assert (found.architecture, found.name, found.licence) == ("llama", "Tiny Random", "Apache-2.0")
    assert (found.context_tokens, found.dimensions, found.pooling, found.kind) == (CONTEXT, 64, None, "generate")
    assert found.chat_template == "{{ messages }}"
    words, matrix, wide = found.vocabulary, 64 * 64 * 4, 64 * 128 * 4
    layer = 2 * matrix + 2 * matrix // 2 + 3 * wide + 2 * 64 * 4
    assert (found.layers, found.layer_bytes, found.tied) == (2, {0: layer, 1: layer}, False)
    assert (found.input_bytes, found.output_bytes) == (words * 64 * 4, words * 64 * 4 + 64 * 4)
    assert words > 256
    assert "tokenizer.ggml.tokens" not in found.metadata, "large arrays are skipped, not kept"


def test_every_truncation_is_found(tiny: Path, tmp_path: Path) -> None:
    whole = tiny.read_bytes()
    cut = tmp_path / "cut.gguf"
    steps = sorted({*range(0, 64), *range(64, len(whole), 4999), len(whole) - 4096})
    for size in steps:
        refused(cut, whole[:size])


def test_the_missing_last_tensor_is_found(tiny: Path, tmp_path: Path) -> None:
    assert "cut off" in refused(tmp_path / "cut.gguf", tiny.read_bytes()[:-100])


def test_more_layers_than_any_model_has_are_refused(tmp_path: Path) -> None:
    tensors = [text(f"blk.{layer}.x") + struct.pack("<IQIQ", 1, 1, 0, 0) for layer in range(513)]
    assert "513 layers" in refused(tmp_path / "deep.gguf", header([ARCHITECTURE], b"".join(tensors), count=513))


def test_pooling_makes_an_embedding_model(tmp_path: Path) -> None:
    path = tmp_path / "bert.gguf"
    keys = [pair("general.architecture", 8, text("bert")), pair("bert.pooling_type", 4, struct.pack("<I", 1))]
    path.write_bytes(header(keys))
    assert (read_header(path).kind, read_header(path).pooling) == ("embed", 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GGU",
        b"PK\x03\x04" + bytes(100),
        header([ARCHITECTURE], version=1),
        header([ARCHITECTURE], version=0x03000000),
        header([ARCHITECTURE], claimed=2**63),
        header([ARCHITECTURE], claimed=4000),
        header([ARCHITECTURE], count=2**63),
        header([ARCHITECTURE], count=60_000),
        header([pair("general.architecture", 8, struct.pack("<Q", 2**60))]),
        header([struct.pack("<Q", 2**60)]),
        header([ARCHITECTURE, pair("x", 9, struct.pack("<IQ", 4, 2**40))]),
        header([ARCHITECTURE, pair("x", 9, struct.pack("<IQ", 4, 15_000_000))]),
        header([ARCHITECTURE, pair("x", 9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 9, 1) * 50)]),
        header([ARCHITECTURE, pair("x", 77, b"")]),
        header([pair("general.name", 8, text("no architecture"))]),
        header([ARCHITECTURE, pair("general.alignment", 4, struct.pack("<I", 0))]),
        header([ARCHITECTURE], text("t") + struct.pack("<I", 2**31), count=1),
        header([ARCHITECTURE], text("t") + struct.pack("<IQQIQ", 2, 2**62, 2**62, 0, 0), count=1),
        header([ARCHITECTURE], text("t") + struct.pack("<IQIQ", 1, 8, 0, 2**63), count=1),
        header([ARCHITECTURE], text("t") + struct.pack("<IQIQ", 1, 100, 12, 0), count=1),
    ],
)
def test_lies_are_refused_in_little_memory(tmp_path: Path, data: bytes) -> None:
    tracemalloc.start()
    refused(tmp_path / "hostile.gguf", data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3.5])
def test_a_number_that_is_none_counts_as_unknown(tmp_path: Path, value: float) -> None:
    path = tmp_path / "odd.gguf"
    keys = [pair("llama.context_length", 6, struct.pack("<f", value))]
    keys.append(pair("llama.block_count", 9, struct.pack("<IQff", 6, 2, value, 2.0)))
    path.write_bytes(header([ARCHITECTURE, *keys]))
    found = read_header(path)
    assert (found.context_tokens, found.number("block_count")) == ((3, 3) if value == 3.5 else (0, 2))


def test_no_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_header(tmp_path / "none.gguf")
    assert caught.value.code == "model_missing"


WRONG_NUMBERS = st.one_of(
    st.sampled_from([0, 1, 7, 8, 9, 13, 255, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1]), st.integers(0, 2**64 - 1)
)


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 2**20), st.binary(min_size=1, max_size=4)),
            st.tuples(st.integers(0, 2**20), WRONG_NUMBERS.map(lambda value: struct.pack("<Q", value))),
            st.tuples(st.integers(0, 40), WRONG_NUMBERS.map(lambda value: struct.pack("<Q", value))),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_damage_to_a_header_is_read_or_refused_in_little_memory(
    tiny: Path, tmp_path_factory: pytest.TempPathFactory, damages: list[tuple[int, bytes]]
) -> None:
    whole = tiny.read_bytes()
    # Counts, types and lengths stand before the tensors' values, which are most of the file.
    end = len(whole) - read_header(tiny).tensor_bytes
    data = bytearray(whole)
    for place, value in damages:
        data[place % end : place % end + len(value)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        found = read_header(path)
        assert found.kind in ("generate", "embed")
        assert isinstance(found.context_tokens + found.number("attention.head_count"), int)
    except ModelError as error:
        assert error.code == "model_damaged"
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 2**22
