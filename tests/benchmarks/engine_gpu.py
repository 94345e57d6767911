"""The engine on a GPU beside llama-server and the limit: `python -m tests.benchmarks.engine_gpu MODEL BINARIES`.

MODEL is the file that `tests.benchmarks.synthetic_model` makes; BINARIES is a folder with `llama-server` and
`llama-batched-bench` of the llama.cpp that llama-cpp-python brings, compiled from its sdist with the same options:

    cmake -S vendor/llama.cpp -B build -DGGML_CUDA=ON -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF
    cmake --build build --target llama-server llama-batched-bench

All sides get the same prompts of 512 tokens, fresh ones each round, and generate 128 tokens each, which is checked; 64
at once, then one. The figure is generated tokens a second over the whole request, reading the prompts included. The
sides stay loaded and take turns, each after a short round that does not count; llama-batched-bench, which reads and
generates without sampling and so is the limit of llama.cpp, starts anew each round; the better of its two runs counts.
llama-server runs with its best flags, of which the first round finds the faster ones, and with its defaults, which take
minutes, in the first round alone and without the short one.

The GPU holds five copies of the model and its cache at a time. `--modes` and `--rounds` cut a run into pieces, and
`--without-defaults` leaves out the server that takes minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

from services.models import Catalog
from services.settings import Settings
from workers.engines.base import Sampling
from workers.engines.llama import LlamaGeneration
from workers.engines.registry import Engines

PROMPT, GENERATE, CONTEXT = 512, 128, 768
CONCURRENT: Final = (64, 1)
MOST: Final = max(CONCURRENT)
CORES: Final = 16
START_SECONDS: Final = 120.0

# Without these no 64 requests would fit; all else is the server's default.
NEEDED: Final = ("-ngl", "99", "-np", str(MOST), "-c", str(MOST * CONTEXT))
LEAN: Final = ("-fa", "on", "-no-kvu", "-b", "2048", "-ub", "2048", "--cache-ram", "0", "-ctxcp", "0", "-sps", "0")
BENCH: Final = ("-ngl", "99", "-fa", "on", "-b", "2048", "-ub", "2048", "-c", str(MOST * CONTEXT))

# What answers a prompt, given the way to sample, a seed and how many tokens to generate: tokens read and generated.
Ask = Callable[[str, str, int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Server:
    """A llama-server's flags, and the fields of a greedy request that suit it best."""

    flags: tuple[str, ...]
    greedy: dict[str, Any]


OURS, DEFAULT, LIMIT = "casemill", "llama-server", "llama-batched-bench"
SERVERS: Final = {
    DEFAULT: Server((), {}),
    "llama-server, best on the host": Server(LEAN, {"samplers": ["top_k"], "top_k": 1}),
    "llama-server, best on the GPU": Server((*LEAN, "-bs"), {"samplers": ["temperature"]}),
}
PREFIXES: Final = {"greedy": "", "sampled": "sampled_"}
# llama-server's default top-k as well; it comes first there, since the others are slow over the whole vocabulary.
SAMPLED: Final[dict[str, Any]] = {"temperature": 0.8, "top_p": 0.95, "top_k": 40}
SAMPLERS: Final = ["top_k", "temperature", "top_p"]


