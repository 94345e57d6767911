"""Urgent requests while bulk work fills the engine, through HTTP, Redis and Celery: `make bench NAME=preempt`.

`casemill up` with Gemma 3 270M and 32 sequences. Critical generations of 16 tokens after a prompt of 128, one after the
other: first on the idle stack, then while 32 bulk generations of 64 to 200 tokens run and more wait. Time to the first
token is from the POST to the first text event that the client reads.

A bulk job counts as parked when it wrote before and after a critical one, and nothing while that one wrote. Its text is
compared with what another stack, just started and otherwise idle, writes; where both differ, each of its tokens must
be, by a sequence computed alone, within the rounding of the likeliest.
`python -m tests.benchmarks.preempt 40` takes so many samples instead of 20.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from services.jobs import Priority
from services.models import Catalog
from tests.benchmarks.generation import GREEDY, Passages, ask, demo_stack, submit
from tests.conftest import wait_until
from tests.integration.conftest import Running
from tests.integration.test_engine_gemma import EPSILON
from workers.engines.batch import Batch
from workers.engines.demo_weights import GEMMA, install_demo_models
from workers.engines.llama_api import LlamaModel
from workers.engines.llama_context import LlamaContext

SEQUENCES, CONTEXT = 32, 512
PROMPT, CRITICAL_TOKENS = 128, 16
# Bulk jobs beyond those that run, for each critical one: more than end while it writes.
WAITING: Final = 12
BULK_TOKENS: Final = range(64, 201, 8)
# Of so many tokens at most the one is found that was chosen.
LIKELY: Final = 1000


def main() -> int:
    """Print a table and one JSON line."""
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as folder:
        catalog = Catalog(Path(folder) / "models")
        install_demo_models(catalog)
        model = catalog.get(GEMMA).path
        passages = Passages(model)
        with demo_stack(Path(folder), sequences=SEQUENCES, context=CONTEXT) as stack:
            ask(stack, passages.next(PROMPT), Priority.CRITICAL, max_tokens=4, **GREEDY)
            idle, _ = urgent(stack, passages, samples)
            jobs = fill(stack, passages, SEQUENCES + WAITING * samples)
            urgent(stack, passages, 1)
            busy, spans = urgent(stack, passages, samples)
            if running_jobs(stack) < SEQUENCES:
                raise SystemExit("the bulk work ran out, so not all samples met a full engine")
            parked, done = finish(stack, jobs, spans)
        with demo_stack(Path(folder), sequences=SEQUENCES, context=CONTEXT) as stack:
            differ = [job for job in parked if alone(stack, jobs[job]) != done[job]["text"]]
        gaps = largest_gaps(model, [(jobs[job]["prompt"], done[job]) for job in differ])
    print(f"{'first token, ms':24s}{'p50':>8s}{'p95':>8s}{'most':>8s}   {samples} samples")
    for name, times in (("idle stack", idle), (f"{SEQUENCES} bulk generations", busy)):
        print(f"{name:24s}{statistics.median(times):8.1f}{p95(times):8.1f}{max(times):8.1f}")
    print(f"{len(done)} bulk jobs ended, {len(parked)} of them had been parked, {len(differ)} of these texts differ")
    print(f"largest gaps there: {[round(gap, 3) for gap in gaps]}, allowed {EPSILON}")
    if not parked:
        raise SystemExit("nothing was parked, so nothing was measured")
    figures = {"ttft_p95_ratio": round(p95(busy) / p95(idle), 3), "outputs_unchanged": max(gaps, default=0) <= EPSILON}
    print(json.dumps(figures))
    return 0


def urgent(stack: Running, passages: Passages, samples: int) -> tuple[list[float], list[tuple[int, int]]]:
    """Milliseconds to the first text of critical requests, and when each wrote, by the server's clock."""
    firsts: list[float] = []
    spans: list[tuple[int, int]] = []
    for _ in range(samples):
        answer = ask(stack, passages.next(PROMPT), Priority.CRITICAL, max_tokens=CRITICAL_TOKENS, **GREEDY)
        firsts.append(answer.first * 1000)
        moments = written(stack, answer.job)
        spans.append((moments[0], moments[-1]))
    return firsts, spans


