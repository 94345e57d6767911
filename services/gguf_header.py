"""Reads and checks the header of a GGUF file without loading it: the catalog's first guard against damaged models.

Pure Python and bounded: a hostile header can neither claim more memory than the file has bytes nor loop for long.
The format: magic, version, counts, key-value pairs, tensor descriptions, padding, tensor data (little-endian).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from math import isfinite, prod
from pathlib import Path
from typing import IO, Final, TypeGuard

from services.errors import ModelError

MAX_KEYS: Final = 4096
MAX_TENSORS: Final = 65_536
MAX_KEY_BYTES: Final = 65_535
MAX_STRING_BYTES: Final = 4 * 2**20
MAX_ARRAY_ITEMS: Final = 16_000_000
MAX_KEPT_ITEMS: Final = 1024
MAX_TENSOR_DIMENSIONS: Final = 4
MAX_LAYERS: Final = 512
MAX_ALIGNMENT: Final = 2**20

_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}

# ggml type number -> (values in a block, bytes of a block). A type not listed here is newer than this table; its
# tensors are then checked by their offset alone, and the test load decides.
_BLOCKS: Final[dict[int, tuple[int, int]]] = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36),
}  # fmt: skip

Scalar = str | int | float | bool
Value = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as the header describes it: ``shape`` with the fastest index first, ``offset`` in bytes of the file.

    ``kind`` is ggml's number of its type, 0 for F32.
    """

    name: str
    kind: int
    shape: tuple[int, ...]
    offset: int
    size: int

    @property
    def layer(self) -> int | None:
        """The number in a name like ``blk.3.attn_q.weight``."""
        block, _, rest = self.name.partition(".")
        number = rest.partition(".")[0]
        return int(number) if block == "blk" and number.isdecimal() and len(number) < 6 else None


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF header says. ``metadata`` holds the scalars and the arrays of at most 1,024 numbers.

    ``layer_bytes`` are the weights of each layer by its number, ``input_bytes`` those of the token embedding and
    ``output_bytes`` all others; ``tied`` where the output layer uses the embedding's. ``vocabulary`` counts tokens.
    """

    version: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    tensor_bytes: int
    layer_bytes: dict[int, int]
    input_bytes: int
    output_bytes: int
    tied: bool
    vocabulary: int

    @property
    def architecture(self) -> str:
        """Name of the architecture (``llama``, ``gemma3``, ``bert`` …)."""
        return self.text("general.architecture") or ""

    @property
    def name(self) -> str | None:
        """The model's own name for itself."""
        return self.text("general.name")

    @property
    def licence(self) -> str | None:
        """The licence that the file states, as written there."""
        return self.text("general.license.name") or self.text("general.license")

    @property
    def context_tokens(self) -> int:
        """Longest context that the model was trained for, in tokens; 0 where the file does not say."""
        return self.number("context_length")

    @property
    def dimensions(self) -> int:
        """Width of the hidden state, which for an embedding model is the width of its vectors."""
        return self.number("embedding_length")

    @property
    def pooling(self) -> int | None:
        """llama.cpp's pooling type (0 none, 1 mean, 2 first, 3 last, 4 rank); ``None`` where the file does not say."""
        value = self.metadata.get(f"{self.architecture}.pooling_type")
        return value if isinstance(value, int) else None

    @property
    def chat_template(self) -> str | None:
        """The Jinja template that turns messages into a prompt."""
        return self.text("tokenizer.chat_template")

    @property
    def kind(self) -> str:
        """``embed`` for encoders and for models that pool, else ``generate``."""
        pools = self.pooling not in (None, 0)
        return "embed" if pools or self.metadata.get(f"{self.architecture}.attention.causal") is False else "generate"

    @property
    def layers(self) -> int:
        """How many layers have weights."""
        return len(self.layer_bytes)

    def text(self, key: str) -> str | None:
        """The string under ``key``, or ``None``."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str, layer: int | None = None) -> int:
        """The whole number under ``<architecture>.<key>``, of ``layer`` where there is one for each; else 0.

        Without ``layer`` the largest of them all.
        """
        value = self.metadata.get(f"{self.architecture}.{key}")
        if isinstance(value, tuple):
            numbers = [max(0, int(item)) for item in value if _finite(item)]
            if layer is None:
                return max(numbers, default=0)
            return numbers[layer] if layer < len(numbers) else 0
        return max(0, int(value)) if _finite(value) else 0

    def decimal(self, key: str) -> float:
        """The number under ``<architecture>.<key>``; 0.0 where there is none."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        return float(value) if _finite(value) else 0.0


def _finite(value: Value | None) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and isfinite(value)


