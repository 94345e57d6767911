"""No cache of a worker's process holds words of a document when its analysis is over, let alone after its erasure."""

from __future__ import annotations

import functools
import gc

from services.playbooks import default_playbook
from services.texts import DocumentText, Page
from workers.analysis.bm25 import Words
from workers.analysis.clause_heads.logits import lexical_logits
from workers.analysis.clause_heads.weights import shipped
from workers.analysis.minhash import sketches
from workers.analysis.quantities import quantities
from workers.analysis.rules import judge
from workers.analysis.scan import scan
from workers.analysis.sensitive.personal import find_personal_data
from workers.analysis.sensitive.privilege import find_privilege
from workers.analysis.sentences import find_sentences
from workers.documents.assembly import find_paragraphs
from workers.tasks.compare import differences

NAME = "Zorblattsecret"
TEXT = (
    f"From: {NAME}@{NAME}law.com\n\nPrivileged. The tenant, {NAME} {NAME}son, pays {NAME} 12 (twelve) months after\n"
    f"notice. “{NAME}” means https://{NAME}.com, card 4111 1111 1111 1111, tel. +44 20 7946 0958. We are liable."
)


def cached() -> list[str]:
    """The arguments that functions decorated with a cache of :mod:`functools` hold, whatever module has them."""
    caches = [one for one in gc.get_objects() if type(one) is functools._lru_cache_wrapper]
    assert caches
    return [repr(key) for one in caches for held in gc.get_referents(one) if isinstance(held, dict) for key in held]


def test_no_cache_keeps_words_of_a_document() -> None:
    document = DocumentText("txt", TEXT, (Page(1, 0, len(TEXT)),), ())
    playbook, spans = default_playbook(), find_sentences(document)
    findings = scan(TEXT, playbook, device="cpu").findings
    assert find_personal_data(TEXT)
    assert find_privilege(TEXT)
    assert quantities(TEXT)
    assert find_paragraphs(TEXT)
    judge(playbook, document, findings, present={})
    lexical_logits(shipped(), [TEXT[start:end] for start, end in spans])
    sketches([TEXT])
    Words.of(TEXT, spans, lambda: None)
    differences(document, DocumentText("txt", TEXT + " More.", (Page(1, 0, len(TEXT) + 6),), ()), lambda: None)
    assert [key for key in cached() if NAME.lower() in key.lower()] == []
