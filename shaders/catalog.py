"""Every kernel that is shipped: its file, entry points, bindings and workgroup, in one place for all who dispatch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Kernel:
    """One WGSL file. ``entries`` gives the bindings of group 0 that each entry point uses, in ascending order.

    ``workgroup`` is the number of threads in x; all kernels are one-dimensional and fold into y.
    """

    file: str
    entries: Mapping[str, tuple[int, ...]]
    workgroup: int

    def source(self) -> str:
        """The WGSL text, from the installed package."""
        return resources.files("shaders").joinpath(self.file).read_text("utf-8")


MAX_TURNS = 65_535
"""Turns that all loops of a thread take together: Mesa's lavapipe ends them there without an error."""

SYMBOLS = Kernel(
    "symbols.wgsl",
    {"count": (0, 1, 2, 3), "sum": (0, 3), "write": (0, 1, 2, 3, 4), "begin": (0, 1, 2, 3, 5, 6)},
    workgroup=256,
)
SCAN = Kernel("scan.wgsl", {"count": (0, 1, 2, 3), "scatter": (0, 1, 2, 4, 5)}, workgroup=64)
TALLY = Kernel("tally.wgsl", {"tally": (0, 1, 2, 3, 4, 5, 6)}, workgroup=64)
MINHASH = Kernel("minhash.wgsl", {"minhash": (0, 1, 2, 3, 4)}, workgroup=128)
SIMILARITY = Kernel(
    "similarity.wgsl",
    {"score": (0, 1, 2, 3, 7), "begin": (0, 4, 6), "go_on": (0, 5, 6), "within": (0, 4, 5, 6)},
    workgroup=64,
)
HEADS = Kernel("heads.wgsl", {"multiply": (0, 1, 2, 3)}, workgroup=64)

KERNELS: tuple[Kernel, ...] = (SYMBOLS, SCAN, TALLY, MINHASH, SIMILARITY, HEADS)
