"""Task ``compare``: what has become of each clause between two versions of a document, down to the words."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from services.texts import DocumentText
from workers.analysis.alignment import align
from workers.analysis.stretches import watched
from workers.analysis.word_diff import Token, WordChange, tokens, word_changes
from workers.execution import Execution
from workers.tasks.extract import read_text
from workers.tasks.report import NOTICE
from workers.toolbox import Toolbox

KINDS: Final = ("unchanged", "changed", "moved", "added", "removed")
# A clause is put together again up to this length.
MAX_CHARS: Final = 20_000
_LINE_END = re.compile(r"[\n\r\f\u2028\u2029]")


def compare(toolbox: Toolbox, execution: Execution) -> dict[str, Any]:
    """Counts of each kind, and every clause that is not as it was, in the order of the later version."""
    claim, body, started = execution.claim, toolbox.input(execution.claim), time.monotonic()
    versions = [read_text(toolbox, execution, body[side])[0] for side in ("before", "after")]
    documents = [toolbox.documents.get(claim.tenant, body[side]) for side in ("before", "after")]
    changes, counts = differences(versions[0], versions[1], execution.check)
    return {
        "before": {"id": documents[0].id, "name": documents[0].name, "pages": len(versions[0].pages)},
        "after": {"id": documents[1].id, "name": documents[1].name, "pages": len(versions[1].pages)},
        "documents": list(dict.fromkeys(document.id for document in documents)),
        "counts": counts,
        "changes": changes,
        "seconds": round(time.monotonic() - started, 4),
        "notice": NOTICE,
    }


def differences(
    before: DocumentText, after: DocumentText, check: Callable[[], None]
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The changes of two texts as the result shows them, and how many clauses are of each kind."""
    old = [tokens(before.text, *span) for span in watched(clauses(before), check)]
    new = [tokens(after.text, *span) for span in watched(clauses(after), check)]
    pairs = align([_words(clause) for clause in old], [_words(clause) for clause in new], check)
    counts: Counter[str] = Counter()
    # Each change by the clause of the later version that it is or, if it was removed, that it would follow.
    placed: list[tuple[int, int, dict[str, Any]]] = []
    for pair in pairs:
        check()
        kind = "moved" if pair.moved else "unchanged" if pair.likeness == 1.0 else "changed"
        counts[kind] += 1
        if kind != "unchanged":
            one, other = old[pair.before], new[pair.after]
            change: dict[str, Any] = {
                "kind": kind,
                "before": _place(before, one),
                "after": _place(after, other),
                "likeness": round(pair.likeness, 4),
                "words": [_described(change) for change in word_changes(one, other)],
            }
            placed.append((pair.after, 0, change))
    for number in sorted(set(range(len(new))) - {pair.after for pair in pairs}):
        counts["added"] += 1
        placed.append((number, 0, {"kind": "added", "before": None, "after": _place(after, new[number])}))
    kept = {pair.before: pair.after for pair in pairs if not pair.moved}
    gone = set(range(len(old))) - {pair.before for pair in pairs}
    follows = -1
    for number, clause in enumerate(old):
        follows = kept.get(number, follows)
        if number in gone:
            counts["removed"] += 1
            placed.append((follows, number + 1, {"kind": "removed", "before": _place(before, clause), "after": None}))
    placed.sort(key=lambda item: item[:2])
    return [change for _, _, change in placed], {kind: counts[kind] for kind in KINDS}


def clauses(document: DocumentText) -> list[tuple[int, int]]:
    """The document's paragraphs; parts of a long one, which the reader cut within a line, are one clause again."""
    found: list[tuple[int, int]] = []
    for paragraph in document.paragraphs:
        if found and paragraph.end - found[-1][0] <= MAX_CHARS:
            gap = document.text[found[-1][1] : paragraph.start]
            if not _LINE_END.search(gap):
                found[-1] = (found[-1][0], paragraph.end)
                continue
        found.append((paragraph.start, paragraph.end))
    return found


def _words(clause: list[Token]) -> tuple[str, ...]:
    return tuple(token.text for token in clause)


def _place(document: DocumentText, clause: list[Token]) -> dict[str, Any]:
    start, end = clause[0].start, clause[-1].end
    return {"start": start, "end": end, "page": document.page_at(start), "text": document.text[start:end]}


def _described(change: WordChange) -> dict[str, Any]:
    return {"kind": change.kind, "before": list(change.before), "after": list(change.after)}
