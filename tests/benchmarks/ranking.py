"""How searches rank ACORD's clauses by lawyers' judgements, beside BM25 and MiniLM alone: `make bench NAME=ranking`.

NDCG over the clauses that were judged for a query, as the data set's authors measure, and over all clauses, where those
not judged count as irrelevant. The weights were chosen on the queries ``train``; ``--tune`` shows what else was tried
and the result of five-fold cross-validation. An argument names a folder that keeps the vectors.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import workers.engines  # pyright: ignore[reportUnusedImport]  # noqa: F401 (llama.cpp before numpy)

import numpy as np  # isort: skip

from services.models import Catalog
from services.settings import load_settings
from workers.analysis import ranking
from workers.analysis.bm25 import Words, bm25
from workers.analysis.ranking import Corpus, hybrid, similar
from workers.analysis.similarity import Vectors
from workers.documents.limits import Limits
from workers.documents.readers import read_bytes
from workers.engines.demo_weights import MINILM, install_demo_models
from workers.engines.embeddings import GgufEmbeddings
from workers.tasks.segments import clause_spans, segments

DATA = Path(__file__).parents[3] / "shared" / "data" / "clause_bank"
THREADS, FOLDS = 2, 5
GRID = {"WORDS_WEIGHT": (0.1, 0.2, 0.3), "FEEDBACK": (0.0, 0.5, 0.7), "FEEDBACK_CLAUSES": (5, 10, 20)}

Order = list[int]


@dataclass(frozen=True)
class Bank:
    """The clauses as a search sees them, queries with vectors and parts, and judgements: query → clause → grade."""

    corpus: Corpus
    texts: list[str]
    vectors: Vectors
    parts: list[str]
    grades: list[dict[int, int]]


def main() -> int:
    """Print a table and one JSON line."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--tune"]
    if not DATA.exists():
        print(f"the clause bank is not at {DATA}")
        return 1
    with tempfile.TemporaryDirectory() as name:
        bank = load(Path(arguments[0] if arguments else name))
    count = sum(len(words.lengths) for words in bank.corpus.words)
    print(f"{count} clauses in {len(bank.corpus.owners)} parts, {len(bank.texts)} queries")
    if "--tune" in sys.argv:
        tune(bank, count)
    sides: dict[str, list[Order]] = {
        "bm25": [np.argsort(-bm25(bank.corpus.words, text), kind="stable").tolist() for text in bank.texts],
        "minilm": orders(similar(bank.corpus, bank.vectors, count, gpu=False, adapter=None)[0]),
        "ours": ours(bank, count),
    }
    print("                 judged clauses              all clauses")
    print("side    queries  NDCG@5  NDCG@10   NDCG@5  NDCG@10")
    figures: dict[str, float] = {}
    for side, found in sides.items():
        for part in ("train", "valid", "all"):
            cells = [score(bank, found, part, k, judged=judged) for judged in (True, False) for k in (5, 10)]
            print(f"{side:7s} {part:7s}  " + "  ".join(f"{cell:.4f}" for cell in cells))
            name = "ndcg10" + ("" if side == "ours" else f"_{side}") + ("" if part == "all" else f"_{part}")
            figures[name] = round(cells[1], 4)
    print(json.dumps(figures))
    return 0


