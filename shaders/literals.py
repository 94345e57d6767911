"""What the symbols beside a literal's factor say: whether it may stand there, with no look at the text itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from services.patterns import Pattern
from services.playbooks import canonical
from shaders.alphabet import Alphabet, pattern_members

if TYPE_CHECKING:
    from shaders.factors import Factor, Term


def is_letter(char: str) -> bool:
    """Whether a word goes on with ``char``."""
    return char.isalnum() or char == "_"


class LiteralTable:
    """Arrays (n,) by factor, and ``letters`` (256,), which says which symbols are letters.

    ``is_exact`` is a literal that its symbols decide; ``left`` and ``right`` say where one begins or ends with a letter
    and must stand alone.
    """

    def __init__(self, terms: Sequence[Term], factors: Sequence[Factor], alphabet: Alphabet) -> None:
        count = len(factors)
        self.is_literal = np.zeros(count, np.bool_)
        self.is_exact = np.zeros(count, np.bool_)
        self.left = np.zeros(count, np.bool_)
        self.right = np.zeros(count, np.bool_)
        for number, factor in enumerate(factors):
            literal = terms[factor.term].term
            if isinstance(literal, Pattern):
                continue
            self.is_literal[number] = True
            self.is_exact[number] = factor.is_word and not alphabet.is_shared
            text = canonical(literal.text)
            self.left[number] = literal.whole_words and is_letter(text[0])
            self.right[number] = literal.whole_words and is_letter(text[-1])
        self.letters = np.zeros(256, np.bool_)
        self.letters[list(alphabet.symbols_of(pattern_members(r"\w")))] = True

    def stand(
        self, symbols: NDArray[np.uint8], factors: NDArray[np.int32], first: NDArray[np.int64], last: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Which of the exact ``factors`` found from ``first`` to ``last`` in ``symbols`` are their literals."""
        end = len(symbols) - 1
        before = self.letters[symbols[np.maximum(first - 1, 0)]] & (first > 0)
        behind = self.letters[symbols[np.minimum(last + 1, end)]] & (last < end)
        return ~(self.left[factors] & before | self.right[factors] & behind)
