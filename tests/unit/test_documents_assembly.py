"""Paragraphs and pages: exact offsets, nothing lost, units of a size that can be embedded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.texts import DocumentText
from workers.documents.assembly import LEAST, MOST, Draft, assemble, find_paragraphs

TEXT = st.text(
    st.one_of(
        st.sampled_from(" \n\r\t\f.;:A1(“§\u2028\u00a0"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=400,
)
SENTENCES = st.lists(
    st.sampled_from(
        ["The Supplier shall deliver. ", "1.1 Term", "\n", "\n\n", "\r\n\r\n", "x" * 700, " (a) fees; ", "ß", "𝔸 "]
    ),
    max_size=60,
).map("".join)


def check(document: DocumentText) -> None:
    before = 0
    for page, following in zip(document.pages, [*document.pages[1:], None], strict=True):
        assert 0 <= page.start <= page.end <= len(document.text)
        if following is None:
            assert page.end == len(document.text)
        else:
            assert document.text[page.end : following.start] == "\f"
    covered: set[int] = set()
    for paragraph in document.paragraphs:
        piece = document.text[paragraph.start : paragraph.end]
        assert paragraph.start >= before, "paragraphs overlap or stand out of order"
        assert piece
        assert piece == piece.strip()
        assert len(piece) <= MOST
        assert any(page.start <= paragraph.start and paragraph.end <= page.end for page in document.pages)
        covered.update(range(paragraph.start, paragraph.end))
        before = paragraph.end
    lost = [at for at, sign in enumerate(document.text) if not sign.isspace() and at not in covered]
    assert not lost, "a paragraph lost characters"
    document.text.encode()
    assert DocumentText.from_json(document.to_json()) == document


@given(st.lists(TEXT.map(lambda text: text.replace("\f", " ")), min_size=1, max_size=4))
def test_every_character_of_any_pages_stands_in_one_paragraph(pages: list[str]) -> None:
    document = assemble(Draft("txt", tuple(pages)))
    check(document)
    assert [document.text[page.start : page.end] for page in document.pages] == pages


@given(SENTENCES)
def test_legal_shapes_keep_their_offsets(text: str) -> None:
    check(assemble(Draft("txt", (text,))))


def test_lone_surrogates_become_replacement_characters() -> None:
    document = assemble(Draft("txt", ("a\ud800b and more text here",), ("note \udfff",)))
    assert document.text == "a\ufffdb and more text here"
    assert document.notes == ("note \ufffd",)
    check(document)


def pieces(text: str) -> list[str]:
    return [text[left:right] for left, right in find_paragraphs(text)]


def test_blank_lines_part_paragraphs_and_wrapped_lines_do_not() -> None:
    assert pieces("First clause of the deed,\nwrapped here.\n \nSecond clause of the deed.") == [
        "First clause of the deed,\nwrapped here.",
        "Second clause of the deed.",
    ]


def test_a_short_heading_joins_its_clause() -> None:
    assert pieces("2. Term\n\nThe term is twelve months from the date.") == [
        "2. Term\n\nThe term is twelve months from the date."
    ]


def test_a_short_end_joins_what_stands_before() -> None:
    assert pieces("The parties have signed this deed.\n\nPage 3") == ["The parties have signed this deed.\n\nPage 3"]


def test_unwrapped_lines_are_paragraphs_of_their_own() -> None:
    first, second = "One " * 100 + "end.", "Two " * 100 + "end."
    assert pieces(f"{first}\n{second}") == [first, second]


def test_long_paragraphs_are_parted_at_sentence_ends() -> None:
    sentence = "The Supplier shall keep the Goods insured against all risks until delivery. "
    parts = pieces(sentence * 60)
    assert len(parts) > 1
    assert all(part.endswith("delivery.") and part.startswith("The Supplier") for part in parts)
    assert all(LEAST < len(part) <= MOST for part in parts)


def test_text_without_any_border_is_cut_hard() -> None:
    assert [len(part) for part in pieces("x" * (2 * MOST + 7))] == [MOST, MOST, 7]
