"""Dates, years in running text, and ages."""

from __future__ import annotations

import re
from collections.abc import Iterator

from workers.analysis.sensitive.datum import DataType, Datum
from workers.analysis.stretches import Check, matches

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?)\.?"
)
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_YEAR = r"(?:1[89]|20)\d\d"
_CLOCK = r"(?:[ T][012]?\d:[0-5]\d(?::[0-5]\d)?(?:\.\d{1,6})?(?: ?[ap]\.?m\b\.?|Z)?)?"
_DATES = re.compile(
    rf"(?-i:(?=[0-9JFMASOND]))(?<![\w./-])(?:{_YEAR}([-/.])(?:0?[1-9]|1[0-2])\1{_DAY}{_CLOCK}"
    rf"|{_DAY}([-/]){_DAY}\2(?:{_YEAR}|\d\d)|{_DAY}\.(?:0?[1-9]|1[0-2])\.{_YEAR}"
    rf"|{_MONTH} {{1,3}}{_DAY}(?:st|nd|rd|th)?(?:,? {{1,3}}{_YEAR})?"
    rf"|{_DAY}(?:st|nd|rd|th)?(?: day)? (?:of )?{_MONTH}(?:,? {{1,3}}{_YEAR})?"
    rf"|{_MONTH},? {{1,3}}{_YEAR})(?![\w/-]|\.\d)",
    re.IGNORECASE,
)
_WEEKDAY = re.compile(r"\b(?:(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day)\b")
_IN_YEAR = re.compile(
    rf"\b(?:in|since|during|of|until|by|before|after|from|between|around|circa|year|a|the) ({_YEAR})(?![\w-]|[.,]\d)",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w.,$€£-])(?:1[01]\d|[1-9]?\d)(?![\d.,%$€£]\d|[\d%$€£])")
_AGE_BEFORE = re.compile(r"\b(?:aged|age:?|age of|turned|turn|turning|he was|she was|I am|I'm) $", re.IGNORECASE)
_AGE_BEHIND = re.compile(r"[ -]?(?:years?[ -]old|yrs?\.?[ -]old|y/o\b|yo\b)")
_UNIT_BEHIND = re.compile(r"[\w-]| (?:days|months|percent|hours|miles|minutes|weeks|per)\b")


def dates(text: str, check: Check) -> Iterator[Datum]:
    """Dates of any common form with their time of day, week days, and years after a word such as ``in``."""
    for match in matches(_DATES, text, check):
        yield Datum(DataType.DATE_TIME, *match.span(), 0.9, "form of a date")
    for match in matches(_WEEKDAY, text, check):
        yield Datum(DataType.DATE_TIME, *match.span(), 0.6, "day of the week")
    for match in matches(_IN_YEAR, text, check):
        yield Datum(DataType.DATE_TIME, *match.span(1), 0.7, f"year, after “{match[0].split()[0]}”")


def ages(text: str, check: Check) -> Iterator[Datum]:
    """Numbers that words beside them call an age."""
    for match in matches(_NUMBER, text, check):
        start, end = match.span()
        if _AGE_BEHIND.match(text, end) or (
            _AGE_BEFORE.search(text[max(0, start - 10) : start]) and not _UNIT_BEHIND.match(text, end)
        ):
            yield Datum(DataType.AGE, start, end, 0.9, "number that the words beside it call an age")
