"""The scan beside Hyperscan on the developer contracts: `make bench NAME=scan`.

The peer gets the same literals, raw, over UTF-8 bytes that are ready, and a Python function that keeps each match; it
finds neither ragged white space nor offsets in characters. On the GPU, where ``CASEMILL_ADAPTER`` names one, counts by
document and category: the first time, with UTF-8 that is ready uploaded and made symbols, and repeated over what is
there.
A folder of texts can be given instead of the shared data.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import hyperscan
import numpy as np

from services.playbooks import Playbook, default_playbook
from services.settings import Settings
from shaders.runtime import Runtime, runtime
from workers.analysis.collection import Collection
from workers.analysis.confirm import confirm
from workers.analysis.prepared import cpu_engine, gpu_counter, plan_of
from workers.analysis.scan import scan

DATA = Path(__file__).parents[3] / "shared" / "data" / "cuad" / "texts"
RUNS = 7
_COPIES = 48  # of the contracts on a real GPU: 1 GB; one on a software adapter
_COPIED = 64 << 20


class Raw:
    """The peer."""

    def __init__(self, playbook: Playbook, texts: list[str]) -> None:
        literals = [literal.text.encode() for category in playbook.categories for literal in category.literals]
        self.data = [text.encode() for text in texts]
        self._database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        expressions = [b"".join(b"\\x%02x" % byte for byte in literal) for literal in literals]
        self._database.compile(  # pyright: ignore[reportUnknownMemberType]
            expressions=expressions, ids=list(range(len(expressions))), flags=hyperscan.HS_FLAG_CASELESS
        )

    def __call__(self, part: slice = slice(None)) -> int:
        found: list[tuple[int, int]] = []
        scratch = hyperscan.Scratch(self._database)
        for data in self.data[part]:
            self._database.scan(
                data, match_event_handler=lambda ident, _, end, *__: found.append((ident, end)), scratch=scratch
            )
        return len(found)


_forked: list[Raw] = []  # what the processes of the pool inherit; a database cannot be sent to them


def scan_part(part: slice) -> int:
    """One core's share of the peer's work."""
    return _forked[0](part)


def main() -> int:
    """Print the table and one JSON line."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DATA
    texts = [path.read_bytes().decode() for path in sorted(folder.glob("*.txt"))]
    if not texts:
        print(f"no texts in {folder}")
        return 1
    whole = default_playbook()
    categories = tuple(replace(item, patterns=()) for item in whole.categories if item.literals)
    literals = Playbook("literals", "literals", categories)
    raw = Raw(literals, texts)
    _forked.append(raw)
    size, cores = sum(map(len, raw.data)), len(os.sched_getaffinity(0))
    parts = [slice(first, None, cores) for first in range(cores)]
    with multiprocessing.get_context("fork").Pool(cores) as pool:  # before there is a device
        seconds = interleaved(
            {
                "hyperscan": raw,
                "hyperscan, all cores": lambda: pool.map(scan_part, parts),
                "ours, same literals": lambda: findings(literals, texts),
                "ours, whole playbook": lambda: findings(whole, texts),
            }
            | steps(literals, texts)
        )
    for name, value in seconds.items():
        print(f"{name:28} {value:8.3f} s {size / value / 1e6:9.1f} MB/s")
    figures: dict[str, Any] = {
        "bytes": size,
        "cores": cores,
        "ratio_hyperscan": round(seconds["hyperscan"] / seconds["ours, same literals"], 3),
        "cpu_mb_s": round(size / seconds["ours, same literals"] / 1e6, 1),
        "cpu_playbook_mb_s": round(size / seconds["ours, whole playbook"] / 1e6, 1),
        "hyperscan_mb_s": round(size / seconds["hyperscan"] / 1e6, 1),
        "hyperscan_all_cores_mb_s": round(size / seconds["hyperscan, all cores"] / 1e6, 1),
    }
    if adapter := Settings().adapter:
        figures |= on_gpu(runtime(adapter), literals, whole, texts, size / seconds["hyperscan, all cores"])
    print(json.dumps(figures))
    return 0


def findings(playbook: Playbook, texts: list[str]) -> int:
    """How much our path finds, text by text, as the step of a review does it."""
    return sum(len(scan(text, playbook, device="cpu").findings) for text in texts)