def fill(stack: Running, passages: Passages, count: int) -> dict[str, dict[str, Any]]:
    """Submit so many bulk jobs and wait until as many run as can; answers their inputs by id."""
    jobs: dict[str, dict[str, Any]] = {}
    for number in range(count):
        tokens = BULK_TOKENS[7 * number % len(BULK_TOKENS)]
        body: dict[str, Any] = {"prompt": passages.next(PROMPT), "max_tokens": tokens, **GREEDY}
        jobs[submit(stack, priority=Priority.BULK, **body)] = body
    wait_until(lambda: running_jobs(stack) == SEQUENCES, 60, "that all sequences are taken")
    return jobs


def running_jobs(stack: Running) -> int:
    """How many jobs run now."""
    return len(stack.http.get("/v1/jobs", params={"state": "running", "limit": 200}).json()["data"])


def finish(
    stack: Running, jobs: dict[str, dict[str, Any]], spans: list[tuple[int, int]]
) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Cancel what has not begun and wait for the rest; answers who was parked, and the results by id."""
    for job in jobs:
        if stack.job(job)["state"] == "queued":
            stack.http.delete(f"/v1/jobs/{job}")
    ended = {job: stack.finished(job, 300) for job in jobs}
    done = {job: view["result"] for job, view in ended.items() if view["state"] == "succeeded"}
    if failed := [view["problem"] for view in ended.values() if view["state"] not in ("succeeded", "cancelled")]:
        raise SystemExit(f"{len(failed)} bulk jobs failed: {failed[0]}")
    return [job for job in done if was_parked(written(stack, job), spans)], done


def written(stack: Running, job: str) -> list[int]:
    """When a job that has ended wrote text: milliseconds of the server's clock."""
    return [int(place.partition("-")[0]) for place, event, _ in stack.events(job) if event == "token"]


def was_parked(moments: list[int], spans: list[tuple[int, int]]) -> bool:
    """Whether a job wrote before and after one of the spans, and not in it."""
    return any(
        min(moments) < begin and end < max(moments) and not any(begin <= moment <= end for moment in moments)
        for begin, end in spans
        if moments
    )


def alone(stack: Running, body: dict[str, Any]) -> str:
    """The text that a stack writes which has nothing else to do."""
    return stack.job(ask(stack, priority=Priority.BULK, **body).job)["result"]["text"]


def largest_gaps(model: Path, texts: list[tuple[str, dict[str, Any]]]) -> list[float]:
    """For each prompt and result, by how much a token's logit fell behind the likeliest at most; infinite for none."""
    if not texts:
        return []
    llama = LlamaModel(model, gpu_layers=0)
    context = LlamaContext(llama, tokens=CONTEXT, batch=256, micro_batch=256, sequences=1, threads=2)
    gaps = [largest_gap(llama, context, prompt, result) for prompt, result in texts]
    context.close()
    llama.close()
    return gaps


def largest_gap(llama: LlamaModel, context: LlamaContext, prompt: str, result: dict[str, Any]) -> float:
    """Spell the text by the likeliest tokens that fit, token by token, as a sequence of its own computes them."""
    batch = Batch(256)
    context.clear()
    tokens, position, gap = llama.tokenize(prompt, special=False, start=True), 0, 0.0
    # A character that max_tokens cut off is replaced.
    left = result["text"].rstrip("\ufffd").encode()
    ends = result["finish_reason"] == "stop"
    while left or ends:
        batch.clear()
        batch.add(tokens, position, 0, output=True)
        if context.decode(batch):
            raise SystemExit("llama.cpp failed to compute a text again")
        position += len(tokens)
        logits = context.logits(1)[0]
        likely = logits.argpartition(-LIKELY)[-LIKELY:].tolist()
        fitting = [token for token in likely if (fits(llama.piece(token), left) if left else llama.ends(token))]
        if not fitting:
            return math.inf
        chosen = max(fitting, key=lambda token: logits[token])
        gap = max(gap, float(logits.max() - logits[chosen]))
        ends = ends and bool(left)
        left, tokens = left.removeprefix(llama.piece(chosen)), [chosen]
    return gap


def fits(piece: bytes, left: bytes) -> bool:
    """Whether a token's text comes next."""
    return bool(piece) and left.startswith(piece)


def p95(times: list[float]) -> float:
    """The nearest rank."""
    return sorted(times)[math.ceil(0.95 * len(times)) - 1]


if __name__ == "__main__":
    sys.exit(main())
