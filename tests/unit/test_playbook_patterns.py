"""The pattern language: what is taken means what `re` means, what cannot is refused with its reason."""

from __future__ import annotations

import re

import pytest

from services.patterns import WHITE_SPACE, PatternError, lengths, parse_pattern


@pytest.mark.parametrize(
    ("source", "longest"),
    [
        ("a", 1),
        (r"\b\d{3}-\d{2}-\d{4}\b", 11),
        (r"(?:jan|febr)uary,? \d{1,2}", 12),
        (r"[^\s.]x", 2),
        (r"[\]a-]\x41\u2014\.", 4),
        (r"(\d{1,3}\.){3}\d{1,3}", 15),
        (r"(?:\d[ -]?){13}", 26),
        (r"[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,5}[a-z]{2,24}\b", 409),
        ("[一-鿿]{1,20}律师事务所", 25),
    ],
)
def test_taken(source: str, longest: int) -> None:
    pattern = parse_pattern(source)
    assert pattern.longest == longest == lengths(pattern.tree)[1]
    assert pattern.compiled().flags & re.IGNORECASE


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("a*", "at character 2: `*` has no upper bound"),
        (r"\w+@", "at character 3: `+` has no upper bound"),
        ("a{2,}", "no upper bound"),
        ("a{,3}", "{m,n}"),
        ("a{3,2}", "wrong way"),
        ("a{0}", "zero"),
        ("a{1,3}?", "lazy"),
        ("a{1,3}+", "possessive"),
        ("a??", "lazy"),
        ("?a", "repeats nothing"),
        ("^a", "anchors"),
        ("a$", "anchors"),
        (r"\Aa", "not supported"),
        (r"\Ba", "not supported"),
        (r"(a)\1", "back-references"),
        ("(?=a)a", "look-ahead"),
        ("(?<!a)b", "look-behind"),
        ("(?i)a", "flags"),
        ("(?P<x>a)", "flags, names"),
        ("(a", "never closed"),
        ("a)", "closes no group"),
        ("[a", "never closed"),
        ("[[a]", "in a set"),
        ("[]a]", "in a set"),
        ("[a--b]", "in a set"),
        ("[z-a]", "bad character range"),
        (r"[\b]x", "not supported"),
        (r"a\q", "not supported"),
        (r"\x4", "hexadecimal"),
        ("a\\", "not supported"),
        ("a}", r"write `\}`"),
        ("a?", "match nothing"),
        ("", "match nothing"),
        (r"\b", "match nothing"),
        ("a|", "match nothing"),
        ("(?:a?){3}b", "may be empty"),
        (r"(?:\b){9999}a", "may be empty"),
        (r"\s{3}", "white space"),
        ("[^a]{3}", "white space"),
        ("(?:a| )", "white space"),
        ("a{513}", "limit is 512"),
        ("(?:(?:(?:a{9999}){9999}){9999}){9999}", "limit is 512"),
        ("(?:a{1,9}){1,9}b", "catastrophic"),
        ("(?:a|a){1,40}b", "catastrophic"),
        ("(?:a|ab|b){30}c", "catastrophic"),
        (r"[\w.]{1,60}[\w-]{1,60}x", "catastrophic"),
        ("(" * 30 + "a" + ")" * 30, "20 deep"),
        ("a" * 1001, "limit is 1000"),
        ("[!-龥]" * 24 + "[^!-龥]{3}" * 24, "span more than 1,000,000 characters"),
        (r"[\x21-\uFFFE]" * 16, "span more than 1,000,000 characters"),
    ],
)
def test_refused(source: str, reason: str) -> None:
    with pytest.raises(PatternError) as caught:
        parse_pattern(source)
    assert reason in str(caught.value)


def test_white_space_is_the_same_for_str_and_re() -> None:
    everything = "".join(map(chr, range(0x110000)))
    assert (
        WHITE_SPACE == "".join(char for char in everything if char.isspace()) == "".join(re.findall(r"\s", everything))
    )
