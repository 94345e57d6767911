"""One piece of personal data, as every finder of this folder reports it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

NEAR = 48
"""Characters before and behind a number in which a word may say what it is."""


class DataType(StrEnum):
    """The seventeen types; the names are those in use in the field (Presidio's)."""

    PERSON = "PERSON"
    STREET_ADDRESS = "STREET_ADDRESS"
    GPE = "GPE"
    ORGANIZATION = "ORGANIZATION"
    CREDIT_CARD = "CREDIT_CARD"
    DATE_TIME = "DATE_TIME"
    PHONE_NUMBER = "PHONE_NUMBER"
    TITLE = "TITLE"
    AGE = "AGE"
    EMAIL_ADDRESS = "EMAIL_ADDRESS"
    ZIP_CODE = "ZIP_CODE"
    NRP = "NRP"
    DOMAIN_NAME = "DOMAIN_NAME"
    US_SSN = "US_SSN"
    IBAN_CODE = "IBAN_CODE"
    IP_ADDRESS = "IP_ADDRESS"
    US_DRIVER_LICENSE = "US_DRIVER_LICENSE"


@dataclass(frozen=True, slots=True)
class Datum:
    """``text[start:end]`` in code points of the original text; ``score`` in 0 to 1; ``why`` is for a person."""

    type: DataType
    start: int
    end: int
    score: float
    why: str


class Place(Protocol):
    """Anything that stands at ``start`` to ``end``."""

    @property
    def start(self) -> int:
        """First code point."""
        ...

    @property
    def end(self) -> int:
        """Behind the last code point."""
        ...


_Placed = TypeVar("_Placed", bound=Place)


def apart(length: int, ranked: Iterable[_Placed]) -> list[_Placed]:
    """Those of ``ranked``, best first, that overlap none before them, by place in a text of ``length`` characters."""
    taken = bytearray(length)
    kept: list[_Placed] = []
    for one in ranked:
        if taken.find(1, one.start, one.end) < 0:
            taken[one.start : one.end] = b"\x01" * (one.end - one.start)
            kept.append(one)
    return sorted(kept, key=lambda one: one.start)
