"""Addresses of the network: e-mail, web, IP."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from workers.analysis.sensitive.datum import DataType, Datum
from workers.analysis.stretches import Check, matches

_EMAIL = re.compile(r"(?<![\w.+%'-])[\w.+%'-]{1,64}+@(?:[\w-]{1,63}+\.){1,8}[^\W\d_]{2,24}(?![\w-])")
_URL = re.compile(r"\b(?:(?:https?|ftp)://|www\d?\.)(?=[^\s/])[^\s<>\"“”|{}]{3,2000}", re.IGNORECASE)
_TLDS = (
    "com|org|net|edu|gov|mil|int|info|biz|io|co|ai|app|dev|law|legal|eu|us|uk|ca|au|nz|de|at|ch|fr|es|it|pt|nl|be|lu|"
    "dk|se|no|fi|is|pl|cz|sk|hu|ro|bg|gr|ie|ee|lv|lt|hr|si|rs|ru|ua|tr|il|in|cn|jp|kr|sg|hk|br|mx|ar|cl|za"
)
_DOMAIN = re.compile(rf"(?<![\w.@/-])(?:[\w-]{{1,63}}+\.){{1,5}}(?:{_TLDS})(?![\w@-]|\.\w)", re.IGNORECASE)
_V4 = re.compile(r"(?<![\w.,-])\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|[.,]\d)")
_V6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:)[0-9A-Fa-f:.]{2,45}+(?![\w:])")
_NETWORK_WORDS = re.compile(r"\b(?:ip|address|host|server|client|network|subnet|gateway|dns)", re.IGNORECASE)
_SECTION = re.compile(
    r"(?:\b(?:section|sections|clause|article|paragraph|schedule|exhibit|version|v|and|or)\s*|§\s*|(?:^|\n)\s*)$",
    re.IGNORECASE,
)


def emails(text: str, check: Check) -> Iterator[Datum]:
    """E-mail addresses (the common form of RFC 5321, letters of any script)."""
    if "@" not in text:
        return
    for match in matches(_EMAIL, text, check):
        start = match.start() + len(match[0]) - len(match[0].lstrip("'.-"))
        yield Datum(DataType.EMAIL_ADDRESS, start, match.end(), 0.99, "form of an e-mail address")


def domains(text: str, check: Check) -> Iterator[Datum]:
    """Web addresses with a scheme or ``www``, and bare names under a common top-level domain."""
    for match in matches(_URL, text, check):
        kept = match[0].rstrip(".,;:!?'\"”’*")
        kept = kept.rstrip(")]") if "(" not in kept and "[" not in kept else kept
        if "." in kept:
            yield Datum(DataType.DOMAIN_NAME, match.start(), match.start() + len(kept), 0.95, "form of a web address")
    for match in matches(_DOMAIN, text, check):
        stem = match[0].rpartition(".")[0]
        # "end.It" and "No.in" are sentences without a blank.
        if len(stem) > 2 and (match[0].islower() or match[0].lower().endswith((".com", ".org", ".net"))):
            yield Datum(DataType.DOMAIN_NAME, *match.span(), 0.8, "form of a domain name")


def ip_addresses(text: str, check: Check) -> Iterator[Datum]:
    """IPv4 and IPv6 addresses; numbers of sections in four parts are none."""
    for match in matches(_V4, text, check):
        before = text[max(0, match.start() - 40) : match.start()]
        named = _NETWORK_WORDS.search(before)
        small = all(int(part) < 32 for part in match[0].split("."))
        if _is_address(match[0]) and (named or not (small or _SECTION.search(before))):
            yield Datum(DataType.IP_ADDRESS, *match.span(), 0.95 if named else 0.8, "form of an IPv4 address")
    if text.count(":") < 2:
        return
    for match in matches(_V6, text, check):
        if sum(map(bool, match[0].split(":"))) > 1 and _is_address(match[0].rstrip(".")):
            end = match.start() + len(match[0].rstrip("."))
            yield Datum(DataType.IP_ADDRESS, match.start(), end, 0.9, "form of an IPv6 address")


def _is_address(form: str) -> bool:
    try:
        ipaddress.ip_address(form)
    except ValueError:
        return False
    return True