def main() -> int:
    """Print each run, a table of medians and one JSON line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("binaries", type=Path)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--modes", nargs="+", choices=PREFIXES, default=list(PREFIXES))
    arguments.add_argument("--without-defaults", action="store_true")
    given = arguments.parse_args()
    servers = {name: kind for name, kind in SERVERS.items() if name != DEFAULT or not given.without_defaults}
    speeds: dict[tuple[str, str, int], list[float]] = {}
    with ExitStack() as stack:
        engine = stack.enter_context(engine_of(given.model))
        sides: dict[str, Ask] = {OURS: partial(ask_engine, engine)}
        for name, kind in servers.items():
            sides[name] = stack.enter_context(server(given.binaries, given.model, kind))
        pool = stack.enter_context(ThreadPoolExecutor(MOST))
        warm = prompts(engine, MOST, seed=-1)
        for ask in sides.values():
            for mode in given.modes:
                timed(pool, ask, warm, mode, generate=4)
        for round_ in range(given.rounds):
            # No prompt comes twice, or a side would find it in its cache.
            kinds = [(mode, count) for mode in given.modes for count in CONCURRENT]
            texts = {kind: prompts(engine, kind[1], seed=100 * round_ + n) for n, kind in enumerate(kinds)}
            found: dict[tuple[str, str, int], float] = {}
            for mode, count in kinds:
                turn = sides if round_ == 0 else (OURS, best(speeds, mode))
                for name in turn:
                    if name != DEFAULT:
                        timed(pool, sides[name], warm, mode, generate=4)  # a device that has idled is slow at first
                    found[mode, name, count] = timed(pool, sides[name], texts[mode, count], mode)
            limit = bench(given.binaries, given.model)
            found |= {(mode, LIMIT, count): limit[count] for mode in given.modes for count in CONCURRENT}
            for key, speed in found.items():
                speeds.setdefault(key, []).append(speed)
                print(f"round {round_ + 1}  {key[0]:8s} {key[2]:2d} at once  {key[1]:32s} {speed:8.1f}", flush=True)
    report(speeds, given.modes)
    return 0


def report(speeds: dict[tuple[str, str, int], list[float]], modes: list[str]) -> None:
    """Print the medians and the figures."""
    print(f"\n{gpu()}; generated tokens a second, medians (least, most)")
    asked = {name for _, name, _ in speeds}
    for name, kind in ((name, kind) for name, kind in SERVERS.items() if name in asked):
        print(f"{name}: {' '.join((*NEEDED, *kind.flags))}; greedy {kind.greedy}")
    print(f"sampled, all sides: {SAMPLED}; llama-batched-bench {' '.join(BENCH)}")
    middle = {key: statistics.median(runs) for key, runs in speeds.items()}
    for (mode, name, count), runs in speeds.items():
        spread = f"({min(runs):.1f}, {max(runs):.1f})  {len(runs)} runs"
        print(f"{mode:8s} {count:2d} at once  {name:32s} {middle[mode, name, count]:8.1f}  {spread}")
    figures: dict[str, float] = {}
    for mode in modes:
        ours, prefix = middle[mode, OURS, MOST], PREFIXES[mode]
        if (mode, DEFAULT, MOST) in middle:
            figures[f"{prefix}ratio_llama_server"] = ours / middle[mode, DEFAULT, MOST]
        figures[f"{prefix}ratio_llama_server_best"] = ours / middle[mode, best(speeds, mode), MOST]
        figures[f"{prefix}ratio_limit"] = ours / middle[mode, LIMIT, MOST]
        figures[f"{prefix}ratio_limit_1"] = middle[mode, OURS, 1] / middle[mode, LIMIT, 1]
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


def best(speeds: dict[tuple[str, str, int], list[float]], mode: str) -> str:
    """The server that was fastest in the first round, where all had their turn."""
    return max((name for name in SERVERS if name != DEFAULT), key=lambda name: speeds[mode, name, MOST][0])


def timed(pool: ThreadPoolExecutor, ask: Ask, texts: list[str], mode: str, generate: int = GENERATE) -> float:
    """Generated tokens a second when all texts are asked at once."""
    begun = time.perf_counter()
    counts = list(pool.map(lambda place: ask(texts[place], mode, place, generate), range(len(texts))))
    took = time.perf_counter() - begun
    if set(counts) != {(PROMPT, generate)}:
        raise SystemExit(f"not all requests read {PROMPT} tokens and generated {generate}: {sorted(set(counts))}")
    return len(texts) * generate / took


def prompts(engine: LlamaGeneration, count: int, *, seed: int) -> list[str]:
    """Texts of random words, of exactly so many tokens for every side."""
    draw = random.Random(seed)
    llama = engine._llama
    pieces = [llama.piece(draw.randrange(llama.vocab_size)) for _ in range(8000)]
    words = [piece.decode() for piece in pieces if re.fullmatch(rb" [a-z]{2,}", piece)]
    texts: list[str] = []
    while len(texts) < count:
        text = "".join(draw.choices(words, k=PROMPT - 1))
        if engine.count_tokens(text) == PROMPT:
            texts.append(text)
    return texts


@contextmanager
def engine_of(path: Path) -> Generator[LlamaGeneration]:
    """Our engine as a worker loads it."""
    with tempfile.TemporaryDirectory() as folder:
        values = {"data_dir": folder, "sequences": MOST, "context_tokens": CONTEXT}
        settings = Settings.model_validate(values)
        catalog = Catalog(settings.models_folder)
        catalog.add(path, name="bench", source="made", licence="none")
        engines = Engines(settings, catalog, CORES)
        try:
            engine = engines.generation("bench")
            assert isinstance(engine, LlamaGeneration)
            if engine.sequences < MOST:
                raise SystemExit(f"only {engine.sequences} sequences fit into the GPU")
            yield engine
        finally:
            engines.close()


def ask_engine(engine: LlamaGeneration, prompt: str, mode: str, seed: int, generate: int) -> tuple[int, int]:
    """Our engine's answer."""
    sampling = Sampling(generate, seed=seed, **(SAMPLED if mode == "sampled" else {}))
    done = engine.generate(prompt, sampling, priority=4)
    return done.tokens_in, done.tokens_out


@contextmanager
def server(binaries: Path, model: Path, kind: Server) -> Generator[Ask]:
    """A llama-server that is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(binaries / "llama-server"), "-m", str(model), "--port", str(port), *NEEDED, *kind.flags]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            until = time.monotonic() + START_SECONDS
            while not ready(port):
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    print(log.read().decode("utf-8", "replace")[-3000:])
                    raise SystemExit(f"llama-server does not start: {' '.join(command)}")
                time.sleep(0.2)
            yield partial(ask_server, port, kind)
        finally:
            process.terminate()


def ready(port: int) -> bool:
    """Whether the server has loaded its model."""
    try:
        return request(port, "GET", "/health", None)[0] == 200
    except OSError:
        return False


def ask_server(port: int, kind: Server, prompt: str, mode: str, seed: int, generate: int) -> tuple[int, int]:
    """A server's answer."""
    body = {"prompt": prompt, "seed": seed, "n_predict": generate}
    body |= SAMPLED | {"samplers": SAMPLERS} if mode == "sampled" else {"temperature": 0} | kind.greedy
    status, answer = request(port, "POST", "/completion", body)
    if status != 200:
        raise SystemExit(f"llama-server answers {status}: {answer}")
    return answer["tokens_evaluated"], answer["tokens_predicted"]


def request(port: int, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
    """Status and JSON of an HTTP request."""
    connection = HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def bench(binaries: Path, model: Path) -> dict[int, float]:
    """What llama-batched-bench generates a second, by how many at once; the better of two."""
    counts = ",".join(map(str, CONCURRENT * 2))
    command = [str(binaries / "llama-batched-bench"), "-m", str(model), *BENCH]
    command += ["-npp", str(PROMPT), "-ntg", str(GENERATE), "-npl", counts, "--output-format", "jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    speeds: dict[int, float] = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            row = json.loads(line)
            speed = row["pl"] * row["tg"] / (row["t_pp"] + row["t_tg"])
            speeds[row["pl"]] = max(speed, speeds.get(row["pl"], 0.0))
    return speeds


def gpu() -> str:
    """The GPU's name and its driver's version."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
