"""Step ``clauses``: which sentences are which clause, by trained heads where there are some, else by scan and nearness.

A category whose id is one of the heads' is scored by them (:mod:`workers.analysis.clause_heads`), provided that the
embedding model is the one they were trained with. For any other category, a firm's own, each sentence counts that has
a finding of the scan, or that is very near to the category's description.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.findings import Finding
from services.playbooks import Playbook
from services.texts import DocumentText
from shaders.runtime import runtime
from workers.analysis.clause_heads.score import found_terms, score_document
from workers.analysis.clause_heads.weights import Weights, same_space, shipped, shipped_version
from workers.analysis.risk import assess
from workers.analysis.sentences import find_sentences, sentence_at
from workers.analysis.stretches import Check, watched
from workers.execution import Execution
from workers.tasks.context import Context, load_context
from workers.tasks.scan import findings_of
from workers.tasks.segments import Segments, load_segments
from workers.toolbox import Toolbox

# A sentence this near to a category's description is reported without any finding.
SIMILAR = 0.6
FOUND_SCORE = 0.6


@dataclass(frozen=True, slots=True)
class Clause:
    """A clause of a category, by its id; ``score`` in 0..1, ``sources`` of ``heads``, ``scan`` and ``similarity``."""

    category: str
    start: int
    end: int
    score: float
    sources: tuple[str, ...]


def find_clauses(toolbox: Toolbox, execution: Execution) -> dict[str, Any]:
    """The document's clauses with pages, texts and risks; ``presence`` by category where heads tell it."""
    execution.check()
    started = time.monotonic()
    claim = execution.claim
    playbook = toolbox.playbook(claim)
    document = toolbox.text(claim)
    findings = findings_of(toolbox, claim)
    segments = load_segments(toolbox.step_output(claim, "embed")) if "embed" in claim.outputs else None
    context = load_context(toolbox.step_output(claim, "context")) if "context" in claim.outputs else None
    weights = shipped()
    clauses: list[Clause] = []
    presence: dict[str, float] = {}
    if context is not None and same_space(weights, context.probe):
        clauses, presence = by_heads(weights, document, findings, context, toolbox.settings.adapter, execution.check)
    wanted = {category.id for category in playbook.categories if category.kind == "clause"}
    presence = {category: value for category, value in presence.items() if category in wanted}
    clauses = [clause for clause in clauses if clause.category in presence]
    clauses += by_terms(playbook, document, findings, segments, wanted - presence.keys(), execution.check)
    spans = [(clause.category, clause.start, clause.end) for clause in clauses]
    risk = assess(playbook, evidence(findings, spans, presence))
    titles = {category.id: category.title for category in playbook.categories}
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
            for clause in watched(
                sorted(clauses, key=lambda item: (item.start, item.end, item.category)), execution.check
            )
        ],
        "presence": {titles[category]: round(value, 4) for category, value in presence.items()},
        "heads": shipped_version() if presence else None,
        "seconds": round(time.monotonic() - started, 4),
    }


def by_heads(
    weights: Weights,
    document: DocumentText,
    findings: list[Finding],
    context: Context,
    adapter: str | None,
    check: Check,
) -> tuple[list[Clause], dict[str, float]]:
    """Clauses of the heads' categories, and the probability of each category that the document holds such a clause.

    The heads' product is a GPU's where ``adapter`` names one: that of a single document is too small to pay otherwise.
    """
    spans = [(int(start), int(end)) for start, end in context.spans]
    # The heads look at a sentence's length, in which a line end counts one whichever it is.
    texts = [document.text[start:end].replace("\r\n", "\n") for start, end in spans]
    found = found_terms(weights.heads, [start for start, _ in spans], findings)
    scored = score_document(weights, texts, context.vectors, found, runtime(adapter) if adapter else None, check)
    clauses = [
        Clause(
            weights.heads[item.head],
            spans[item.first][0],
            spans[item.last][1],
            item.score,
            ("heads", "scan") if found[item.first : item.last + 1, item.head].any() else ("heads",),
        )
        for item in scored.clauses
    ]
    return clauses, dict(zip(weights.heads, scored.presence.tolist(), strict=True))


def by_terms(
    playbook: Playbook,
    document: DocumentText,
    findings: Iterable[Finding],
    segments: Segments | None,
    categories: Collection[str],
    check: Check,
) -> list[Clause]:
    """Every sentence with a finding of these ``categories``, and those very near to a category's description."""
    columns = {item.id: column for column, item in enumerate(playbook.categories) if item.id in categories}
    if segments is None:
        spans = find_sentences(document)
        similarity: NDArray[np.float32] = np.zeros((len(spans), len(playbook.categories)), np.float32)
    else:
        spans = [(int(start), int(end)) for start, end in segments.spans]
        similarity = segments.vectors @ segments.categories.T
    starts = [start for start, _ in spans]
    found: dict[tuple[int, int, str], Clause] = {}
    for finding in watched(findings, check):
        if finding.category not in columns or not spans:
            continue
        row = sentence_at(starts, finding.start)
        start, end = min(spans[row][0], finding.start), max(spans[row][1], finding.end)
        near = max(0.0, float(similarity[row, columns[finding.category]]))
        score = min(1.0, FOUND_SCORE + (1 - FOUND_SCORE) * near)
        found[start, end, finding.category] = Clause(finding.category, start, end, score, ("scan",))
    for category, column in columns.items():
        for row in watched(np.flatnonzero(similarity[:, column] >= SIMILAR).tolist(), check):
            key = (*spans[row], category)
            sources = (*found[key].sources, "similarity") if key in found else ("similarity",)
            score = max(found[key].score if key in found else 0.0, float(similarity[row, column]))
            found[key] = Clause(category, *spans[row], score, sources)
    return list(found.values())


def evidence(
    findings: Iterable[Finding], clauses: Iterable[tuple[str, int, int]], scored: Collection[str]
) -> list[Finding]:
    """What risk rests on: the ``clauses`` (category, start, end) of those heads have ``scored``, else the findings."""
    kept = [finding for finding in findings if finding.category not in scored]
    return kept + [Finding(category, start, end, "") for category, start, end in clauses if category in scored]
