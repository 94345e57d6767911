"""Amounts in a text: numbers in digits or words with a unit of time or per cent, at exact offsets, for rules of limits.

Read are ``30 days``, ``thirty (30) days``, ``30 (thirty) days``, ``thirty-day``, ``one hundred and twenty days``,
``24 months'``, ``ten business days``, ``8.5%``, ``30 to 60 days``; in German too: ``30 Tage``, ``drei Monate``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from services.rules import UNITS, Amount, Unit

# fmt: off
_ENGLISH: Final = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17,
    "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70,
    "eighty": 80, "ninety": 90,
}
_GERMAN: Final = {
    "ein": 1, "eine": 1, "einem": 1, "einen": 1, "einer": 1, "eines": 1, "zwei": 2, "drei": 3, "vier": 4, "fünf": 5,
    "sechs": 6, "sieben": 7, "acht": 8, "neun": 9, "zehn": 10, "elf": 11, "zwölf": 12, "vierzehn": 14, "fünfzehn": 15,
    "achtzehn": 18, "zwanzig": 20, "vierundzwanzig": 24, "dreißig": 30, "vierzig": 40, "fünfzig": 50, "sechzig": 60,
    "siebzig": 70, "achtzig": 80, "neunzig": 90,
}
# fmt: on
_SIMPLE: Final = _ENGLISH | _GERMAN
_WORD: Final = "|".join(sorted([*_SIMPLE, "hundred", "thousand"], key=len, reverse=True))
_WORDS: Final = rf"(?:{_WORD})(?:(?:[\s-]+|\s+and\s+)(?:{_WORD})){{0,8}}"
_DIGITS: Final = r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,6}(?:[.,][0-9]{1,4})?"
_UNITS: Final[dict[Unit, str]] = {
    "business days": r"(?:business|working|banking)[\s-]+days?|(?:Werk|Arbeits|Geschäfts|Bankarbeits)tage?n?s?",
    "hours": r"hours?|Stunden?",
    "days": r"(?:calendar[\s-]+|consecutive[\s-]+)?days?|(?:Kalender)?tage?n?s?",
    "weeks": r"(?:calendar[\s-]+)?weeks?|Wochen?",
    "months": r"(?:calendar[\s-]+)?months?|(?:Kalender)?monate?[ns]?",
    "years": r"(?:calendar[\s-]+|contract[\s-]+)?years?|(?:Kalender)?jahre?[ns]?",
    "percent": r"%|per\s?cent\b|Prozent",
}
_UNIT: Final = "|".join(f"(?P<{unit.replace(' ', '_')}>{source})" for unit, source in _UNITS.items())
_ONE: Final = rf"(?:{_DIGITS}|{_WORDS})"
_AMOUNT: Final = re.compile(
    rf"(?<![\w.,])(?:(?P<from>{_ONE})(?:\s*\([^()]{{1,40}}\))?\s+(?:to|bis)\s+|(?P<dash>{_DIGITS})\s*[-–—]\s*)?"
    rf"(?P<number>{_ONE})(?:\s*%?\s*\((?P<again>{_ONE})\s*%?\))?[\s-]*(?:{_UNIT})(?![\w])",
    re.IGNORECASE,
)
# What `re` takes for an s, i or k of another case, and `str.lower` does not.
_PLAIN: Final = str.maketrans("ſıİ\u212a", "siik")
# Units that convert exactly into each other.
_DAYS: Final[dict[Unit, float]] = {"hours": 1 / 24, "days": 1, "weeks": 7}
_MONTHS: Final[dict[Unit, float]] = {"months": 1, "years": 12}


@dataclass(frozen=True, slots=True)
class Quantity:
    """``text[start:end]`` says ``low`` to ``high``; they differ in a range and where words contradict digits."""

    start: int
    end: int
    low: float
    high: float
    unit: Unit


def quantities(text: str) -> list[Quantity]:
    """All amounts of a passage, in order; two never overlap."""
    found: list[Quantity] = []
    for match in _AMOUNT.finditer(text.translate(_PLAIN)):
        values = [number(match[name]) for name in ("from", "dash", "number", "again") if match[name]]
        unit: Unit = next(unit for unit in UNITS if match[unit.replace(" ", "_")])
        found.append(Quantity(match.start(), match.end(), min(values), max(values), unit))
    return found


def number(text: str) -> float:
    """The value of digits or of number words as the pattern above takes them."""
    if text[0].isdigit():
        thousands = re.fullmatch(r"[0-9]{1,3}(?:,[0-9]{3})+", text)
        return float(text.replace(",", "" if thousands else "."))
    total, part = 0, 0
    for word in re.split(r"[\s-]+", text.lower()):
        if word == "hundred":
            part = max(part, 1) * 100
        elif word == "thousand":
            total, part = total + max(part, 1) * 1000, 0
        elif word != "and":
            part += _SIMPLE[word]
    return float(total + part)


def comparable(quantity: Quantity, limit: Amount) -> bool:
    """Whether both are times or both are per cent."""
    return (quantity.unit == "percent") == (limit.unit == "percent")


def compare(quantity: Quantity, limit: Amount) -> tuple[int, int]:
    """Signs of the least and of the greatest that quantity minus limit can be; both units must be comparable.

    A month has 28 to 31 days, a year 365 or 366, and n business days end after n to 2n + 4 days; so 30 days against one
    month is -1 to 1, while months against years and days against weeks are exact.
    """
    for family in (_DAYS, _MONTHS):
        if quantity.unit in family and limit.unit in family:
            low, high = (value * family[quantity.unit] for value in (quantity.low, quantity.high))
            bound = limit.count * family[limit.unit]
            return _sign(low - bound), _sign(high - bound)
    if quantity.unit == limit.unit:
        return _sign(quantity.low - limit.count), _sign(quantity.high - limit.count)
    least, most = _days(limit.count, limit.unit)
    return (
        _sign(_days(quantity.low, quantity.unit)[0] - most),
        _sign(_days(quantity.high, quantity.unit)[1] - least),
    )


def _days(count: float, unit: Unit) -> tuple[float, float]:
    """The fewest and the most calendar days that an amount of time can be."""
    if unit in _MONTHS:
        years, months = divmod(count * _MONTHS[unit], 12)
        return years * 365 + months * 28, years * 366 + months * 31
    if unit == "business days":
        return count, 2 * count + 4
    return count * _DAYS[unit], count * _DAYS[unit]


def _sign(value: float) -> int:
    return (value > 1e-9) - (value < -1e-9)
