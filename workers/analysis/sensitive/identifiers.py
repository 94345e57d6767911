"""Numbers that carry their own proof or a fixed form: payment cards, IBAN, US social security numbers, licences."""

from __future__ import annotations

import re
from collections.abc import Iterator

from workers.analysis.sensitive.datum import NEAR, DataType, Datum
from workers.analysis.stretches import Check, matches

_CARD = re.compile(
    r"(?<![\w.,$€£-])(?:\d{12,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5})(?![\w-]|[.,]\d)"
)
# ISO 7812 ranges: first digits, and how many digits such a number has.
_ISSUERS = (
    ("American Express", re.compile(r"3[47]"), {15}),
    ("Diners Club", re.compile(r"30[0-5]|3[689]"), {14, 16}),
    ("JCB", re.compile(r"35(?:2[89]|[3-8])|2131|1800"), {15, 16}),
    ("Visa", re.compile(r"4"), {13, 16, 19}),
    ("Mastercard", re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), {16}),
    ("Discover", re.compile(r"6011|64[4-9]|65"), {16, 19}),
    ("UnionPay", re.compile(r"62"), {16, 17, 18, 19}),
    ("Maestro", re.compile(r"50|5[6-9]|6[0-9]"), set(range(12, 20))),
)
_CARD_WORDS = re.compile(r"\b(?:card|credit|debit|cc|visa|mastercard|amex)\b", re.IGNORECASE)
_IBAN = re.compile(r"(?<!\w)[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]){11,30}(?![A-Za-z0-9])")
# ISO 13616: length of an IBAN by country.
_IBAN_COUNTRIES = {
    15: "NO", 16: "BE", 18: "DK FO FI GL NL FK SD", 19: "MK SI", 20: "AT BA EE KZ LT LU XK MN", 21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM TL SO", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST", 26: "IS TR", 27: "FR GR IT MC MR SM BI DJ", 28: "AL AZ BY CY DO GT HU LB NI PL SV",
    29: "BR EG PS QA UA",    30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
}  # fmt: skip
_IBAN_LENGTHS = {country: length for length, countries in _IBAN_COUNTRIES.items() for country in countries.split()}
_SSN = re.compile(r"(?<![\w.-])(\d{3})([ -]?)(\d{2})\2(\d{4})(?![\w-]|\.\d)")
_SSN_WORDS = re.compile(r"\b(?:ssn|social security|tin)\b", re.IGNORECASE)
_LICENCE = re.compile(
    r"(?:\bdriver'?s?'? licen[sc]e|\bdriving licen[sc]e|\bdl ?(?:no|number|#))(?![^\n]{0,40}\b(?:agreement|office)\b)"
    r"[^\n\d]{0,40}?\b(?=[A-Z0-9-]{0,19}\d)([A-Z0-9](?:-?[A-Z0-9]){5,18})\b",
    re.IGNORECASE,
)


def cards(text: str, check: Check) -> Iterator[Datum]:
    """Payment cards: Luhn's check digit, and a known issuer's range and length or a word that says card."""
    for match in matches(_CARD, text, check):
        digits = re.sub(r"\D", "", match[0])
        issuer = next((name for name, form, sizes in _ISSUERS if form.match(digits) and len(digits) in sizes), None)
        named = _CARD_WORDS.search(text, max(0, match.start() - NEAR), match.start())
        if (issuer or named) and luhn(digits):
            why = f"{issuer or 'card'} number with a right check digit (Luhn)"
            yield Datum(DataType.CREDIT_CARD, *match.span(), 0.95 if issuer else 0.8, why)


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of those before it (ISO 7812)."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def ibans(text: str, check: Check) -> Iterator[Datum]:
    """IBAN: a country of ISO 13616, its length, and the remainder 1 modulo 97."""
    for match in matches(_IBAN, text, check):
        size = _IBAN_LENGTHS.get(match[0][:2].upper(), 0)
        # What follows an IBAN after a blank may look like a part of it: the country's length decides.
        place, count = match.start(), 0
        while count < size and place < match.end():
            count += text[place] != " "
            place += 1
        if (
            size
            and count == size
            and not text[place : place + 1].isalnum()
            and iban_is_valid(text[match.start() : place])
        ):
            yield Datum(
                DataType.IBAN_CODE, match.start(), place, 0.99, "IBAN with its country's length and right check digits"
            )


def iban_is_valid(iban: str) -> bool:
    """Whether the check digits are right (ISO 7064, MOD 97-10)."""
    plain = iban.replace(" ", "").upper()
    return int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1


def social_security_numbers(text: str, check: Check) -> Iterator[Datum]:
    """US numbers that can have been issued; those without hyphens only where a word says what they are."""
    for match in matches(_SSN, text, check):
        area, mark, group, serial = match.groups()
        if area in ("000", "666") or area[0] == "9" or group == "00" or serial == "0000":
            continue
        named = _SSN_WORDS.search(text, max(0, match.start() - NEAR), match.start())
        if named or mark == "-":
            why = f"form of a US social security number{f', after “{named[0]}”' if named else ''}"
            yield Datum(DataType.US_SSN, *match.span(), 0.95 if named else 0.8, why)


def driver_licences(text: str, check: Check) -> Iterator[Datum]:
    """US driver's licences: every state has another form, so only where the words stand before."""
    for match in matches(_LICENCE, text, check):
        yield Datum(DataType.US_DRIVER_LICENSE, *match.span(1), 0.8, "number after the words driver's licence")
