"""Finds personal data in a text: first what rules recognise by its form, then names and addresses by the tagger.

Both work on the folded text, which has the original's length, so every offset is one of the original text.
"""

from __future__ import annotations

from workers.analysis.sensitive.datum import DataType, Datum
from workers.analysis.sensitive.defined import defined_terms
from workers.analysis.sensitive.features import flags_of
from workers.analysis.sensitive.folding import fold
from workers.analysis.sensitive.structured import structured
from workers.analysis.sensitive.tagger import Weights, tag
from workers.analysis.sensitive.tokens import tokenize
from workers.analysis.stretches import Check, unchecked

_LEAST = 0.4
"""A name or an address of less score is not reported."""
_LONGEST = 200


def find_personal_data(text: str, weights: Weights | None = None, check: Check = unchecked) -> list[Datum]:
    """Personal data in ``text``, in order of place, none overlapping; ``weights`` other than those that come along.

    ``check`` is called for each stretch of text and of tokens, and may raise to stop.
    """
    plain = fold(text)
    sure = structured(plain, check)
    own = defined_terms(plain, check)
    tagged = tag(tokenize(plain, sure, check), weights, check)
    named = [datum for datum in tagged if _is_one(datum, plain[datum.start : datum.end], own)]
    return sorted([*sure, *named], key=lambda datum: datum.start)


def _is_one(datum: Datum, words: str, own: frozenset[str]) -> bool:
    if datum.score < _LEAST or len(words) > _LONGEST:
        return False
    if words.lower() in own:  # "Smith" may be defined and is a person's name all the same
        return datum.type is DataType.PERSON and "s" in flags_of(words.lower().split()[-1])
    return True