class _Reader:
    """Reads a header field by field and never asks for more bytes than the file still has."""

    def __init__(self, stream: IO[bytes], size: int, path: Path) -> None:
        self.stream = stream
        self.left = size
        self.path = path

    def fail(self, what: str) -> ModelError:
        return ModelError(
            f"{self.path.name} is no usable GGUF file: {what}. Download it again and compare its sha256.",
            code="model_damaged",
        )

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise self.fail("it ends inside its header")
        data = self.stream.read(count)
        if len(data) != count:
            raise self.fail("it ends inside its header")
        self.left -= count
        return data

    def skip(self, count: int) -> None:
        if count > self.left:
            raise self.fail("it ends inside its header")
        self.stream.seek(count, 1)
        self.left -= count

    def unsigned(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def count(self, limit: int, what: str) -> int:
        value = self.unsigned("<Q")
        if value > limit:
            raise self.fail(f"it claims {value:,} {what}, more than the {limit:,} that can be true")
        return value

    def string(self, limit: int = MAX_STRING_BYTES) -> str:
        return self.take(self.count(limit, "bytes in a string")).decode("utf-8", "replace")

    def scalar(self, kind: int) -> Scalar:
        form = _SCALARS.get(kind)
        if form is None:
            raise self.fail(f"a value has the unknown type {kind}")
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def value(self, kind: int) -> Value | None:
        if kind == _STRING:
            return self.string()
        return self.array() if kind == _ARRAY else self.scalar(kind)

    def array(self) -> Value | None:
        kind = self.unsigned("<I")
        items = self.count(MAX_ARRAY_ITEMS, "items in an array")
        if kind == _STRING:
            for _ in range(items):
                self.skip(self.count(MAX_STRING_BYTES, "bytes in a string"))
            return None
        if kind not in _SCALARS:
            raise self.fail(f"an array has items of the unknown type {kind}")
        if items > MAX_KEPT_ITEMS:
            self.skip(items * struct.calcsize(_SCALARS[kind]))
            return None
        return tuple(self.scalar(kind) for _ in range(items))


def read_header(path: Path) -> GgufHeader:
    """Read the header of the GGUF file ``path`` and check that every tensor lies inside the file.

    Raises ``ModelError``: ``model_missing`` where there is no such file, ``model_damaged`` where the file is cut off,
    is no GGUF, contradicts itself or claims what cannot be.
    """
    try:
        size = path.stat().st_size
        stream = path.open("rb")
    except OSError as error:
        raise ModelError(f"The model file {path} cannot be read: {error.strerror}.", code="model_missing") from error
    with stream:
        reader = _Reader(stream, size, path)
        if size < 4 or reader.take(4) != b"GGUF":
            raise reader.fail("it does not begin with the letters GGUF")
        version = reader.unsigned("<I")
        if version not in (2, 3):
            raise reader.fail(f"its version is {version}, only little-endian versions 2 and 3 are read")
        tensors = reader.count(MAX_TENSORS, "tensors")
        keys = reader.count(MAX_KEYS, "metadata keys")
        metadata: dict[str, Value] = {}
        for _ in range(keys):
            key = reader.string(MAX_KEY_BYTES)
            value = reader.value(reader.unsigned("<I"))
            if value is not None:
                metadata[key] = value
        described = [_tensor(reader) for _ in range(tensors)]
        needed = max((row.offset + row.size for row in described), default=0)
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= MAX_ALIGNMENT:
            raise reader.fail("its alignment is impossible")
        start = -(-(size - reader.left) // alignment) * alignment
        available = size - start
    rows = tuple(replace(row, offset=start + row.offset) for row in described)
    layers: dict[int, int] = {}
    for row in rows:
        if row.layer is not None:
            layers[row.layer] = layers.get(row.layer, 0) + row.size
    if len(layers) > MAX_LAYERS:
        raise reader.fail(f"it has {len(layers):,} layers, more than any model")
    embedding = next((row for row in rows if row.name == "token_embd.weight"), None)
    taken = sum(layers.values()) + (embedding.size if embedding else 0)
    header = GgufHeader(
        version=version, metadata=metadata, tensors=rows, tensor_bytes=needed, layer_bytes=layers,
        input_bytes=embedding.size if embedding else 0, output_bytes=sum(row.size for row in rows) - taken,
        tied=all(row.name != "output.weight" for row in rows), vocabulary=prod(embedding.shape[1:]) if embedding else 0,
    )  # fmt: skip
    if not header.architecture:
        raise reader.fail("it names no architecture")
    if needed > max(available, 0):
        raise reader.fail(f"its tensors need {needed:,} bytes and {max(available, 0):,} are there; it is cut off")
    return header


def _tensor(reader: _Reader) -> Tensor:
    """The next described tensor."""
    name = reader.string(MAX_KEY_BYTES)
    dimensions = reader.unsigned("<I")
    if not 0 < dimensions <= MAX_TENSOR_DIMENSIONS:
        raise reader.fail(f"the tensor {name!r} has {dimensions} dimensions")
    shape = tuple(reader.unsigned("<Q") for _ in range(dimensions))
    kind = reader.unsigned("<I")
    offset = reader.unsigned("<Q")
    values, size = _BLOCKS.get(kind, (1, 0))
    if shape[0] % values:
        raise reader.fail(f"the rows of tensor {name!r} do not fill whole blocks")
    return Tensor(name, kind, shape, offset, prod(shape) // values * size)