def steps(playbook: Playbook, texts: list[str]) -> dict[str, Callable[[], object]]:
    """The parts of our path, each alone."""
    plan, engine = plan_of(playbook), cpu_engine(playbook)
    streams = [plan.alphabet.encode(text) for text in texts]
    hits = [engine.scan(stream) for stream in streams]
    together = list(zip(texts, streams, hits, strict=True))
    return {
        "  encode": lambda: [plan.alphabet.encode(text) for text in texts],
        "  engine": lambda: [engine.scan(stream) for stream in streams],
        "  confirm": lambda: [confirm(text, stream, found, plan, playbook) for text, stream, found in together],
    }


def on_gpu(found: Runtime, literals: Playbook, whole: Playbook, texts: list[str], peer: float) -> dict[str, Any]:
    """Figures of the adapter; ``peer`` in bytes a second."""
    copies = 1 if "llvmpipe" in found.name.lower() else _COPIES
    stored = [text.encode() for text in texts]
    many = stored * copies
    size = copies * sum(map(len, stored))
    adapter = found.name
    resident = Collection(many, device="gpu", adapter=adapter)
    expected = Collection(stored, device="cpu").count(whole)
    equal = np.array_equal(resident.count(whole)[: len(texts)], expected)
    resident.count(literals)  # the tables and texts of the literals are there from now on
    block = np.zeros(_COPIED, np.uint8)
    source, mark = found.empty(_COPIED), found.empty(4)  # reading the mark waits for all that was submitted
    target = found._device.create_buffer(size=_COPIED, usage=found._usage.COPY_DST)

    def copy() -> None:
        encoder = found._device.create_command_encoder()
        for _ in range(16):
            encoder.copy_buffer_to_buffer(source, 0, target, 0, _COPIED)
        found._device.queue.submit([encoder.finish()])
        found.read(mark, 1)

    def upload() -> None:
        found.upload(block)
        found.read(mark, 1)

    tally = gpu_counter(literals, found).tally
    shards = [shard for batch in resident._resident for shard in batch.corpus.shards]
    counting = [dispatch for shard in shards for dispatch in tally.dispatches(shard)[0]]

    def kernels(times: int) -> None:
        found.run(counting * times)
        found.read(mark, 1)

    seconds = interleaved(
        {
            "gpu, first time": lambda: Collection(many, device="gpu", adapter=adapter).count(literals),
            "gpu, resident": lambda: resident.count(literals),
            "gpu, kernels once": lambda: kernels(1),
            "gpu, kernels nine times": lambda: kernels(9),
            "gpu, upload of 64 MiB": upload,
            "gpu, 16 copies of 64 MiB": copy,
        }
    )
    for name, value in seconds.items():
        print(f"{name:28} {value:8.3f} s")
    upload_rate = _COPIED / seconds["gpu, upload of 64 MiB"]
    # A copy reads and writes each byte.
    copy_rate = 2 * 16 * _COPIED / seconds["gpu, 16 copies of 64 MiB"]
    kernel = 8 * size / (seconds["gpu, kernels nine times"] - seconds["gpu, kernels once"])
    first, again = size / seconds["gpu, first time"], size / seconds["gpu, resident"]
    return {
        "adapter": adapter,
        "gpu_bytes": size,
        "gpu_equal": bool(equal),
        "gpu_first_gb_s": round(first / 1e9, 3),
        "gpu_first_of_upload": round(first / upload_rate, 3),
        "gpu_resident_gb_s": round(again / 1e9, 3),
        "gpu_kernel_gb_s": round(kernel / 1e9, 1),
        "gpu_resident_of_copy": round(again / copy_rate, 4),
        "ratio_gpu_hyperscan_all_cores": round(again / peer, 2),
        "upload_gb_s": round(upload_rate / 1e9, 2),
        "copy_gb_s": round(copy_rate / 1e9, 2),
    }


def interleaved(work: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each, all in turn, after one turn that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(RUNS + 1):
        for name, do in work.items():
            begun = time.perf_counter()
            do()
            if turn:
                seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


if __name__ == "__main__":
    sys.exit(main())
