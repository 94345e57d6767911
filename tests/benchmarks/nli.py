"""The playbook `nda` against ContractNLI's questions: what the rules answer, with which evidence, beside two baselines.

Each agreement is judged by the playbook as a review judges it; ANSWERS says which rule answers which hypothesis. The
majority baseline says each hypothesis's most frequent class; the lexical one takes the piece of the text nearest to the
hypothesis by TF-IDF and, above a threshold, says the more frequent of entailment and contradiction. Class and threshold
are those of the hypothesis that are best on the other four fifths of the agreements. The words of the playbook were
chosen on the agreements at even places (`seen`); `unseen` are the others.

Evidence is measured on the pairs that have some: pieces are ranked, those within a deciding rule's spans first, then
by TF-IDF; one threshold runs over all pairs. `evidence_precision` and `evidence_recall` are those of the spans alone.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.playbooks import included_playbook
from services.texts import DocumentText, Page, Paragraph
from workers.analysis.rules import Judgement, judge
from workers.analysis.scan import scan

DATA = Path(__file__).parents[3] / "shared" / "data" / "nli" / "nli.json"
FOLDS = 5
ENTAILED, CONTRADICTED, SILENT = "Entailment", "Contradiction", "NotMentioned"
THRESHOLDS = [step / 100 for step in range(0, 100, 2)]

ANSWERS = {
    "nda-11": [("no_reverse_engineering", "met", ENTAILED)],
    "nda-16": [("return_at_the_end", "met", ENTAILED)],
    "nda-15": [("no_licence", "met", ENTAILED)],
    "nda-10": [("talks_are_secret", "met", ENTAILED)],
    "nda-2": [("technical_alone", "met", CONTRADICTED)],
    "nda-1": [("marking_waived", "met", CONTRADICTED), ("marking_needed", "breached", ENTAILED)],
    "nda-19": [("obligations_survive", "met", ENTAILED)],
    "nda-12": [("independent_development", "met", ENTAILED)],
    "nda-20": [("keeps_copies", "breached", ENTAILED), ("keeps_nothing", "met", CONTRADICTED)],
    "nda-3": [("spoken_counts", "met", ENTAILED)],
    "nda-18": [("no_solicitation", "breached", ENTAILED)],
    "nda-7": [("third_parties_may_know", "met", ENTAILED), ("third_parties_shut_out", "breached", CONTRADICTED)],
    "nda-17": [("copies_allowed", "met", ENTAILED), ("copies_excluded", "breached", CONTRADICTED)],
    "nda-8": [("notice_of_compulsion", "met", ENTAILED)],
    "nda-13": [("third_source_is_free", "met", ENTAILED)],
    "nda-5": [("employees_shut_out", "breached", CONTRADICTED), ("employees_may_know", "met", ENTAILED)],
    "nda-4": [("residuals", "breached", CONTRADICTED), ("use_is_limited", "met", ENTAILED)],
}
"""For each hypothesis the rules that answer it, the first whose outcome is the one named."""


@dataclass(frozen=True)
class Pair:
    """One agreement and one hypothesis; ``evidence`` and the rankings are over its pieces, ``nearness`` up to 1.

    ``ranks`` are ``nearness`` and 1 more for what a deciding span covers.
    """

    agreement: int
    hypothesis: str
    choice: str
    evidence: frozenset[int]
    answer: str
    ranks: tuple[float, ...]
    nearness: tuple[float, ...]


def main() -> int:
    """Print a table and one JSON line."""
    if not DATA.exists():
        print(f"the agreements are not at {DATA}")
        return 1
    source = json.loads(DATA.read_text(encoding="utf-8"))
    pairs = [pair for row, raw in enumerate(source["documents"]) for pair in _pairs(row, raw, source["labels"])]
    rules = [pair.answer for pair in pairs]
    majority, lexical = _baselines(pairs)
    for hypothesis, label in source["labels"].items():
        rows = [row for row, pair in enumerate(pairs) if pair.hypothesis == hypothesis]
        shown = [sum(answers[row] == pairs[row].choice for row in rows) for answers in (rules, majority, lexical)]
        title = f"{label['short_description']:46s} of {len(rows)}"
        print(f"{title}: rules {shown[0]}, majority {shown[1]}, lexical {shown[2]}")
    figures: dict[str, float] = {}
    for name, answers in (("rules", rules), ("majority", majority), ("lexical", lexical)):
        figures |= {f"{name}_{key}": value for key, value in _scores(pairs, answers).items()}
    for name, rest in (("seen", 0), ("unseen", 1)):
        part = [row for row, pair in enumerate(pairs) if pair.agreement % 2 == rest]
        scores = _scores([pairs[row] for row in part], [rules[row] for row in part])
        figures |= {f"rules_{key}_{name}": value for key, value in scores.items()}
    figures["rules_evidence_precision_at_80_recall"] = _precision_at([(p.ranks, p.evidence) for p in pairs])
    figures["lexical_evidence_precision_at_80_recall"] = _precision_at([(p.nearness, p.evidence) for p in pairs])
    said = sum(rank >= 1.0 for pair in pairs if pair.evidence for rank in pair.ranks)
    gold = sum(len(pair.evidence) for pair in pairs)
    right = sum(pair.ranks[row] >= 1.0 for pair in pairs for row in pair.evidence)
    figures |= {"rules_evidence_precision": round(right / said, 4), "rules_evidence_recall": round(right / gold, 4)}
    print(json.dumps(figures))
    return 0


def _pairs(row: int, raw: dict[str, Any], labels: dict[str, Any]) -> Iterable[Pair]:
    text: str = raw["text"]
    playbook = included_playbook("nda")
    document = DocumentText("txt", text, (Page(1, 0, len(text)),), (Paragraph(0, len(text)),))
    findings = scan(text, playbook, device="cpu").findings
    judged = {item.rule.id: item for item in judge(playbook, document, findings, present={})}
    pieces = [(start, end) for start, end in raw["spans"]]
    words = [Counter(_words(text[start:end])) for start, end in pieces]
    weights = _idf(words)
    for hypothesis, label in labels.items():
        annotation = raw["annotation_sets"][0]["annotations"][hypothesis]
        answer, deciding = SILENT, None
        for rule, outcome, choice in ANSWERS[hypothesis]:
            if judged[rule].outcome == outcome:
                answer, deciding = choice, judged[rule]
                break
        query = Counter(_words(label["hypothesis"]))
        nearness = tuple(_cosine(query, item, weights) for item in words)
        ranks = tuple(near + _covered(piece, deciding) for near, piece in zip(nearness, pieces, strict=True))
        yield Pair(row, hypothesis, annotation["choice"], frozenset(annotation["spans"]), answer, ranks, nearness)


def _covered(piece: tuple[int, int], judgement: Judgement | None) -> float:
    """1 where half of the shorter of the piece and a deciding span overlap."""
    for start, end in judgement.spans if judgement else ():
        overlap = min(end, piece[1]) - max(start, piece[0])
        if overlap > 0 and overlap * 2 >= min(end - start, piece[1] - piece[0]):
            return 1.0
    return 0.0


def _baselines(pairs: Sequence[Pair]) -> tuple[list[str], list[str]]:
    majority, lexical = [""] * len(pairs), [""] * len(pairs)
    for fold in range(FOLDS):
        for hypothesis in ANSWERS:
            rows = [row for row, pair in enumerate(pairs) if pair.hypothesis == hypothesis]
            rest = [pairs[row] for row in rows if pairs[row].agreement % FOLDS != fold]
            classes = Counter(pair.choice for pair in rest)
            said = max((ENTAILED, CONTRADICTED), key=lambda choice: classes[choice])
            right = {least: sum(pair.choice == _nearest(pair, least, said) for pair in rest) for least in THRESHOLDS}
            best = max(right, key=lambda least: right[least])
            for row in rows:
                if pairs[row].agreement % FOLDS == fold:
                    majority[row] = classes.most_common(1)[0][0]
                    lexical[row] = _nearest(pairs[row], best, said)
    return majority, lexical


def _nearest(pair: Pair, least: float, said: str) -> str:
    return said if max(pair.nearness, default=0.0) >= least else SILENT


def _scores(pairs: Sequence[Pair], answers: Sequence[str]) -> dict[str, float]:
    f1 = {choice: _f1(pairs, answers, choice) for choice in (ENTAILED, CONTRADICTED, SILENT)}
    right = sum(pair.choice == answer for pair, answer in zip(pairs, answers, strict=True))
    return {
        "macro_f1": round(sum(f1.values()) / 3, 4),
        "entailment_f1": round(f1[ENTAILED], 4),
        "contradiction_f1": round(f1[CONTRADICTED], 4),
        "accuracy": round(right / len(pairs), 4),
    }


def _f1(pairs: Sequence[Pair], answers: Sequence[str], choice: str) -> float:
    both = [(pair.choice == choice, answer == choice) for pair, answer in zip(pairs, answers, strict=True)]
    right = sum(gold and said for gold, said in both)
    return 2 * right / total if (total := sum(gold + said for gold, said in both)) else 0.0


def _precision_at(ranked: Sequence[tuple[tuple[float, ...], frozenset[int]]], recall: float = 0.8) -> float:
    """Precision over the pieces of all pairs with evidence at the threshold that first finds ``recall`` of it."""
    pieces = [(rank, row in evidence) for ranks, evidence in ranked if evidence for row, rank in enumerate(ranks)]
    pieces.sort(key=lambda piece: -piece[0])
    wanted = recall * sum(gold for _, gold in pieces)
    found = 0
    for count, (_, gold) in enumerate(pieces, start=1):
        found += gold
        if found >= wanted:
            return round(found / count, 4)
    return 0.0


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]{2,}", text.lower())


def _idf(pieces: Sequence[Counter[str]]) -> dict[str, float]:
    found = Counter(word for piece in pieces for word in piece)
    return {word: math.log((1 + len(pieces)) / (1 + count)) + 1 for word, count in found.items()}


def _cosine(query: Counter[str], piece: Counter[str], weights: dict[str, float]) -> float:
    def length(words: Counter[str]) -> float:
        return math.sqrt(sum((count * weights.get(word, 0.0)) ** 2 for word, count in words.items()))

    product = sum(query[word] * piece[word] * weights.get(word, 0.0) ** 2 for word in query)
    return product / norm if (norm := length(query) * length(piece)) else 0.0


if __name__ == "__main__":
    sys.exit(main())
