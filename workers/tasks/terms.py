"""Step ``terms``: governing law and parties by a language model, each answer held to a quote that stands in the text.

The document's text stands in the prompt as data between marks; what the model answers counts only where the very words
are found in the passage it was given. Everything else is kept apart as unsupported.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from services.errors import ModelError
from services.findings import Finding
from services.texts import DocumentText
from workers.engines.base import GenerationEngine, Sampling
from workers.execution import Execution, Stopped
from workers.tasks.generate import model_stamp
from workers.tasks.scan import findings_of
from workers.toolbox import Toolbox

# Raise when prompts, passages or schemas change.
VERSION = "3"
LAW_CHARS = 400
PARTIES_CHARS = 700
GOVERNING_LAW = "governing_law"
_LAWS_OF = re.compile(r"\blaws?\s+of\b", re.IGNORECASE)

_TEXT: dict[str, Any] = {"type": "string", "minLength": 2, "maxLength": 120}
_SCHEMAS: dict[str, dict[str, Any]] = {
    "governing_law": _TEXT,
    "parties": {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 4},
}

# The examples are ours; they show a base model the form of the answer.
_EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "governing_law": (
        (
            "14.2 This Deed and any dispute arising from it shall be governed by the laws of the Republic of Ireland, "
            "and the parties submit to the courts of Dublin.",
            '"Ireland"',
        ),
        (
            "Section 9. Applicable law. The rights of the parties are construed under the law of the State of Ohio "
            "without regard to its rules on conflicts.",
            '"Ohio"',
        ),
        ("20. Governing Law. This Lease is governed by the laws of Denmark.", '"Denmark"'),
    ),
    "parties": (
        (
            "THIS LEASE is made on 4 May 2011 between Harbour Lane Estates Ltd, the landlord, and Maria Quist, tenant.",
            '["Harbour Lane Estates Ltd", "Maria Quist"]',
        ),
        (
            'This Supply Agreement ("Agreement") is entered into by Orvik Foods GmbH ("Supplier") and Tallow & Reed, '
            'Inc. ("Buyer") as of 1 March 2019.',
            '["Orvik Foods GmbH", "Tallow & Reed, Inc."]',
        ),
    ),
}
_QUESTIONS = {
    "governing_law": "The law of which place governs?",
    "parties": "What are the names of the parties?",
}


@dataclass(frozen=True, slots=True)
class Passage:
    """Part of the text that a question is asked about."""

    start: int
    text: str


def extract_terms(toolbox: Toolbox, execution: Execution) -> dict[str, Any]:
    """Ask for each term; the output is a list of terms with quotes, offsets and whether they are supported."""
    claim = execution.claim
    engine = execution.use(toolbox.engines.lease_generation(str(claim.model), tick=execution.check))
    document = toolbox.text(claim)
    findings = findings_of(toolbox, claim)

    def run() -> bytes:
        terms: list[dict[str, Any]] = []
        for term, passage in passages(document, findings).items():
            execution.progress(step="terms", term=term)
            answers = [verify(document, term, quote, passage) for quote in ask(engine, execution, term, passage)]
            # A small model that has no answer repeats an example; such names belong to no document.
            terms += [answer for answer in answers if answer["supported"] or not copied(term, answer["quote"])]
        return json.dumps(terms).encode()

    scan_version = toolbox.step(claim, "scan")["playbook_version"]
    version = f"{VERSION}:{engine.model.sha256}:{scan_version}"
    step = toolbox.derive(claim, "terms", version, run)
    return step | {"model": model_stamp(engine.model)}


def passages(document: DocumentText, findings: list[Finding]) -> dict[str, Passage]:
    """The passage of each question: around the first finding of governing law; the beginning for the parties."""
    found: dict[str, Passage] = {}
    laws = [finding for finding in findings if finding.category == GOVERNING_LAW]
    if laws:
        # The clause itself rather than its heading or an entry in the contents.
        best = max(laws, key=lambda law: bool(_LAWS_OF.search(document.text, law.start, law.start + LAW_CHARS)))
        start = max(0, best.start - LAW_CHARS // 6)
        found["governing_law"] = Passage(start, document.text[start : start + LAW_CHARS])
    if document.text.strip():
        found["parties"] = Passage(0, document.text[:PARTIES_CHARS])
    return found


def ask(engine: GenerationEngine, execution: Execution, term: str, passage: Passage) -> list[str]:
    """The model's quotes for a term, by a few-shot prompt under a JSON schema."""
    schema = {
        "type": "object",
        "properties": {"answer": _SCHEMAS[term]},
        "required": ["answer"],
        "additionalProperties": False,
    }
    sampling = Sampling(max_tokens=160, json_schema=schema)
    generation = engine.generate(
        prompt_for(term, passage),
        sampling,
        priority=execution.claim.priority.rank,
        scope=execution.claim.tenant,
        cancelled=execution.stopped,
        tick=execution.tick,
    )
    if generation.finish_reason == "cancelled":
        raise Stopped
    try:
        answer: str | list[str] = json.loads(generation.text)["answer"]
    except (ValueError, KeyError):
        if generation.finish_reason == "length":
            return []  # the model rambled past the limit: it gave no answer
        raise ModelError(f"{engine.model.name} broke the JSON schema", code="schema_broken") from None
    quotes = [answer] if isinstance(answer, str) else answer
    return list(dict.fromkeys(quotes))


def prompt_for(term: str, passage: Passage) -> str:
    """Examples, passage and question; each text is one line, so that a passage cannot pose as another part."""
    question = f"Question: {_QUESTIONS[term]}"
    blocks = [f'Text: {example}\n{question}\n{{"answer": {answer}}}' for example, answer in _EXAMPLES[term]]
    blocks.append(f"Text: {' '.join(passage.text.split())}\n{question}\n")
    return "\n\n".join(blocks)


def copied(term: str, quote: str) -> bool:
    """Whether an answer stands in the prompt's own examples."""
    return any(quote in example for example, _ in _EXAMPLES[term])


def verify(document: DocumentText, term: str, quote: str, passage: Passage) -> dict[str, Any]:
    """The quote with its offsets where it stands verbatim in the passage, any white space counting as one blank."""
    words = r"\s+".join(re.escape(word) for word in quote.split())
    found = re.search(words, passage.text) if words else None
    if not found:
        return {"term": term, "quote": quote, "supported": False, "start": None, "end": None, "page": None}
    start, end = passage.start + found.start(), passage.start + found.end()
    return {
        "term": term,
        "quote": document.text[start:end],
        "supported": True,
        "start": start,
        "end": end,
        "page": document.page_at(start),
    }
