"""Telephone numbers: digits in a telephone's grouping that phonenumbers takes for a number someone can have."""

from __future__ import annotations

import re
from collections.abc import Iterator

import phonenumbers

from workers.analysis.sensitive.datum import NEAR, DataType, Datum
from workers.analysis.stretches import Check, matches

_CANDIDATE = re.compile(
    r"(?<![\w.$€£#/+-])(?<!\d[ ,])(?:\+ ?|00(?=\d))?(?:\(\+?\d{1,5}\)|\d{1,15})(?:(?:[ .]|-| - |[ .-]?(?=\()|(?<=\))|/)"
    r"(?:\(\d{1,4}\)|\d{1,10})){0,7}+(?: ?(?:x|ext\.?|extension) ?\d{1,6})?(?![\w%/]|[.,:-]\d| \d)",
    re.IGNORECASE,
)
_WORD = re.compile(
    r"\b(?:(?:tele)?(?:phone|fax)|tel|mobile|cell(?:ular|phone)?|call(?:ing)?|dial|desk|direct|hotline|pager|"
    r"answering|reach(?:ed)?|sms|whatsapp|facsimile|voicemail|contact number|text me|messages)\b",
    re.IGNORECASE,
)
_BEHIND = re.compile(r"[ \t,(-]{0,3}(?:office|fax|mobile|cell|home|work|direct|phone|tel)\b", re.IGNORECASE)
_DATE = re.compile(
    r"(?:\d{4}[-./ ]\d{1,2}[-./ ]\d{1,2}|\d{1,2}[-./ ]\d{1,2}[-./ ](?:19|20)\d\d|(?:19|20)\d\d ?- ?(?:19|20)\d\d)$"
)
# A number without a country is tried as one of these, those of most documents first.
REGIONS = (
    "US",
    "GB",
    "DE",
    "FR",
    "AU",
    "CH",
    "AT",
    "IT",
    "ES",
    "NL",
    "BE",
    "DK",
    "SE",
    "NO",
    "FI",
    "PL",
    "CZ",
    "HU",
    "IE",
    "NZ",
    "ZA",
)


def phone_numbers(text: str, check: Check) -> Iterator[Datum]:
    """Numbers with a country code, of a valid number's grouping, or after a word that says what they are."""
    for match in matches(_CANDIDATE, text, check):
        number = match[0]
        digits = sum(map(str.isdigit, number))
        if not 7 <= digits <= 20 or _DATE.match(number):
            continue
        start, end = match.span()
        named = None
        for found in _WORD.finditer(text, max(0, start - NEAR), start):
            named = found
        named = named or _BEHIND.match(text, end, end + 12)
        if number.isdigit() and named is None:
            continue
        if _possible(number, named is not None):
            why = f"a telephone number, by “{named[0].strip(' ,(-')}”" if named else "a valid telephone number"
            yield Datum(DataType.PHONE_NUMBER, start, end, 0.95 if named else 0.75, why)


def _possible(number: str, named: bool) -> bool:
    if number.startswith("+") or number.startswith("00"):
        return _parses("+" + number.lstrip("+0 ") if number.startswith("00") else number, None, named)
    if named:
        return True
    groups = re.findall(r"\d+", number)
    # One number grouped as telephones are: at least two digits a group, a trunk 0, an area in parentheses or US form.
    shaped = re.match(r"0\d|\(\d{2,4}\)|1?[ .-]?\d{3}[ .-]\d{3}[ .-]\d{4}", number) and all(
        len(group) > 1 or group == "1" for group in groups
    )
    return bool(shaped) and any(_parses(number, region, named) for region in REGIONS)


def _parses(number: str, region: str | None, named: bool) -> bool:
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return named
    return phonenumbers.is_valid_number(parsed) or (named and phonenumbers.is_possible_number(parsed))
