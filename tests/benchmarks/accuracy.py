"""Clause presence by the default playbook on the developer part of CUAD: `make eval`.

For each contract and category, the annotators' yes or no against whether the scan found a term. Precision, recall and
F1, micro and macro, over all 41 categories and without the five that stand in nearly every contract.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from services.playbooks import default_playbook
from workers.analysis.scan import scan

DATA = Path(__file__).parents[3] / "shared" / "data" / "cuad"
UNIVERSAL = {"Document Name", "Parties", "Agreement Date", "Effective Date", "Expiration Date"}


def main() -> int:
    """Print a table and one JSON line."""
    if not DATA.exists():
        print(f"the contracts are not at {DATA}")
        return 1
    playbook = default_playbook()
    titles = {category.id: category.title for category in playbook.categories}
    counts: dict[str, Counter[str]] = {}
    for line in (DATA / "labels.jsonl").read_text(encoding="utf-8").splitlines():
        label = json.loads(line)
        text = (DATA / "texts" / f"{label['id']}.txt").read_bytes().decode()
        found = {titles[finding.category] for finding in scan(text, playbook, device="cpu").findings}
        for category, answer in label["answers"].items():
            outcome = ("t" if answer == (category in found) else "f") + ("p" if category in found else "n")
            counts.setdefault(category, Counter())[outcome] += 1
    for category, count in sorted(counts.items(), key=lambda item: _f1(item[1])):
        print(f"{category:40s} P {_precision(count):.2f}  R {_recall(count):.2f}  F1 {_f1(count):.2f}")
    narrow = {category: count for category, count in counts.items() if category not in UNIVERSAL}
    figures: dict[str, float] = {}
    for name, chosen in (("all", counts), ("without_universal", narrow)):
        total = sum(chosen.values(), Counter[str]())
        figures |= {
            f"micro_precision_{name}": round(_precision(total), 4),
            f"micro_recall_{name}": round(_recall(total), 4),
            f"micro_f1_{name}": round(_f1(total), 4),
            f"macro_f1_{name}": round(sum(map(_f1, chosen.values())) / len(chosen), 4),
        }
    print(json.dumps(figures))
    return 0


def _precision(count: Counter[str]) -> float:
    return count["tp"] / (count["tp"] + count["fp"]) if count["tp"] + count["fp"] else 0.0


def _recall(count: Counter[str]) -> float:
    return count["tp"] / (count["tp"] + count["fn"]) if count["tp"] + count["fn"] else 0.0


def _f1(count: Counter[str]) -> float:
    precision, recall = _precision(count), _recall(count)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


if __name__ == "__main__":
    sys.exit(main())
