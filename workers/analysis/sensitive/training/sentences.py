"""Sentences of our own with slots, filled with Faker's inventions: what contracts, letters and records look like.

They were written from knowledge of such papers, not from the labelled data, and most of their capitals are no names.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from faker import Faker

from workers.analysis.sensitive.training.words import FLAGS, WORDS

_LOCALES = (
    *["en_US"] * 8, *["en_GB"] * 3, "en_AU", "en_CA", "en_IN", "de_DE", "de_AT", "de_CH", "fr_FR", "es_ES",
    "es_MX", "it_IT", "pt_PT", "pt_BR", "nl_NL", "nl_BE", "da_DK", "sv_SE", "no_NO", "fi_FI", "pl_PL", "cs_CZ",
    "sk_SK", "hu_HU", "sl_SI", "hr_HR", "ro_RO", "tr_TR", "lt_LT", "lv_LV", "el_GR",
)  # fmt: skip
_SLOT = re.compile(r"\{(\w+)\}")
_LABEL = {
    "person": "PERSON", "first": "PERSON", "last": "PERSON", "initial": "PERSON", "address": "STREET_ADDRESS",
    "street": "STREET_ADDRESS",
    "unit": "STREET_ADDRESS", "org": "ORGANIZATION", "city": "GPE", "state": "GPE", "country": "GPE", "people": "NRP",
    "job": "TITLE",
    "honor": "TITLE", "zip": "ZIP_CODE",
}  # fmt: skip
# What fails as an address in some locale is taken from this one.
_SURE = "en_US"


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text with spans ``(type, start, end)``."""

    text: str
    spans: tuple[tuple[str, int, int], ...]


