r"""The pattern language of playbooks: a small part of Python's ``re`` that every scan engine can hold to.

A pattern means what ``re.compile(pattern, re.IGNORECASE).finditer(text)`` finds: leftmost, greedy, non-overlapping,
over code points. The part of the syntax that is taken:

- characters; ``.`` (all but a new line); ``\d \D \w \W \s \S``; ``\n \t \r \xHH \uHHHH``; escaped punctuation
- sets ``[a-z§]``, ``[^…]`` with ranges and the classes above
- groups ``( )`` and ``(?: )``, alternatives ``|``, the word boundary ``\b``
- repeats with an upper bound, greedy: ``?``, ``{m}``, ``{m,n}``

Refused, each with its reason: ``* + {m,}`` (no upper bound, so one odd document could stall a worker), lazy and
possessive repeats, anchors, look-around, back-references, named groups and flags; a pattern that may match nothing,
that needs no character besides white space, that may match more than :data:`MAX_LENGTH` characters, whose ranges span
more than :data:`MAX_SPANNED` characters, or that can match in more than :data:`MAX_WAYS` ways from one place (the bound
on backtracking).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

MAX_LENGTH = 512
MAX_WAYS = 1000
MAX_SOURCE = 1000
MAX_SPANNED = 1_000_000
"""Characters in all ranges of a pattern: `re` takes a third of a microsecond for each, to compile for `IGNORECASE`."""

WHITE_SPACE = "".join(re.findall(r"\s", "".join(map(chr, range(0x3001)))))
"""Every character that ``str.isspace`` and ``\\s`` know; all of them lie below U+3001."""

# Characters on which alternatives are compared when ways are counted: a bound on cost, not on meaning.
_SAMPLE = "".join(map(chr, range(0x250))) + WHITE_SPACE + "ΑαΣσς§–—‘’“”€Жж漢\u212a\U0001f600"
# What is kept about sets: those of a playbook or two, and not of every playbook that was ever tried.
_KEPT = 1024
_ONE = r"(?:\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|[^\\])"
_WRITTEN = re.compile(_ONE, re.DOTALL)
_RANGE = re.compile(f"({_ONE})-({_ONE})", re.DOTALL)
_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ")


class PatternError(ValueError):
    """The pattern is outside the language; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Chars:
    """One character out of a set; ``source`` is its notation in ``re``."""

    source: str


@dataclass(frozen=True, slots=True)
class Boundary:
    r"""``\b``."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """``item``, ``low`` to ``high`` times."""

    item: Node
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Sequence:
    """All items, one after the other."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the branches, the first that leads to a match."""

    branches: tuple[Node, ...]


