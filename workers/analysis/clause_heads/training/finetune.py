"""Fine-tunes MiniLM for the clause heads, on a GPU: `python -m ...training.finetune SENTENCES MODEL OUT`.

SENTENCES is the file that :mod:`~workers.analysis.clause_heads.training.sentences` writes, MODEL MiniLM's
``model.safetensors``, OUT a folder for what :mod:`~workers.analysis.clause_heads.training.train` reads: ``unseen0.npz``
…, the logits of each fold's sentences by a model of the other folds, and ``adapter.npz``, trained on all contracts.
Needs PyTorch and a CUDA device, nothing else of Casemill: six models side by side take some six minutes of an H100.

Low-rank adaptation (Hu et al., 2021, arXiv:2106.09685): each weight W of a layer becomes W + B·A of a small rank, so
that what is kept is small. A sentence's vector is the mean of its tokens as they are among its neighbours.
"""

from __future__ import annotations

import importlib
import json
import math
import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

torch: Any = importlib.import_module("torch")
functional: Any = importlib.import_module("torch.nn.functional")

LAYERS, HEADS, WIDTH = 6, 12, 384
ROOMS: Final = (1, 64, 160, 510, 510)
"""Tokens of random windows; 1 is a sentence alone."""
BATCH: Final = 12_288
ADAPTED: Final = (
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
    "intermediate.dense", "output.dense",
)  # fmt: skip
START, END, MASK = 101, 102, 103
_INPUTS: Final = ("word", "position", "token_type")
# Vectors have length 1, of 384 numbers; times this their numbers are near 1.
VECTOR_SCALE: Final = 20.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained; ``masked`` is the part of tokens that it does not get to see."""

    rank: int = 32
    epochs: int = 13
    rate: float = 1.5e-3
    head_rate: float = 3e-3
    dropout: float = 0.15
    masked: float = 0.1
    seed: int = 0


Window = tuple[int, int, int, int]
"""Sentences ``first`` to before ``end`` are read; those from ``start`` to before ``stop`` are kept."""


@dataclass(frozen=True, eq=False)
class Sentences:
    """What :mod:`~workers.analysis.clause_heads.training.sentences` wrote; ``labels`` as numbers (n, h)."""

    tokens: NDArray[np.int64]
    lengths: NDArray[np.int64]
    document: NDArray[np.int64]
    fold: NDArray[np.int64]
    windows: NDArray[np.int64]
    labels: NDArray[np.float32]

    @classmethod
    def read(cls, path: Path) -> Sentences:
        """Of a file."""
        with np.load(path) as arrays:
            labels = np.unpackbits(arrays["labels"], axis=1)[:, : int(arrays["heads"])].astype(np.float32)
            names = ("tokens", "lengths", "document", "fold", "windows")
            return cls(**{name: arrays[name].astype(np.int64) for name in names}, labels=labels)

    def random_windows(self, document: int, rng: np.random.Generator) -> list[Window]:
        """Windows of many lengths, one beside the other, so that no sentence leans on its neighbours alone."""
        first, last = np.searchsorted(self.document, [document, document + 1]).tolist()
        found: list[Window] = []
        room = int(rng.integers(ROOMS[-1] // 4, ROOMS[-1] + 1))
        while first < last:
            end, size = first, 0
            while end < last and (end == first or size + self.lengths[end] <= room):
                size += self.lengths[end]
                end += 1
            found.append((first, end, first, end))
            first, room = end, int(rng.choice(ROOMS))
        return found

    def batches(self, windows: Sequence[Window], rng: np.random.Generator) -> list[list[Window]]:
        """Random batches of windows of like length, each of at most ``BATCH`` tokens with padding."""
        sizes = [int(self.lengths[first:end].sum()) + 2 for first, end, _, _ in windows]
        found: list[list[Window]] = [[]]
        most = 0
        order: list[int] = np.argsort(np.array(sizes) * rng.uniform(0.8, 1.25, len(sizes)), kind="stable").tolist()
        for place in order:
            most = max(most, sizes[place])
            if found[-1] and most * (len(found[-1]) + 1) > BATCH:
                found.append([])
                most = sizes[place]
            found[-1].append(windows[place])
        return [found[place] for place in rng.permutation(len(found)).tolist()]

    def padded(self, windows: Sequence[Window]) -> tuple[Any, Any, NDArray[np.int64]]:
        """(b, t) tokens with start and end, 0 behind them; (b, t) which sentence each is of, -1 for none; the rows."""
        ends = np.cumsum(self.lengths)
        sizes = [int(self.lengths[first:end].sum()) for first, end, _, _ in windows]
        ids = np.zeros((len(windows), max(sizes) + 2), np.int64)
        places = np.full(ids.shape, -1, np.int64)
        rows: list[int] = []
        for line, (first, end, _, _) in enumerate(windows):
            size = sizes[line]
            ids[line, 0], ids[line, size + 1] = START, END
            ids[line, 1 : size + 1] = self.tokens[ends[end - 1] - size : ends[end - 1]]
            places[line, 1 : size + 1] = np.repeat(np.arange(end - first), self.lengths[first:end]) + len(rows)
            rows.extend(range(first, end))
        tensors = (torch.from_numpy(array).pin_memory().cuda(non_blocking=True) for array in (ids, places))
        return *tensors, np.array(rows)


class Encoder:
    """MiniLM with an adapter and a linear head."""

    def __init__(self, model: Path, outputs: int, recipe: Recipe) -> None:
        load: Any = importlib.import_module("safetensors.torch").load_file
        self.base = {name: tensor.float().cuda() for name, tensor in load(model).items()}
        self.recipe = recipe
        self.adapter: dict[str, Any] = {}
        for layer in range(LAYERS):
            for kind in ADAPTED:
                name = f"encoder.layer.{layer}.{kind}"
                rows, columns = self.base[f"{name}.weight"].shape
                self.adapter[f"{name}.A"] = _parameter(torch.randn(recipe.rank, columns) / math.sqrt(columns))
                self.adapter[f"{name}.B"] = _parameter(torch.zeros(rows, recipe.rank))
        self.weight, self.bias = _parameter(torch.randn(outputs, WIDTH) * 0.01), _parameter(torch.zeros(outputs))

    def vectors(self, ids: Any, places: Any, count: int, *, dropout: float = 0.0) -> Any:
        """(count, d) of length 1: the mean over the tokens of each sentence."""
        seen = ids != 0
        at = torch.arange(ids.shape[1], device=ids.device)
        words, spots, kinds = (self.base[f"embeddings.{n}_embeddings.weight"] for n in _INPUTS)
        x = self._norm("embeddings.LayerNorm", words[ids] + spots[at] + kinds[0])
        for layer in range(LAYERS):
            x = self._layer(f"encoder.layer.{layer}.", x, seen[:, None, None, :], dropout)
        inside = places >= 0
        sums = torch.zeros((count, WIDTH), device=x.device).index_add(0, places[inside], x[inside].float())
        return functional.normalize(sums, dim=1)

    def logits(self, vectors: Any) -> Any:
        """(b, outputs)."""
        return functional.linear(vectors * VECTOR_SCALE, self.weight, self.bias)

    def _layer(self, name: str, x: Any, seen: Any, dropout: float) -> Any:
        def linear(kind: str, values: Any) -> Any:
            base = functional.linear(values, self.base[f"{name}{kind}.weight"], self.base[f"{name}{kind}.bias"])
            low = functional.linear(values, self.adapter[f"{name}{kind}.A"])
            return base + functional.linear(low, self.adapter[f"{name}{kind}.B"])

        def parted(values: Any) -> Any:
            return values.unflatten(2, (HEADS, WIDTH // HEADS)).transpose(1, 2)

        query, key, value = (parted(linear(f"attention.self.{kind}", x)) for kind in ("query", "key", "value"))
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen).transpose(1, 2).flatten(2)
        mixed = functional.dropout(linear("attention.output.dense", mixed), dropout)
        x = self._norm(f"{name}attention.output.LayerNorm", x + mixed)
        deep = linear("output.dense", functional.gelu(linear("intermediate.dense", x)))
        return self._norm(f"{name}output.LayerNorm", x + functional.dropout(deep, dropout))

    def _norm(self, name: str, x: Any) -> Any:
        return functional.layer_norm(x, (WIDTH,), self.base[f"{name}.weight"], self.base[f"{name}.bias"], 1e-12)

    def save(self, path: Path) -> None:
        """Adapter in half precision, head for vectors of length 1."""
        arrays = {name: tensor.detach().cpu().numpy().astype(np.float16) for name, tensor in self.adapter.items()}
        head = (self.weight.detach() * VECTOR_SCALE).T.cpu().numpy(), self.bias.detach().cpu().numpy()
        np.savez(path, dense=head[0], bias=head[1], **arrays)


def train(sentences: Sentences, model: Path, rows: NDArray[np.int64], recipe: Recipe) -> Encoder:
    """An encoder trained on these sentences."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    encoder = Encoder(model, sentences.labels.shape[1], recipe)
    share = np.clip(sentences.labels[rows].mean(axis=0), 1e-5, 0.5)
    encoder.bias.data.copy_(torch.from_numpy(np.log(share / (1 - share))))
    labels = torch.from_numpy(sentences.labels).cuda()
    groups = [
        {"params": list(encoder.adapter.values()), "lr": recipe.rate},
        {"params": [encoder.weight, encoder.bias], "lr": recipe.head_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    documents = np.unique(sentences.document[rows]).tolist()
    batches: list[list[Window]] = []
    for _ in range(recipe.epochs):
        windows = [window for document in documents for window in sentences.random_windows(document, rng)]
        batches += sentences.batches(windows, rng)
    rates: Any = torch.optim.lr_scheduler.OneCycleLR
    schedule = rates(optimizer, [recipe.rate, recipe.head_rate], len(batches), pct_start=0.06, anneal_strategy="linear")
    for step, part in enumerate(batches, 1):
        ids, places, of = sentences.padded(part)
        hidden = (torch.rand(ids.shape, device=ids.device) < recipe.masked) & (places >= 0)
        with torch.autocast("cuda", torch.bfloat16):
            vectors = encoder.vectors(torch.where(hidden, MASK, ids), places, len(of), dropout=recipe.dropout)
        logits = encoder.logits(functional.dropout(vectors, recipe.dropout))
        right = labels[torch.from_numpy(of).cuda(non_blocking=True)]
        loss = functional.binary_cross_entropy_with_logits(logits, right, reduction="sum") / len(of)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % (len(batches) // 8) == 0:
            print(f"{step} of {len(batches)}: {float(loss):.4f}", file=sys.stderr, flush=True)
    return encoder


def unseen_logits(encoder: Encoder, sentences: Sentences, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(n, outputs) of these sentences, which are whole documents, by the windows that a worker uses."""
    found = np.zeros(sentences.labels.shape, np.float32)
    windows = sentences.windows[np.isin(sentences.windows[:, 2], rows)].tolist()
    for part in sentences.batches([tuple(window) for window in windows], np.random.default_rng(0)):
        ids, places, of = sentences.padded(part)
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            vectors = encoder.vectors(ids, places, len(of))
        with torch.no_grad():
            logits = encoder.logits(vectors).cpu().numpy()
        line = 0
        for first, end, start, stop in part:
            found[start:stop] = logits[line + start - first : line + stop - first]
            line += end - first
    return found[rows]


def _parameter(values: Any) -> Any:
    return values.cuda().requires_grad_()


def _one(job: tuple[Path, Path, Path, int | None, Recipe]) -> None:
    """Train without fold ``held`` and keep the logits of its sentences, or with all and keep the adapter."""
    data, model, out, held, recipe = job
    sentences = Sentences.read(data)
    seen = np.flatnonzero(sentences.fold != (-1 if held is None else held))
    encoder = train(sentences, model, seen, recipe)
    if held is None:
        encoder.save(out / "adapter.npz")
        return
    unseen = np.flatnonzero(sentences.fold == held)
    logits = unseen_logits(encoder, sentences, unseen).astype(np.float16)
    np.savez(out / f"unseen{held}.npz", rows=unseen, logits=logits)


def main() -> int:
    """Train six models at once; the last line is one JSON object."""
    data, model, out = (Path(argument) for argument in sys.argv[1:4])
    folds = sorted(set(Sentences.read(data).fold.tolist()))
    jobs = [(data, model, out, held, Recipe()) for held in (*folds, None)]
    with multiprocessing.get_context("spawn").Pool(len(jobs)) as pool:
        pool.map(_one, jobs)
    print(json.dumps({"models": len(jobs), "gpu": torch.cuda.get_device_name()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
