"""One document through the clause heads: its clauses, and which kinds of clause it holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from services.findings import Finding
from shaders.runtime import Runtime
from workers.analysis.clause_heads.context import presence, probability, second_logits
from workers.analysis.clause_heads.logits import first_logits
from workers.analysis.clause_heads.spans import ScoredClause, find_spans
from workers.analysis.clause_heads.weights import Floats, Weights
from workers.analysis.sentences import sentence_at
from workers.analysis.stretches import Check, unchecked


@dataclass(frozen=True, eq=False)
class Scored:
    """``clauses`` by head and place; ``presence`` (h): the probability that the document holds such a clause at all."""

    clauses: list[ScoredClause]
    presence: Floats


def score_document(
    weights: Weights,
    texts: Sequence[str],
    vectors: Floats,
    found: Floats,
    runtime: Runtime | None = None,
    check: Check = unchecked,
) -> Scored:
    """Score sentences ``texts`` (n) with ``vectors`` (n, d) and ``found`` (n, h) of :func:`found_terms`.

    ``check`` is called for each sentence and each head, and may raise to stop.
    """
    if not texts:
        return Scored([], np.zeros(len(weights.heads), np.float32))
    first = first_logits(weights, texts, vectors, runtime, check)
    second = second_logits(weights.context, first.both, found, texts)
    return Scored(find_spans(probability(second), texts, check), presence(weights.presence, first, second, found))


def found_terms(heads: Sequence[str], starts: list[int], findings: Iterable[Finding]) -> Floats:
    """1 where a finding of a head's category begins in a sentence, (n, h); ``starts`` of the sentences, in order."""
    places = {head: place for place, head in enumerate(heads)}
    found = np.zeros((len(starts), len(heads)), np.float32)
    for finding in findings:
        if starts and finding.category in places:
            found[sentence_at(starts, finding.start), places[finding.category]] = 1
    return found
