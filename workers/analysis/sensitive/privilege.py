"""Signs that a text may be privileged: what it says of itself, counsel in it, and lawyers among a message's addresses.

The phrases are a playbook of their own (``privilege.yaml``), found by the same scan. Screening: a sign asks for a
lawyer's look and decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

from services.playbooks import Playbook, load_playbook
from workers.analysis.scan import scan
from workers.analysis.sensitive.datum import apart
from workers.analysis.stretches import Check, matches, unchecked, watched


@dataclass(frozen=True, slots=True)
class Sign:
    """``text[start:end]`` in code points of the original text, how strong a sign it is (0 to 1), and why it is one."""

    start: int
    end: int
    score: float
    why: str


_HEADER = re.compile(r"^[> \t]{0,8}(?:from|to|cc|bcc|reply-to|sender):[^\n]{1,4000}", re.IGNORECASE | re.MULTILINE)
_ADDRESS = re.compile(r"(?<![\w.+%'-])[\w.+%'-]{1,64}+@([\w.-]{1,255}+)")
_LAW_FIRM = re.compile(
    r"(?:law|legal|lawyers?|lawfirm|attorneys?|advocates?|solicitors?|barristers?|counsel|llp|avocats?|rechtsanwaelte|"
    r"anwaelte|abogados?|kanzlei)$",
    re.IGNORECASE,
)


@cache
def _phrases() -> Playbook:
    return load_playbook(resources.files("workers.analysis.sensitive").joinpath("privilege.yaml").read_bytes())


def find_privilege(text: str, check: Check = unchecked) -> list[Sign]:
    """Signs of privilege in ``text``, in order of place; of overlapping ones the strongest.

    ``check`` is called for each stretch of text, and may raise to stop.
    """
    found = [*_in_words(text, check), *_law_firms(text, check)]
    return apart(len(text), sorted(found, key=lambda sign: -sign.score))


def _in_words(text: str, check: Check) -> Iterator[Sign]:
    signs = {category.id: category for category in _phrases().categories}
    for finding in watched(scan(text, _phrases(), device="cpu", check=check).findings, check):
        # In a sentence ("without prejudice to other rights") the words are no heading.
        if finding.category != "heading" or _alone_in_line(text, finding.start, finding.end):
            yield Sign(finding.start, finding.end, signs[finding.category].weight, signs[finding.category].title)


def _alone_in_line(text: str, start: int, end: int, reach: int = 40) -> bool:
    before, after = text[max(0, start - reach) : start], text[end : end + reach]
    line = before.rpartition("\n")[2] + after.partition("\n")[0]
    return not any(map(str.isalnum, line))


def _law_firms(text: str, check: Check) -> Iterator[Sign]:
    for header in matches(_HEADER, text, check):
        for address in _ADDRESS.finditer(text, *header.span()):
            if any(map(_LAW_FIRM.search, address[1].rstrip(".").split("."))):
                yield Sign(*address.span(), 0.7, "an address of a law firm in a message's header")
