"""All that a rule can recognise by its form: runs the finders and settles which one a place belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterator

from workers.analysis.sensitive.datum import DataType, Datum, apart
from workers.analysis.sensitive.identifiers import cards, driver_licences, ibans, social_security_numbers
from workers.analysis.sensitive.network import domains, emails, ip_addresses
from workers.analysis.sensitive.phones import phone_numbers
from workers.analysis.sensitive.times import ages, dates
from workers.analysis.stretches import Check, matches, unchecked

# The surest first: a place belongs to the first that claims it.
_FINDERS = (
    emails,
    domains,
    ibans,
    driver_licences,
    cards,
    social_security_numbers,
    ip_addresses,
    dates,
    phone_numbers,
    ages,
)
_ZIP = re.compile(
    r"\b(?:zip|postal|post)[ -]?(?:code)?(?: number| no\.?)?(?: is|:)?[ \t]{1,4}"
    r"([A-Z]{0,2}-?\d[\dA-Z]{1,4}(?:[ -]\d[\dA-Z]{1,3})?)\b",
    re.IGNORECASE,
)


def structured(text: str, check: Check = unchecked) -> list[Datum]:
    """What the rules find in ``text`` (folded), in order of place, none overlapping."""
    found = (datum for finder in (*_FINDERS, postal_codes) for datum in finder(text, check))
    return apart(len(text), found)


def postal_codes(text: str, check: Check) -> Iterator[Datum]:
    """Codes after a word that says so."""
    for match in matches(_ZIP, text, check):
        yield Datum(DataType.ZIP_CODE, *match.span(1), 0.9, "after a word for postal code")
