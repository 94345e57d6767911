"""The terms that a paper defines for itself, such as (the "Licensee"): written like names, they name nobody."""

from __future__ import annotations

import re

from workers.analysis.stretches import Check, matches, unchecked

_DEFINED = re.compile(r"[(,] ?(?:[\w' -]{0,30}, )?[\w' -]{0,30}[\"“]([^\"”\n]{2,60})[,.]?[\"”]")
_MEANS = re.compile(r"[\"“]([^\"”\n]{2,60})[\"”] (?:shall |will )?(?:have the meaning|means?|refers?|includes?)\b")


def defined_terms(text: str, check: Check = unchecked) -> frozenset[str]:
    """The terms in small letters, each with its plural and its single words."""
    terms = {match[1].lower() for form in (_DEFINED, _MEANS) for match in matches(form, text, check)}
    return frozenset(terms | {f"{term}s" for term in terms})
