"""Finds the likeliest tokens of each row inside llama.cpp's graph, on the device that computed the logits.

With 262,144 tokens and 64 rows the logits are 67 MB a step; bringing them to the host and searching them there takes a
good part of a step. Here 64 logits a row and their tokens come back. llama.cpp's own samplers do that too, but search
one row after the other; this one is a sampler for llama.cpp's interface that, asked for the first row of a graph,
searches all rows at once and gives every row its part.

The search is exact, but for equal values at the 64th place: the 64 greatest of a row stand in the 64 blocks whose
greatest values are the greatest. So blocks are sorted by their peaks and the first 64 are kept, again with smaller
blocks, until few enough are left to sort them all. Only operations that all of ggml's GPU backends have are used.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

log = logging.getLogger("casemill.llama")

# How many tokens of a row come back, and blocks are kept.
KEPT: Final = 64
# ggml's GPU backends sort rows of this length in one kernel, longer ones by much slower ways.
_SORTED: Final = 1024
# The longest rows of peaks that are sorted all the same, for vocabularies that no wider blocks divide.
_LONGEST: Final = 4096
_WIDEST: Final = 256
# A thread goes through a pool's values one by one: two short ways are faster than a long one.
_POOLED: Final = 16
# ggml's enumerations.
_MAX_POOL, _DESCENDING = 0, 1
_FLOAT: Final = 4
_PROBED_ROWS: Final = 2


class _Tensor(ctypes.Structure):
    """The beginning of ``ggml_tensor``, which has no functions to read it by; :func:`_ggml` checks that it fits."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
    )


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


_P, _I, _L, _F = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float
_SIGNATURES: Final[dict[str, tuple[Any, list[Any]]]] = {
    "ggml_init": (_P, [_InitParams]),
    "ggml_free": (None, [_P]),
    "ggml_tensor_overhead": (ctypes.c_size_t, []),
    "ggml_new_tensor_2d": (_P, [_P, _I, _L, _L]),
    "ggml_reshape_1d": (_P, [_P, _P, _L]),
    "ggml_reshape_2d": (_P, [_P, _P, _L, _L]),
    "ggml_reshape_3d": (_P, [_P, _P, _L, _L, _L]),
    "ggml_view_1d": (_P, [_P, _P, _L, ctypes.c_size_t]),
    "ggml_view_2d": (_P, [_P, _P, _L, _L, ctypes.c_size_t, ctypes.c_size_t]),
    "ggml_cont": (_P, [_P, _P]),
    "ggml_cast": (_P, [_P, _P, _I]),
    "ggml_arange": (_P, [_P, _F, _F, _F]),
    "ggml_pool_1d": (_P, [_P, _P, _I, _I, _I, _I]),
    "ggml_argsort": (_P, [_P, _P, _I]),
    "ggml_get_rows": (_P, [_P, _P, _P]),
    "ggml_set_output": (None, [_P]),
    "ggml_backend_dev_supports_op": (ctypes.c_bool, [_P, _P]),
}


def _name(_sampler: Any) -> bytes:
    return b"top-k of all rows"


def _unused(_sampler: Any, _candidates: Any) -> None:
    """What llama.cpp calls a sampler for outside of its graph; it wants one."""


def _ready(_sampler: Any, _buffer: Any, _outputs: Any) -> bool:
    return True


def _at(tensor: int) -> _Tensor:
    return _Tensor.from_address(tensor)


@cache
def _ggml() -> Any:
    """The functions of ggml with their types, ``None`` where this build of llama.cpp is another one."""
    try:
        extensions: Any = importlib.import_module("llama_cpp._ctypes_extensions")
        native: Any = importlib.import_module("llama_cpp.llama_cpp")
        folder = Path(native.__file__).parent / "lib"
        library: Any = extensions.load_shared_library("ggml-base", folder)
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (ImportError, OSError, AttributeError) as error:
        log.warning("tokens are chosen on the host: install the llama-cpp-python of uv.lock, this one lacks %s", error)
        return None
    context = library.ggml_init(_InitParams(8 * library.ggml_tensor_overhead(), None, True))
    try:
        whole = library.ggml_new_tensor_2d(context, native.GGML_TYPE_F32, 6, 5)
        part = _at(library.ggml_view_1d(context, whole, 6, 3 * 6 * _FLOAT))
        fits = list(_at(whole).ne) == [6, 5, 1, 1] and (part.view_src, part.view_offs) == (whole, 3 * 6 * _FLOAT)
    finally:
        library.ggml_free(context)
    if not fits:
        log.warning("tokens are chosen on the host, as tensors of this ggml differ: install the version in uv.lock")
        return None
    return library


