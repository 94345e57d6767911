"""Signs of privilege: what a text says of itself, counsel, and law firms among a message's addresses."""

from __future__ import annotations

import pytest

from workers.analysis.sensitive.privilege import find_privilege


def signs(text: str) -> list[str]:
    return [text[sign.start : sign.end] for sign in find_privilege(text)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\U0001f600 ATTORNEY–CLIENT\nPRIVILEGE applies", "ATTORNEY–CLIENT\nPRIVILEGE"),
        ("This is attorney work product.", "attorney work product"),
        ("PRIVILEGED & CONFIDENTIAL", "PRIVILEGED & CONFIDENTIAL"),
        ("Prepared at the request of outside counsel", "Prepared at the request of outside counsel"),
        ("made in anticipation of litigation", "in anticipation of litigation"),
        ("we are seeking legal  advice on", "seeking legal  advice"),
        ("Our counsel advises against it", "Our counsel advises"),
        ("John Doe, Esq. wrote", ", Esq."),
        ("To A\n  WITHOUT PREJUDICE  \nDear Sir", "WITHOUT PREJUDICE"),
        ("Cc: a@b.org, Jane <jane@smith-law.com>\n", "jane@smith-law.com"),
        ("> From: x@firm.legal", "x@firm.legal"),
    ],
)
def test_each_sign_is_found_with_its_reason(text: str, words: str) -> None:
    assert words in signs(text)
    assert all(sign.why and 0 < sign.score <= 1 for sign in find_privilege(text))


@pytest.mark.parametrize(
    "text",
    [
        "without prejudice to any other right or remedy",
        "To: bob@lawsonfoods.com",
        "write to jane@smith-law.com",  # no header
        "the products work as attorneys like them",
        "a privileged position in the market",
    ],
)
def test_words_alone_are_no_sign(text: str) -> None:
    assert signs(text) == []