def load(folder: Path) -> Bank:
    """Read the bank as a worker does and embed it, unless ``folder`` has its vectors."""
    folder.mkdir(parents=True, exist_ok=True)
    data = (DATA / "clauses.jsonl").read_bytes()
    document = read_bytes(data, Limits.of(load_settings()))
    queries = [json.loads(line) for line in (DATA / "queries.jsonl").read_text("utf-8").splitlines()]
    texts = [query["text"] for query in queries]
    spans = clause_spans(document)
    kept = folder / "vectors.npz"
    if not kept.exists():
        install_demo_models(Catalog(folder))
        engine = GgufEmbeddings.on_cpu(Catalog(folder).get(MINILM), threads=THREADS)
        parts = segments(document, engine)
        found = engine.embed([document.text[start:end] for start, end in parts]).vectors
        asked = engine.embed(texts).vectors
        engine.close()
        np.savez(kept, parts=np.array(parts, np.int64), vectors=found, queries=asked)
    with np.load(kept) as arrays:
        owners = np.searchsorted([start for start, _ in spans], arrays["parts"][:, 0], side="right") - 1
        corpus = Corpus(arrays["vectors"], owners, [Words.of(document.text, spans, lambda: None)])
        vectors = arrays["queries"]
    places = {label: place for place, label in enumerate(document.labels)}
    grades: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for line in (DATA / "qrels.tsv").read_text("utf-8").splitlines()[1:]:
        query, clause, grade = line.split("\t")
        grades[query][places[clause]] = int(grade)
    return Bank(
        corpus, texts, vectors, [query["part"] for query in queries], [grades[query["id"]] for query in queries]
    )


def orders(hits: list[list[ranking.Hit]]) -> list[Order]:
    """The clauses of each query, best first."""
    return [[hit.clause for hit in found] for found in hits]


def ours(bank: Bank, count: int) -> list[Order]:
    """The order of a search, to its end."""
    return orders(hybrid(bank.corpus, bank.vectors, bank.texts, count, gpu=False, adapter=None)[0])


def score(bank: Bank, found: Sequence[Order], part: str, k: int, *, judged: bool) -> float:
    """Mean NDCG of the queries of a part."""
    return float(np.mean([ndcg(bank, found, query, k, judged=judged) for query in members(bank, part)]))


def members(bank: Bank, part: str) -> list[int]:
    """Numbers of the queries of a part, or of all."""
    return [number for number, own in enumerate(bank.parts) if part in (own, "all")]


def ndcg(bank: Bank, found: Sequence[Order], query: int, k: int, *, judged: bool) -> float:
    """Gain of the first ``k`` clauses, grade ÷ log2(place + 1), as a share of the best there is."""
    grades = bank.grades[query]
    shown = [clause for clause in found[query] if not judged or clause in grades][:k]
    best = sorted(grades.values(), reverse=True)[:k]
    return gain([grades.get(clause, 0) for clause in shown]) / gain(best)


def gain(grades: Sequence[int]) -> float:
    """Discounted gain of grades in the order of their clauses."""
    return sum(grade / math.log2(place + 2) for place, grade in enumerate(grades))


def tune(bank: Bank, count: int) -> None:
    """Print NDCG@10 over the grid on ``train``, and what five-fold cross-validation over it gives."""
    train = members(bank, "train")
    results: dict[tuple[float, ...], dict[int, float]] = {}
    chosen = {name: getattr(ranking, name) for name in GRID}
    for values in product(*GRID.values()):
        for name, value in zip(GRID, values, strict=True):
            setattr(ranking, name, value)
        found = ours(bank, count)
        results[values] = {query: ndcg(bank, found, query, 10, judged=True) for query in train}
    for name, value in chosen.items():
        setattr(ranking, name, value)
    for values, grades in sorted(results.items(), key=lambda item: -sum(item[1].values())):
        print(*(f"{name}={value}" for name, value in zip(GRID, values, strict=True)), end="  ")
        print(f"train {np.mean(list(grades.values())):.4f}")
    folds = np.random.default_rng(0).permutation(len(train)) % FOLDS
    held: list[float] = []
    for fold in range(FOLDS):
        rest = [query for query, own in zip(train, folds, strict=True) if own != fold]
        best = max(results.values(), key=lambda grades: sum(grades[query] for query in rest))
        held += [best[query] for query, own in zip(train, folds, strict=True) if own == fold]
    print(f"cross-validated NDCG@10 on train {np.mean(held):.4f}")


if __name__ == "__main__":
    sys.exit(main())