def block_width(values: int) -> int:
    """Into blocks of how many values a row of so many is divided; 0 where none divides it into few enough."""
    widths = [width for width in (2**power for power in range(1, _WIDEST.bit_length())) if values % width == 0]
    few = [width for width in widths if KEPT <= values // width <= _SORTED]
    if few:
        return few[0]
    return widths[-1] if widths and KEPT <= values // widths[-1] <= _LONGEST else 0


def searchable(vocabulary: int) -> bool:
    """Whether rows of so many logits can be searched here."""
    return KEPT <= vocabulary <= _SORTED or block_width(vocabulary) > 0


class GraphTopK:
    """The samplers that search for a context; :meth:`free` them once it has ended or has been given others.

    All is called by the thread that owns the context, ggml's calls of the sampler too.
    """

    def __init__(self, native: Any) -> None:
        self._native = native
        self._ggml = _ggml()
        # What was made for the graph that is being built: its logits, and the kept ones with their tokens.
        self._built: tuple[int, int, int] | None = None
        self._interface = native.llama_sampler_i(
            name=native.llama_sampler_i_name(_name),
            apply=native.llama_sampler_i_apply(_unused),
            backend_init=native.llama_sampler_i_backend_init(_ready),
            backend_apply=native.llama_sampler_i_backend_apply(self._apply),
            backend_reset=native.llama_sampler_i_backend_reset(self._reset),
        )
        self._chains: list[Any] = []

    def chains(self, sequences: int) -> list[Any]:
        """A new sampler for each sequence: llama.cpp takes none a second time."""
        native = self._native
        made: list[Any] = []
        for _ in range(sequences):
            chain = native.llama_sampler_chain_init(native.llama_sampler_chain_default_params())
            native.llama_sampler_chain_add(chain, native.llama_sampler_init(ctypes.byref(self._interface), None))
            made.append(chain)
        self._chains += made
        return made

    def supported(self, devices: Sequence[int], vocabulary: int) -> bool:
        """Whether all ``devices``, each a ``ggml_backend_dev_t``, have every operation of the search; the CPU has."""
        if self._ggml is None or not searchable(vocabulary):
            return False
        context = self._ggml.ggml_init(_InitParams(64 * self._ggml.ggml_tensor_overhead(), None, True))
        try:
            logits = self._ggml.ggml_new_tensor_2d(context, self._native.GGML_TYPE_F32, vocabulary, _PROBED_ROWS)
            made: list[int] = []
            self._search(context, logits, made)
            return all(self._ggml.ggml_backend_dev_supports_op(device, each) for device in devices for each in made)
        finally:
            self._ggml.ggml_free(context)

    def free(self) -> None:
        """Free all samplers."""
        chains, self._chains = self._chains, []
        for chain in chains:
            self._native.llama_sampler_free(chain)

    def _reset(self, _sampler: Any) -> None:
        self._built = None

    def _apply(self, _sampler: Any, context: int, _graph: int, data: Any) -> None:
        """Give the row in ``data`` its kept logits and their tokens; called by llama.cpp for each sequence in turn."""
        row = data.contents.logits
        # What is raised here cannot reach the caller: without a result, whoever reads it finds none.
        data.contents.logits = data.contents.candidates = None
        seen = _at(row)
        logits = seen.view_src or row
        if self._built is None or self._built[0] != logits:
            self._built = (logits, *self._search(context, logits, []))
        _, kept, tokens = self._built
        at = int(seen.view_offs) // int(seen.ne[0]) * KEPT if seen.view_src else 0
        data.contents.logits = self._ggml.ggml_view_1d(context, kept, KEPT, at)
        data.contents.candidates = self._ggml.ggml_view_1d(context, tokens, KEPT, at)

    def _search(self, context: int, logits: int, made: list[int]) -> tuple[int, int]:
        """The greatest ``KEPT`` logits of each row, the greatest first, and their tokens; ``made`` gets what is new."""
        ggml = self._ggml

        def add(function: Any, *arguments: Any) -> int:
            made.append(function(context, *arguments))
            return made[-1]

        size, rows = int(_at(logits).ne[0]), int(_at(logits).ne[1])
        values = add(ggml.ggml_reshape_2d, logits, size, rows)
        # Floats count tokens exactly up to 2^24, and all backends gather them.
        names, named_rows = add(ggml.ggml_arange, 0.0, float(size), 1.0), 1
        while size > _SORTED:
            width = block_width(size)
            blocks = size // width
            peaks = values
            for part in (min(width, _POOLED), width // min(width, _POOLED)):
                peaks = add(ggml.ggml_pool_1d, peaks, _MAX_POOL, part, part, 0) if part > 1 else peaks
            order = add(ggml.ggml_argsort, peaks, _DESCENDING)
            first = add(ggml.ggml_cont, add(ggml.ggml_view_2d, order, KEPT, rows, blocks * _FLOAT, 0))
            values = add(ggml.ggml_get_rows, add(ggml.ggml_reshape_3d, values, width, blocks, rows), first)
            names = self._gather(add, names, named_rows, width, blocks, rows, first)
            size, named_rows = KEPT * width, rows
            values = add(ggml.ggml_reshape_2d, values, size, rows)
        order = add(ggml.ggml_argsort, values, _DESCENDING)
        first = add(ggml.ggml_cont, add(ggml.ggml_view_2d, order, KEPT, rows, size * _FLOAT, 0))
        values = add(ggml.ggml_get_rows, add(ggml.ggml_reshape_3d, values, 1, size, rows), first)
        names = self._gather(add, names, named_rows, 1, size, rows, first)
        tokens = add(ggml.ggml_cast, names, self._native.GGML_TYPE_I32)
        for tensor in (values, tokens):
            ggml.ggml_set_output(tensor)
        return values, tokens

    def _gather(self, add: Any, names: int, named_rows: int, width: int, blocks: int, rows: int, first: int) -> int:
        """The names in the blocks ``first`` of each row; before the first search all rows share theirs."""
        ggml = self._ggml
        if named_rows == rows:
            return add(ggml.ggml_get_rows, add(ggml.ggml_reshape_3d, names, width, blocks, rows), first)
        flat = add(ggml.ggml_reshape_1d, first, KEPT * rows)
        return add(ggml.ggml_get_rows, add(ggml.ggml_reshape_2d, names, width, blocks), flat)
