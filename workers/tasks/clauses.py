"""Step ``clauses``: which paragraph holds which clause, by the scan's findings and the paragraph's embedding."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.findings import Finding
from services.playbooks import Playbook
from services.texts import DocumentText
from workers.analysis.risk import assess
from workers.execution import Execution
from workers.tasks.scan import findings_of
from workers.tasks.segments import load_segments
from workers.toolbox import Toolbox

# A paragraph this near to a category's description is reported without any finding.
SIMILAR = 0.6
FOUND_SCORE = 0.6
# A document calls itself by its name throughout; the first place is the one that names it.
NAME = "document_name"


@dataclass(frozen=True, slots=True)
class Clause:
    """A paragraph that holds a clause; ``score`` in 0..1, ``sources`` of ``scan`` and ``similarity``."""

    category: str
    start: int
    end: int
    score: float
    sources: tuple[str, ...]


def find_clauses(toolbox: Toolbox, execution: Execution) -> dict[str, Any]:
    """Combine scan and embeddings into clauses with pages, texts and risks."""
    execution.check()
    claim = execution.claim
    playbook = toolbox.playbook(claim)
    document = toolbox.text(claim)
    findings = findings_of(toolbox, claim)
    if "embed" in claim.outputs:
        spans, vectors, categories = load_segments(toolbox.step_output(claim, "embed"))
        similarity = vectors @ categories.T
    else:
        spans = np.array([(item.start, item.end) for item in document.paragraphs], np.int64).reshape(-1, 2)
        similarity = np.zeros((len(spans), len(playbook.categories)), np.float32)
    risk = assess(playbook, findings)
    titles = {category.id: category.title for category in playbook.categories}
    clauses = combine(playbook, document, findings, spans, similarity)
    return {
        "clauses": [
            {
                "category": titles[clause.category],
                "start": clause.start,
                "end": clause.end,
                "page": document.page_at(clause.start),
                "text": document.text[clause.start : clause.end],
                "score": round(clause.score, 4),
                "risk": round(risk.by_category[clause.category], 4),
                "sources": list(clause.sources),
            }
            for clause in clauses
        ]
    }


def combine(
    playbook: Playbook,
    document: DocumentText,
    findings: list[Finding],
    spans: NDArray[np.int64],
    similarity: NDArray[np.float32],
) -> list[Clause]:
    """Clauses in the order of the text: every paragraph with a finding, and those very near to a description.

    ``spans`` is (n, 2) in order, ``similarity`` (n, categories) of cosines.
    """
    starts = [int(start) for start, _ in spans]
    found: defaultdict[tuple[int, int, int], set[str]] = defaultdict(set)
    scores: dict[tuple[int, int, int], float] = {}
    columns = {category.id: column for column, category in enumerate(playbook.categories) if category.kind == "clause"}
    named = False
    for finding in findings:
        column = columns.get(finding.category)
        if column is None or (finding.category == NAME and named):
            continue
        named = named or finding.category == NAME
        row = bisect_right(starts, finding.start) - 1
        inside = row >= 0 and finding.start < int(spans[row][1])
        start, end = (int(spans[row][0]), int(spans[row][1])) if inside else (finding.start, finding.end)
        near = float(similarity[row, column]) if inside else 0.0
        key = (start, max(end, finding.end), column)
        found[key].add("scan")
        scores[key] = max(scores.get(key, 0.0), min(1.0, FOUND_SCORE + (1 - FOUND_SCORE) * max(0.0, near)))
    for row, column in np.argwhere(similarity >= SIMILAR):
        if int(column) in columns.values() and int(column) != columns.get(NAME):
            key = (int(spans[row][0]), int(spans[row][1]), int(column))
            found[key].add("similarity")
            scores[key] = max(scores.get(key, 0.0), float(similarity[row, column]))
    return [
        Clause(
            playbook.categories[key[2]].id,
            key[0],
            min(key[1], len(document.text)),
            scores[key],
            tuple(sorted(found[key])),
        )
        for key in sorted(found)
    ]