def sentences(count: int, seed: int) -> list[Sentence]:
    """``count`` passages of one to three sentences each, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 (repeatable, no secret)
    Faker.seed(seed)
    patterns = _patterns()
    made: list[Sentence] = []
    for _ in range(count):
        parts = [fill(chance.choice(patterns), chance) for _ in range(chance.choice((1, 1, 2, 3)))]
        made.append(_styled(_joined(parts, chance.choice((" ", "\n", "\n\n", "          "))), chance))
    return made


@cache
def _patterns() -> list[str]:
    text = resources.files("workers.analysis.sensitive.training").joinpath("sentences.txt").read_text("utf-8")
    return [line.replace("\\n", "\n") for line in text.splitlines() if line and not line.startswith("#")]


def fill(pattern: str, chance: random.Random) -> Sentence:
    """``pattern`` with every slot filled; most slots of a sentence come from one country."""
    locale = chance.choice(_LOCALES)
    text, spans, place = "", list[tuple[str, int, int]](), 0
    for slot in _SLOT.finditer(pattern):
        text += pattern[place : slot.start()]
        value = _value(slot[1], locale, chance)
        if slot[1] in _LABEL:
            spans.append((_LABEL[slot[1]], len(text), len(text) + len(value)))
        text += value
        place = slot.end()
    return Sentence(text + pattern[place:], tuple(spans))


def _joined(parts: list[Sentence], mark: str) -> Sentence:
    text, spans = "", list[tuple[str, int, int]]()
    for part in parts:
        text += mark if text else ""
        spans += [(name, start + len(text), end + len(text)) for name, start, end in part.spans]
        text += part.text
    return Sentence(text, tuple(spans))


def _styled(sentence: Sentence, chance: random.Random) -> Sentence:
    """Now and then all in small letters or capitals, as people write and headings stand."""
    dice = chance.random()
    text = sentence.text
    other = text.lower() if dice < 0.07 else text.upper() if dice < 0.1 else text
    return Sentence(other if len(other) == len(text) else text, sentence.spans)


@cache
def _faker(locale: str) -> Any:
    return Faker(locale)


def _value(slot: str, locale: str, chance: random.Random) -> str:
    fake = _faker(locale)
    match slot:
        case "first":
            return fake.first_name()
        case "last":
            return fake.last_name()
        case "person":
            middle = chance.choice(
                ("", "", "", f" {chance.choice('ABCDEFGHJKLMNPRSTVW')}.", f" {chance.choice('ABCDEGHJKLMPRSTW')}")
            )
            tail = chance.choice(("", "", "", "", "", "", "", ", Jr.", " III", " Jr."))
            return f"{fake.first_name()}{middle} {fake.last_name()}{tail}"
        case "initial":
            return f"{chance.choice('ABCDEFGHJKLMNPRSTVW')}. {fake.last_name()}"
        case "org":
            return _organisation(fake, chance)
        case "street":
            return fake.street_address().replace("\n", chance.choice((", ", " ", "\n")))
        case "unit":
            return f"{chance.choice(('Apt.', 'Suite', 'Apartment', 'Unit', 'Floor'))} {chance.randint(1, 999)}"
        case "address":
            return _address(fake, chance)
        case "city":
            return _city(fake)
        case "state":
            return _faker(_SURE).state()
        case "country":
            return chance.choice(
                (_faker(_SURE).country().partition("(")[0].strip(), "United Kingdom", "Germany", "the Netherlands"[4:])
            )
        case "people":
            return chance.choice(FLAGS["n"].split()).capitalize()
        case "job":
            return _job(chance)
        case "honor":
            return chance.choice(("Mr.", "Mrs.", "Ms.", "Dr.", "Miss", "Prof.", "Mr", "Mrs", "Dr"))
        case "zip":
            return _code(fake, chance)
        case "phone":
            return fake.phone_number()
        case "email":
            return fake.email()
        case "date":
            return fake.date_object().strftime(chance.choice(("%B %d, %Y", "%m/%d/%Y", "%Y-%m-%d", "%d %B %Y")))
        case "year":
            return str(chance.randint(1950, 2026))
        case "number":
            return str(chance.choice((chance.randint(1, 30), chance.randint(10, 999), chance.randint(1000, 99999))))
        case "section":
            return f"{chance.randint(1, 24)}.{chance.randint(1, 19)}"
        case "money":
            return f"${chance.randint(1, 999)},{chance.randint(0, 999):03d}"
        case "term":
            return chance.choice(WORDS["terms"])
        case _:
            raise ValueError(f"no slot {slot}")


def _job(chance: random.Random) -> str:
    what, who = chance.choice(WORDS["work"]), chance.choice(WORDS["workers"])
    made = [
        f"{what.capitalize()} {who}",
        f"{what.capitalize()} and {chance.choice(WORDS['work'])} {who}",
        f"Assistant {what} {who}",
        who.capitalize(),
    ]
    return chance.choice(
        (
            _faker(_SURE).job().partition(",")[0],
            chance.choice(WORDS["offices"]),
            chance.choice(WORDS["offices"]),
            *made[: chance.randint(1, 4)],
        )
    )


def _organisation(fake: Any, chance: random.Random) -> str:
    names = [fake.company(), _faker(_SURE).company(), f"{fake.last_name()} & {fake.last_name()} LLP"]
    word = chance.choice(WORDS["stems"]).capitalize() + chance.choice(WORDS["endings"])
    names += [
        word,
        f"{word} {chance.choice(WORDS['forms'])}",
        f"{word}, Inc.",
        f"{word} {chance.choice(WORDS['fields'])} {chance.choice(WORDS['forms'])}",
    ]
    names += [
        f"{chance.choice(WORDS['fields'])} {chance.choice(WORDS['fields'])}",
        f"{chance.choice(WORDS['fields'])} {word}",
        f"{_city(fake)} {chance.choice(WORDS['fields'])}",
    ]
    names += [
        f"{fake.last_name()} {chance.choice(WORDS['fields'])} {chance.choice(WORDS['forms'])}",
        f"Bank of {_city(fake)}",
    ]
    return chance.choice(names).replace("\n", " ")


def _address(fake: Any, chance: random.Random) -> str:
    street = fake.street_address().replace("\n", ", ")
    unit = chance.choice(("", "", f" {_value('unit', _SURE, chance)}", f", {_value('unit', _SURE, chance)}"))
    place, code = _city(fake), _code(fake, chance)
    state = chance.choice((_faker(_SURE).state(), _faker(_SURE).state_abbr()))
    country = chance.choice(("", "", "", f", {_faker(_SURE).country()}", ", USA", ", U.S.A."))
    tail = chance.choice(
        (f"{place}, {state} {code}", f"{place}, {state} {code}", f"{code} {place}", f"{place} {code}", f"{place}")
    )
    forms = [f"{street}{unit}, {tail}{country}"] * 4 + [f"{street}{unit}\n{tail}{country}", f"{street}\n{tail}"]
    name = chance.choice((place, place.upper()))
    below = f"{_faker(_SURE).country()}{chance.choice((f' {code}', ''))}"
    forms += [
        f"{street}\n {_value('unit', _SURE, chance)}\n {name}\n {below}",
        f"{street}\n{place}\n, {state[:2].upper()}\n {code}",
    ]
    forms += [f"{street}{unit}, {place}, {below}", f"{chance.randint(1, 999)} {street}{unit}, {place}, {state} {code}"]
    forms += [f"P.O. Box {chance.randint(1, 9999)}, {place}, {state} {code}", fake.address()]
    return chance.choice(forms)


def _city(fake: Any) -> str:
    return fake.city() if hasattr(fake, "city") else _faker(_SURE).city()


def _code(fake: Any, chance: random.Random) -> str:
    return chance.choice((fake.postcode(), _faker(_SURE).postcode(), f"{chance.randint(1000, 99999)}"))
