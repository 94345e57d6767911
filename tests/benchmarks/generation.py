"""What the benchmarks of generation share: passages of contracts as prompts, and a stack whose jobs are followed."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.jobs import Priority
from tests.conftest import DATA
from tests.integration.conftest import Running, running
from workers.engines.demo_weights import GEMMA
from workers.engines.llama_api import LlamaModel

GREEDY: Final[dict[str, Any]] = {"temperature": 0.0, "top_p": 1.0}
# Characters of a contract from which one passage is taken; a token has about five.
STRETCH: Final = 5000


class Passages:
    """Passages of the developer contracts, each of its own stretch, so that none comes twice."""

    def __init__(self, model: Path) -> None:
        self._llama = LlamaModel(model, gpu_layers=0)
        self._stretches = _stretches()

    def next(self, tokens: int, after: str = "") -> str:
        """A passage, ``after`` before it if given, that makes a prompt of so many tokens, the beginning one included.

        The tokens of ``after`` stay as they are.
        """
        before = self.tokenize(after) if after else []
        for words in self._stretches:
            for count in range((tokens - len(before)) // 2, len(words)):
                text = " ".join([after, *words[:count]] if after else words[:count])
                found = self.tokenize(text)
                if len(found) == tokens and found[: len(before)] == before:
                    return text
                if len(found) > tokens:
                    break
        raise SystemExit("The contracts are used up: ask for fewer rounds.")

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a prompt."""
        return self._llama.tokenize(text, special=False, start=True)


def _stretches() -> Iterator[list[str]]:
    for file in sorted((DATA / "cuad" / "texts").glob("*.txt")):
        text = file.read_text(encoding="utf-8")
        for start in range(2000, len(text) - STRETCH, STRETCH):
            yield text[start : start + STRETCH].split(" ")[1:]


@dataclass(frozen=True, slots=True)
class Answer:
    """A job that has ended: seconds from its submission to its first text and to its end, as the client saw them."""

    job: str
    first: float
    seconds: float


@contextmanager
def demo_stack(folder: Path, *, sequences: int, context: int) -> Generator[Running]:
    """What `casemill up` starts, with the demo models; ``sequences`` of ``context`` tokens each run side by side."""
    # The roles read their settings from the environment.
    os.environ |= {"CASEMILL_SEQUENCES": str(sequences), "CASEMILL_CONTEXT_TOKENS": str(context)}
    with running(folder, engine="llama") as stack:
        yield stack


def submit(stack: Running, prompt: str, priority: Priority, **sampling: Any) -> str:
    """Submit a generation; answers its id."""
    body = {"prompt": prompt, "seed": 1, **sampling}
    return str(stack.submit(type="generate", model=GEMMA, priority=priority, input=body)["id"])


def ask(stack: Running, prompt: str, priority: Priority, **sampling: Any) -> Answer:
    """Submit a generation and read its events to the end; ends the benchmark where it does not succeed."""
    begun, first = time.perf_counter(), 0.0
    job, state = submit(stack, prompt, priority, **sampling), ""
    for _, state, _ in stack.follow(job):
        if state == "token" and not first:
            first = time.perf_counter() - begun
    if state != "succeeded":
        raise SystemExit(f"a job has {state}: {stack.job(job)['problem']}")
    if not first:
        raise SystemExit("a job gave no text, so nothing can be measured")
    return Answer(job, first, time.perf_counter() - begun)
