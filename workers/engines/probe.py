"""Loads a model in a process of its own, so that a file that crashes llama.cpp never takes a worker with it.

``python -m workers.engines.probe PATH KIND GPU_LAYERS EXTRA_BUFFERS`` prints one JSON line and exits 0 where the model
loads and computes.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from services.errors import CasemillError, ModelError, Transient, from_problem
from services.models import Model
from workers.engines.base import never
from workers.engines.batch import Batch
from workers.engines.llama_api import LlamaModel
from workers.engines.llama_context import LlamaContext

log = logging.getLogger("casemill.engine")

SECONDS: Final = 180.0
REFUSED: Final = 3
_TAIL: Final = 400
_POLL_SECONDS: Final = 0.2


def probe(model: Model, *, gpu_layers: int, seconds: float = SECONDS, stopping: Callable[[], bool] = never) -> bool:
    """Test-load ``model`` in subprocesses; returns whether llama.cpp may use its extra CPU buffers.

    Those use matrix instructions (AMX) that some virtual machines announce and then refuse, which kills the process; so
    a model that crashes with them is tried once without. Raises ``ModelError``: ``model_damaged`` where the process
    refuses the file or dies of it; ``Transient``: ``model_load_timeout`` where it takes longer than ``seconds``,
    ``engine_closed`` where ``stopping`` says so.
    """
    reason = ""
    for extra_buffers in (True, False):
        done = _run(model, gpu_layers, extra_buffers, seconds, stopping)
        if done.returncode == 0:
            return extra_buffers
        if done.returncode == REFUSED:
            raise _refusal(model, done)
        tail = done.stderr.decode("utf-8", "replace").strip()[-_TAIL:]
        reason = f"the test load ended with code {done.returncode}: {tail}"
        log.warning("%s crashed a test load, extra CPU buffers %s", model.name, "on" if extra_buffers else "off")
    raise ModelError(f"The model {model.name} cannot be used: {reason}", code="model_damaged")


def _run(
    model: Model, gpu_layers: int, extra_buffers: bool, seconds: float, stopping: Callable[[], bool]
) -> subprocess.CompletedProcess[bytes]:
    arguments = [str(model.path), model.kind, str(gpu_layers), str(int(extra_buffers))]
    command = [sys.executable, "-m", "workers.engines.probe", *arguments]
    until = time.monotonic() + seconds
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=nothing, stdout=pipe, stderr=pipe) as process:
        while True:
            try:
                output, errors = process.communicate(timeout=_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if not stopping() and time.monotonic() < until:
                    continue
                process.kill()
                process.communicate()
                break
            return subprocess.CompletedProcess(command, process.returncode, output, errors)
    if stopping():
        raise Transient("This worker is shutting down; try again.", code="engine_closed")
    raise Transient(
        f"Loading {model.name} took longer than {seconds:g} s; the machine may be busy or its disk slow.",
        code="model_load_timeout",
    )


def _refusal(model: Model, done: subprocess.CompletedProcess[bytes]) -> CasemillError:
    problem: dict[str, Any] = json.loads(done.stdout.decode("utf-8", "replace").strip().splitlines()[-1])
    refused = from_problem(problem)
    refused.detail = f"The model {model.name} cannot be used: {refused.detail}"
    if isinstance(refused, Transient):
        return refused
    return ModelError(refused.detail, code=refused.code)


def try_model(path: Path, kind: str, gpu_layers: int, *, extra_buffers: bool) -> dict[str, int]:
    """Load the model, compute a prompt and one token after it; returns sizes. Raises ``ModelError``."""
    embeds = kind == "embed"
    model = LlamaModel(path, gpu_layers=gpu_layers, check_tensors=True, extra_buffers=extra_buffers)
    context = LlamaContext(model, tokens=256, batch=64, micro_batch=64, sequences=1, threads=1, embeddings=embeds)
    batch = Batch(64)
    tokens = (model.tokenize("a test of this model", special=False, start=True) * 64)[:48] or [0]
    for start, part in ((0, tokens), (len(tokens), tokens[:1]))[: 1 if embeds else 2]:
        batch.clear()
        batch.add(part, start, 0, output=True, output_all=embeds)
        code = context.decode(batch)
        if code != 0:
            raise ModelError(f"llama.cpp failed its first steps with code {code}.", code="model_damaged")
    context.close()
    model.close()
    return {"vocabulary": model.vocab_size, "dimensions": model.dimensions}


def main() -> int:
    """The entry point of the subprocess."""
    path, kind, gpu_layers, extra_buffers = sys.argv[1:5]
    try:
        print(json.dumps(try_model(Path(path), kind, int(gpu_layers), extra_buffers=extra_buffers == "1")))
    except CasemillError as error:
        print(json.dumps(error.problem()))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
