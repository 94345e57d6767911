"""The words of clauses, counted once a document, and how well they fit a query by BM25: the lexical half of a search.

Words are lower-cased and reduced to their stem, so that "terminated" and "termination" are one.
"""

from __future__ import annotations

import io
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import Stemmer  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

# Raise when the same text gives other words, or the same words other bytes.
VERSION: Final = "2"
# The usual values: how soon a repeated word stops to count, and how far long clauses are discounted.
SATURATION: Final = 1.2
LENGTH_WEIGHT: Final = 0.75

_Stemmer: Any = getattr(Stemmer, "Stemmer")  # noqa: B009 (it has no types)
_WORD = re.compile(r"[^\W_]+")
_NUMBERS = ("spans", "starts", "rows", "counts", "lengths")


@dataclass(frozen=True, slots=True)
class Words:
    """The words of n clauses, which stand at ``spans`` (n, 2) of their text.

    ``vocabulary`` (v) is sorted; word k stands ``counts[j]`` times in clause ``rows[j]``, for each j from ``starts[k]``
    up to ``starts[k + 1]``. ``lengths`` (n) counts the words of each clause.
    """

    spans: NDArray[np.int64]
    vocabulary: list[str]
    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    counts: NDArray[np.int32]
    lengths: NDArray[np.int32]

    @classmethod
    def of(cls, text: str, spans: Sequence[tuple[int, int]], check: Callable[[], None]) -> Words:
        """Count the words of each span; ``check`` is called before each."""
        stem = _stemmer()
        postings: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        lengths: list[int] = []
        for row, (start, end) in enumerate(spans):
            check()
            words = stem(text[start:end])
            lengths.append(len(words))
            for word, count in Counter(words).items():
                postings[word].append((row, count))
        vocabulary = sorted(postings)
        pairs = np.array([pair for word in vocabulary for pair in postings[word]], np.int32).reshape(-1, 2)
        ends = np.cumsum([len(postings[word]) for word in vocabulary], dtype=np.int64)
        return cls(
            np.array(spans, np.int64).reshape(-1, 2),
            vocabulary,
            np.concatenate([np.zeros(1, np.int64), ends]),
            pairs[:, 0].copy(),
            pairs[:, 1].copy(),
            np.array(lengths, np.int32),
        )

    def postings(self, word: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The clauses that have a word, and how often."""
        place = bisect_left(self.vocabulary, word)
        if place == len(self.vocabulary) or self.vocabulary[place] != word:
            return self.rows[:0], self.counts[:0]
        part = slice(int(self.starts[place]), int(self.starts[place + 1]))
        return self.rows[part], self.counts[part]

    def to_bytes(self) -> bytes:
        """What :meth:`from_bytes` reads back."""
        output = io.BytesIO()
        # Parted by blanks, which no word has: an array of strings would take the longest word's room for each.
        vocabulary = np.frombuffer(" ".join(self.vocabulary).encode(), np.uint8)
        np.savez(output, vocabulary=vocabulary, **{name: getattr(self, name) for name in _NUMBERS})
        return output.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Words:
        """The words that :meth:`to_bytes` wrote."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            vocabulary = arrays["vocabulary"].tobytes().decode().split()
            return cls(vocabulary=vocabulary, **{name: arrays[name] for name in _NUMBERS})


def bm25(documents: Sequence[Words], query: str) -> NDArray[np.float64]:
    """The score of each clause of all documents, in their order; 0 where it has no word of the query."""
    lengths = np.concatenate([np.zeros(0, np.int32), *(words.lengths for words in documents)])
    firsts = np.cumsum([0, *(len(words.lengths) for words in documents)])
    scores = np.zeros(len(lengths), np.float64)
    if not lengths.any():
        return scores
    discount = SATURATION * (1 - LENGTH_WEIGHT + LENGTH_WEIGHT * lengths / lengths.mean())
    for word, times in Counter(_stemmer()(query)).items():
        found = [words.postings(word) for words in documents]
        rows = np.concatenate([part + first for (part, _), first in zip(found, firsts[:-1], strict=True)])
        counts = np.concatenate([part for _, part in found])
        rarity = np.log(1 + (len(lengths) - len(rows) + 0.5) / (len(rows) + 0.5))
        scores[rows] += times * rarity * counts * (SATURATION + 1) / (counts + discount[rows])
    return scores


def _stemmer() -> Callable[[str], list[str]]:
    """The stems of a text's words in order; each thread needs its own."""
    stemmer = _Stemmer("english")

    def stems(text: str) -> list[str]:
        return stemmer.stemWords(_WORD.findall(text.lower()))

    return stems
