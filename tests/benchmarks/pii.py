"""Personal data on the developer part of the labelled sentences: `make bench NAME=pii`.

The tagger is trained anew for each of five folds that share no sentence pattern, and finds in the fold kept aside. A
found span is right where its type and its offsets are (``exact``), or where it and a labelled one of its type have at
least half of their union in common (``overlap``); each labelled span counts once. Then the speed of the shipped tagger
on contracts, one core.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

# Before numpy is loaded: one core is what is measured.
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

from workers.analysis.sensitive.datum import DataType
from workers.analysis.sensitive.personal import find_personal_data
from workers.analysis.sensitive.training.labelled import Sample, Span, folds, load
from workers.analysis.sensitive.training.train import fit

DATA = Path(__file__).parents[3] / "shared" / "data"
FOLDS = 5
SPEED_BYTES = 4_000_000


def main() -> int:
    """Print a table and one JSON line."""
    if not DATA.exists():
        print(f"the sentences are not at {DATA}")
        return 1
    samples = load(DATA / "pii" / "samples.jsonl")
    counts = {measure: Counter[tuple[str, str]]() for measure in ("exact", "overlap")}
    show = "--errors" in sys.argv
    for sample, found in cross_validated(samples):
        for measure, count in counts.items():
            right = matched(sample.spans, found, exact=measure == "exact")
            count.update((span[0], "found") for span in found)
            count.update((span[0], "labelled") for span in sample.spans)
            count.update((span[0], "right") for span in right)
            if show and measure == "overlap":
                print_errors(sample, found, right)
    print(f"{'type':20s} {'labelled':>8s}   exact P / R / F1      overlap P / R / F1")
    for name in DataType:
        cells = "   ".join("{:.3f} {:.3f} {:.3f}".format(*rates(count, {name})) for count in counts.values())
        print(f"{name:20s} {counts['exact'][name, 'labelled']:8d}   {cells}")
    figures: dict[str, float] = {}
    for measure, count in counts.items():
        precision, recall, f1 = rates(count, set(DataType))
        print(f"all 17, {measure}: P {precision:.3f} R {recall:.3f} F1 {f1:.3f}")
        figures |= {
            f"micro_{key}_{measure}": round(value, 4)
            for key, value in zip(("precision", "recall", "f1"), (precision, recall, f1), strict=True)
        }
        figures[f"macro_f1_{measure}"] = round(sum(rates(count, {name})[2] for name in DataType) / len(DataType), 4)
        figures |= {
            f"{name.lower()}_f1_{measure}": round(rates(count, {name})[2], 4) for name in ("PERSON", "STREET_ADDRESS")
        }
    print(json.dumps(figures | speed()))
    return 0


def cross_validated(samples: list[Sample]) -> Iterable[tuple[Sample, list[Span]]]:
    """Each sample with what a tagger finds in it that has seen no sample of its template."""
    fold_of = folds(samples, FOLDS)
    for fold in range(FOLDS):
        weights = fit(
            [sample for sample, number in zip(samples, fold_of, strict=True) if number != fold], DATA / "cuad"
        )
        for sample, number in zip(samples, fold_of, strict=True):
            if number == fold:
                yield sample, [(str(d.type), d.start, d.end) for d in find_personal_data(sample.text, weights)]


def matched(labelled: Iterable[Span], found: Iterable[Span], *, exact: bool) -> list[Span]:
    """The labelled spans that were found, each found one used once."""
    left = list(found)
    right: list[Span] = []
    for span in labelled:
        best = max(left, key=lambda other: shared(span, other), default=None)
        if best is not None and (best == span if exact else shared(span, best) >= 0.5):
            right.append(span)
            left.remove(best)
    return right


def shared(one: Span, other: Span) -> float:
    """Intersection over union of two spans of one type."""
    if one[0] != other[0]:
        return 0.0
    common = min(one[2], other[2]) - max(one[1], other[1])
    return max(0, common) / (max(one[2], other[2]) - min(one[1], other[1]))


def rates(count: Counter[tuple[str, str]], names: set[DataType] | set[str]) -> tuple[float, float, float]:
    """Precision, recall and F1 over the types ``names``."""
    right, found, labelled = (sum(count[str(name), what] for name in names) for what in ("right", "found", "labelled"))
    precision, recall = right / found if found else 0.0, right / labelled if labelled else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if right else 0.0


def print_errors(sample: Sample, found: list[Span], right: list[Span]) -> None:
    """What was missed and what was found in excess."""
    for mark, spans in (("missed", set(sample.spans) - set(right)), ("excess", set(found) - set(sample.spans))):
        for name, start, end in sorted(spans, key=lambda span: span[1]):
            print(f"{mark} {name} {sample.text[start:end]!r} in {sample.text[max(0, start - 60) : end + 30]!r}")


def speed() -> dict[str, float]:
    """Megabytes a minute and findings a thousand characters on contracts, by the shipped weights."""
    texts: list[str] = []
    for path in sorted((DATA / "cuad" / "texts").glob("*.txt")):
        texts.append(path.read_bytes().decode())
        if sum(map(len, texts)) > SPEED_BYTES:
            break
    find_personal_data(texts[0])  # loads lists and weights
    started = time.process_time()
    found = Counter(datum.type for text in texts for datum in find_personal_data(text))
    seconds = time.process_time() - started
    size = sum(len(text.encode()) for text in texts)
    # A page of a contract has some 2,500 characters.
    pages = sum(map(len, texts)) / 2500
    print(
        "findings a page of 2,500 characters of contracts: "
        + ", ".join(f"{k} {n / pages:.2f}" for k, n in found.most_common())
    )
    return {
        "megabytes_a_minute": round(size / 1e6 / seconds * 60, 1),
        "findings_a_page": round(found.total() / pages, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