Node = Chars | Boundary | Repeat | Sequence | Choice


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern of a playbook: its source, its tree, and the longest match in code points."""

    source: str
    tree: Node
    longest: int

    def compiled(self) -> re.Pattern[str]:
        """The pattern that defines the meaning (``re`` caches it)."""
        return re.compile(self.source, re.IGNORECASE)


def lengths(node: Node) -> tuple[int, int]:
    """Shortest and longest match of ``node`` in code points."""
    match node:
        case Chars():
            return 1, 1
        case Boundary():
            return 0, 0
        case Repeat(item, low, high):
            shortest, longest = lengths(item)
            return shortest * low, longest * high
        case Sequence(items):
            pairs = [lengths(item) for item in items]
            return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
        case Choice(branches):
            pairs = [lengths(branch) for branch in branches]
            return min(pair[0] for pair in pairs), max(pair[1] for pair in pairs)


def characters(node: Node) -> Iterator[Chars]:
    """The sets of a pattern, in its order."""
    match node:
        case Chars():
            yield node
        case Boundary():
            pass
        case Repeat(item):
            yield from characters(item)
        case Sequence(parts) | Choice(parts):
            for part in parts:
                yield from characters(part)


def code_points(source: str) -> list[int]:
    r"""The code points that the set ``source`` is written with, the ends of its ranges among them; ``w`` for ``\w``."""
    return [_code(written) for written in _WRITTEN.findall(source)]


def spanned(source: str) -> int:
    """How many characters the ranges of the set ``source`` have; above U+FFFF `re` takes them as they are."""
    if not source.startswith("["):
        return 0
    pairs = [(_code(start), _code(end)) for start, end in _RANGE.findall(source[1:-1])]
    return sum(max(0, min(end, 0xFFFF) - start + 1) for start, end in pairs)


def _code(written: str) -> int:
    return int(written[2:], 16) if written[:2] in (r"\x", r"\u") else ord(written[-1])


@lru_cache(_KEPT)
def white_members(source: str) -> str:
    """The white space that the character set ``source`` takes."""
    return "".join(re.findall(source, WHITE_SPACE, re.IGNORECASE))


def names_text(node: Node) -> bool:
    """Whether every match holds a character from a set without white space."""
    match node:
        case Chars(source):
            return not white_members(source)
        case Boundary():
            return False
        case Repeat(item, low, _):
            return low > 0 and names_text(item)
        case Sequence(items):
            return any(names_text(item) for item in items)
        case Choice(branches):
            return all(names_text(branch) for branch in branches)


@lru_cache(_KEPT)
def _sample(source: str) -> frozenset[str]:
    return frozenset(re.findall(source, _SAMPLE, re.IGNORECASE))


def _first(node: Node, follow: frozenset[str]) -> frozenset[str]:
    match node:
        case Chars(source):
            return _sample(source)
        case Boundary():
            return follow or frozenset(_SAMPLE)  # at the end of a pattern only a boundary can still fail
        case Repeat(item, low, _):
            return _first(item, follow) | follow if low == 0 else _first(item, follow)
        case Sequence(items):
            for item in reversed(items):
                follow = _first(item, follow)
            return follow
        case Choice(branches):
            return frozenset[str]().union(*(_first(branch, follow) for branch in branches))


def ways(node: Node, follow: frozenset[str]) -> int:
    """Upper bound, up to ``MAX_WAYS + 1``, of the ways to match ``node`` from one place before one of ``follow``.

    An empty ``follow`` is the end of the pattern, where the first way found is taken.
    """
    total = 1
    match node:
        case Chars() | Boundary():
            pass
        case Repeat(item, low, high):
            first = _first(item, follow)
            inner = ways(item, first | follow if high > 1 else follow)
            if low < high and not first.isdisjoint(follow):
                total = high - low + 1
            # A power of a bounded number may still be astronomically long, so it is built only as far as the bound.
            for _ in range(high if inner > 1 else 0):
                total = min(total * inner, MAX_WAYS + 1)
        case Sequence(items):
            for item in reversed(items):
                total = min(total * ways(item, follow), MAX_WAYS + 1)
                follow = _first(item, follow)
        case Choice(branches):
            firsts = [_first(branch, follow) for branch in branches]
            counts = [ways(branch, follow) for branch in branches]
            apart = sum(map(len, firsts)) == len(frozenset[str]().union(*firsts))
            total = max(counts) if apart else sum(counts)
    return min(total, MAX_WAYS + 1)


def parse_pattern(source: str) -> Pattern:
    """Read and check a pattern.

    Raises :class:`PatternError`, whose message names the place (counted from 1) and the reason.
    """
    if len(source) > MAX_SOURCE:
        raise PatternError(f"the pattern has {len(source)} characters, the limit is {MAX_SOURCE}")
    tree = _Reader(source).read()
    if sum(spanned(chars.source) for chars in characters(tree)) > MAX_SPANNED:
        raise PatternError(
            f"the ranges of the pattern span more than {MAX_SPANNED:,} characters together; "
            r"write `\w`, `\W` or `[^…]` for wide sets"
        )
    shortest, longest = lengths(tree)
    if shortest == 0:
        raise PatternError("the pattern can match nothing at all; make at least one part of it mandatory")
    if longest > MAX_LENGTH:
        raise PatternError(f"the pattern can match {longest} characters, the limit is {MAX_LENGTH}; lower its repeats")
    if not names_text(tree):
        raise PatternError("the pattern needs at least one mandatory character that cannot be white space")
    if ways(tree, frozenset()) > MAX_WAYS:
        raise PatternError(
            f"the pattern can match in more than {MAX_WAYS} ways from one place (catastrophic backtracking); "
            "make neighbouring repeats exclude each other's characters"
        )
    return Pattern(source, tree, longest)


class _Reader:
    """Recursive descent over the source; ``at`` is the next character."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0
        self.depth = 0

    def read(self) -> Node:
        tree = self.choice()
        if self.at < len(self.source):
            raise self.error("this `)` closes no group; write `\\)` for the character")
        try:
            re.compile(self.source)  # says the same as with IGNORECASE, and does not go through each range for it
        except (re.error, OverflowError) as error:  # what the reader lets through, `re` must take too
            raise PatternError(str(error)) from None
        return tree

    def error(self, reason: str) -> PatternError:
        return PatternError(f"at character {self.at + 1}: {reason}")

    def peek(self, length: int = 1) -> str:
        return self.source[self.at : self.at + length]

    def choice(self) -> Node:
        self.depth += 1
        if self.depth > 20:
            raise self.error("groups are nested more than 20 deep")
        branches = [self.sequence()]
        while self.peek() == "|":
            self.at += 1
            branches.append(self.sequence())
        self.depth -= 1
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def sequence(self) -> Node:
        items: list[Node] = []
        while (char := self.peek()) and char not in "|)":
            items.append(self.repeated(self.item()))
        return items[0] if len(items) == 1 else Sequence(tuple(items))

    def item(self) -> Node:
        char = self.peek()
        if char == "(":
            return self.group()
        if char == "[":
            return self.set()
        if char == "\\":
            return self.escape()
        if char in "^$":
            raise self.error(f"anchors are not supported; write `\\{char}` for the character")
        if char in "*+?{":
            raise self.error(f"`{char}` repeats nothing; write `\\{char}` for the character")
        if char in "]}":
            raise self.error(f"write `\\{char}` for the character")
        self.at += 1
        return Chars(char)

    def group(self) -> Node:
        start = self.at
        if self.peek(3) == "(?:":
            self.at += 3
        elif self.peek(2) == "(?":
            names = {"(?=": "look-ahead", "(?!": "look-ahead", "(?<": "look-behind or a named group"}
            raise self.error(
                f"{names.get(self.peek(3), 'flags, names and conditions')}: not supported, only `( )`, `(?: )`"
            )
        else:
            self.at += 1
        inner = self.choice()
        if self.peek() != ")":
            self.at = start
            raise self.error("this group is never closed")
        self.at += 1
        return inner

    def escape(self) -> Node:
        code = self.source[self.at + 1 : self.at + 2]
        if code == "b":
            self.at += 2
            return Boundary()
        return Chars(self.escaped())

    def escaped(self) -> str:
        r"""The source of one escaped character or class, ``\b`` apart."""
        start, code = self.at, self.source[self.at + 1 : self.at + 2]
        digits = {"x": 2, "u": 4}.get(code, 0)
        if code and code in "0123456789":
            raise self.error("back-references and octal escapes are not supported")
        if not code or not (code in "dDwWsSntrxu" or code in _PUNCTUATION):
            raise self.error(f"`\\{code}` is not supported")
        if digits and not re.fullmatch(f"[0-9a-fA-F]{{{digits}}}", self.source[start + 2 : start + 2 + digits]):
            raise self.error(f"`\\{code}` needs {digits} hexadecimal digits")
        self.at = start + 2 + digits
        return self.source[start : self.at]

    def set(self) -> Node:
        start = self.at
        self.at += 2 if self.peek(2) == "[^" else 1
        first = self.at
        while (char := self.peek()) != "]" or self.at == first:
            if not char:
                self.at = start
                raise self.error("this set is never closed")
            if char == "\\":
                self.escaped()
                continue
            if char in "[]" or self.peek(2) in ("--", "&&", "~~", "||"):
                raise self.error(f"write `\\{char}` for the character in a set")
            self.at += 1
        self.at += 1
        return Chars(self.source[start : self.at])

    def repeated(self, item: Node) -> Node:
        char = self.peek()
        if not char or char not in "*+?{":
            return item
        if char in "*+":
            raise self.error(f"`{char}` has no upper bound; write for example `{{{int(char == '+')},40}}`")
        low, high, size = 0, 1, 1
        if char == "{":
            found = re.compile(r"\{([0-9]{1,4})(,([0-9]{0,4}))?\}").match(self.source, self.at)
            if found is None:
                raise self.error("a repeat is written {m} or {m,n}; write `\\{` for the character")
            if found[2] == ",":
                raise self.error("`{m,}` has no upper bound; write {m,n}")
            low, size = int(found[1]), len(found[0])
            high = int(found[3]) if found[2] else low
        if high == 0 or low > high:
            raise self.error("the repeat's bounds are the wrong way round or zero")
        if lengths(item)[0] == 0:
            raise self.error("this repeats something that may be empty")
        self.at += size
        if self.peek() and self.peek() in "?+*{":
            raise self.error("lazy, possessive and doubled repeats are not supported")
        return Repeat(item, low, high)
