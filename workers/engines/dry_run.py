"""Asks llama.cpp itself what a context would take, without loading weights: in a subprocess, from what it logs.

``python -m workers.engines.dry_run PATH SHAPE`` prints one JSON line, SHAPE being the members of a
:class:`~workers.engines.memory.Shape` as JSON.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from services.errors import CasemillError
from services.gguf_header import GgufHeader, read_header
from workers.engines.llama_api import LlamaModel
from workers.engines.llama_context import LlamaContext
from workers.engines.memory import LIBRARY_BYTES, TOKEN_BYTES, Shape, cache_bytes
from workers.engines.plan import ContextPlan, embedding_shape

log = logging.getLogger("casemill.engine")

SECONDS: Final = 120.0
_MIB: Final = 2**20
_BUFFER: Final = re.compile(r"(\S+) +(compute|output) buffer size = +([\d.]+) MiB")
# The sizes of the tensors; the buffers themselves are empty here.
_CACHE: Final = re.compile(r"^llama_(?:kv_cache|memory_\w+)\w*: size = +([\d.]+) MiB")


@dataclass(frozen=True, slots=True)
class Reserved:
    """Bytes that llama.cpp would reserve: the cache, the compute buffers of the GPU and of main memory, the outputs."""

    cache: int
    gpu_compute: int
    host_compute: int
    outputs: int


def dry_run(path: Path, shape: Shape) -> Reserved | None:
    """What llama.cpp says; ``None`` where it is not installed, does not know the model or takes too long."""
    command = [sys.executable, "-m", "workers.engines.dry_run", str(path), json.dumps(asdict(shape))]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        log.warning("the dry run of %s took longer than %g s", path.name, SECONDS)
        return None
    if done.returncode != 0:
        reason = (done.stdout + done.stderr).decode("utf-8", "replace").strip()[-300:]
        log.warning("no dry run of %s (code %d): %s", path.name, done.returncode, reason)
        return None
    return Reserved(**json.loads(done.stdout.decode().strip().splitlines()[-1]))


def measured_plan(path: Path, header: GgufHeader, plan: ContextPlan) -> ContextPlan | None:
    """``plan`` with the cache and the buffers that llama.cpp would reserve; ``None`` where it cannot be asked."""
    shape = embedding_shape(plan) if header.kind == "embed" else plan.shape
    found = dry_run(path, shape)
    if found is None:
        return None
    expected = cache_bytes(header, shape)
    cache = round(plan.cache_bytes * found.cache / expected) if expected else found.cache
    # A build without a GPU plans the same buffer, in main memory.
    compute = (found.gpu_compute or found.host_compute) if plan.gpu_layers else found.host_compute
    process = LIBRARY_BYTES if plan.gpu_layers else header.vocabulary * (4 * shape.outputs + TOKEN_BYTES)
    return replace(plan, cache_bytes=cache, compute_bytes=compute + process)


def read_log(lines: Sequence[str]) -> Reserved:
    """The sizes in llama.cpp's log lines. Buffers of main memory are named CPU, or CUDA_Host and the like."""
    sizes = {"gpu": 0.0, "host": 0.0, "output": 0.0, "cache": 0.0}
    for line in lines:
        if found := _BUFFER.search(line):
            name, what, size = found.groups()
            near = name.startswith("CPU") or name.endswith("_Host")
            sizes["output" if what == "output" else "host" if near else "gpu"] += float(size)
        elif found := _CACHE.search(line):
            sizes["cache"] += float(found[1])
    return Reserved(*(round(sizes[place] * _MIB) for place in ("cache", "gpu", "host", "output")))


class _Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def reserve(path: Path, shape: Shape) -> Reserved:
    """Make the context without weights in this process. Raises ``ModelError``."""
    kept = _Lines()
    llama = logging.getLogger("casemill.llama")
    llama.addHandler(kept)
    llama.setLevel(logging.INFO)
    embeds = read_header(path).kind == "embed"
    model = LlamaModel(path, gpu_layers=shape.gpu_layers, weightless=True)
    context = LlamaContext(
        model, tokens=shape.cells, batch=shape.micro_batch, micro_batch=shape.micro_batch, sequences=shape.sequences,
        threads=1, embeddings=embeds, unified=shape.unified, kv_type=shape.kv_type, search=shape.searched,
    )  # fmt: skip
    context.close()
    model.close()
    return read_log(kept.lines)


def main() -> int:
    """The entry point of the subprocess."""
    path, shape = sys.argv[1:3]
    chosen: dict[str, Any] = json.loads(shape)
    try:
        print(json.dumps(asdict(reserve(Path(path), Shape(**chosen)))))
    except CasemillError as error:
        print(error.detail)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
