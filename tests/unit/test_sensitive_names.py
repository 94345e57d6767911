"""Names and addresses by the tagger, offsets on any text, and how findings come into a result."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.findings import Finding
from services.playbooks import load_playbook
from services.texts import DocumentText, Page
from workers.analysis.sensitive.datum import DataType
from workers.analysis.sensitive.features import flags_of, is_plain
from workers.analysis.sensitive.folding import fold
from workers.analysis.sensitive.personal import find_personal_data
from workers.analysis.sensitive.structured import structured
from workers.analysis.sensitive.tagger import LABELS, Weights, label_chances, sentence_features, shipped
from workers.analysis.sensitive.tokens import tokenize
from workers.analysis.sensitive.training.labelled import load
from workers.tasks.report import personal_data

CONTRACT = """SERVICES AGREEMENT

This Agreement is made as of March 3, 2021 between Brightwell Systems, Inc., a Delaware corporation (the "Supplier"),
and Margaret Ellison, an individual residing at 48 Harbour Street, Suite 5, Portland, Oregon 97201 ("Consultant").

4.1 Payment. The Supplier shall pay the Consultant the Fee set forth in Section 4.7.11 within 30 days.

Attention: Peter Lindqvist
Telephone: (212) 736-5000
Email: peter.lindqvist@brightwell.example.com

By: /s/ Margaret Ellison
Name: Margaret Ellison
Title: Managing Director
"""


def found(text: str) -> set[tuple[DataType, str]]:
    return {(datum.type, text[datum.start : datum.end]) for datum in find_personal_data(text)}


def test_a_contract_shows_its_people_and_not_its_terms() -> None:
    data = found(CONTRACT)
    assert {
        (DataType.PERSON, "Margaret Ellison"),
        (DataType.PERSON, "Peter Lindqvist"),
        (DataType.PHONE_NUMBER, "(212) 736-5000"),
        (DataType.EMAIL_ADDRESS, "peter.lindqvist@brightwell.example.com"),
        (DataType.DATE_TIME, "March 3, 2021"),
        (DataType.TITLE, "Managing Director"),
        (DataType.STREET_ADDRESS, "48 Harbour Street, Suite 5, Portland, Oregon 97201"),
        (DataType.GPE, "Delaware"),
    } <= data
    assert any(kind is DataType.ORGANIZATION and "Brightwell Systems" in words for kind, words in data)
    assert not {words for _, words in data} & {"Supplier", "Consultant", "Agreement", "Fee", "4.7.11", "Section"}


def test_offsets_count_code_points_whatever_stands_before() -> None:
    plain = "Dear Mr. Peter Lindqvist, please call (212) 736-5000."
    shifted = "\U0001f600\U00020000 \u05d0\n\n" + plain
    assert [(d.type, d.start - 6, d.end - 6) for d in find_personal_data(shifted) if d.start >= 6] == [
        (d.type, d.start, d.end) for d in find_personal_data(plain)
    ]


def test_both_normal_forms_give_the_same_data() -> None:
    text = "Name: Jürgen Müller\nAddress: Goethestraße 12, 80336 München\nDated 3 März 2021"
    apart = unicodedata.normalize("NFD", text)
    assert len(apart) > len(text)
    assert {(kind, unicodedata.normalize("NFC", words)) for kind, words in found(apart)} == found(text)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec=None, exclude_categories=[]), max_size=200), st.integers(0, 3))
def test_any_text_gives_ordered_places_inside_it(noise: str, times: int) -> None:
    text = noise + " Peter Lindqvist, 4111111111111111 " * times + noise
    assert len(fold(text)) == len(text)
    place = 0
    for datum in find_personal_data(text):
        assert place <= datum.start < datum.end <= len(text)
        place = datum.end


@pytest.mark.parametrize(
    "unit",
    [
        "1",
        "1 ",
        "1-",
        "(1) ",
        "a",
        "a@",
        "a.",
        ":",
        " ",
        "\n",
        "@",
        "http://",
        'a ("',
        "From: ",
        "4111 ",
        "\U0001d7d9",
        "Ann ",
    ],
)
@pytest.mark.slow
def test_a_megabyte_of_one_unit_ends(unit: str) -> None:
    size = 1_000_000 if len(unit) == 1 and unit != "@" and unit != ":" else 200_000
    assert isinstance(find_personal_data(unit * (size // len(unit))), list)


def test_the_chain_in_windows_equals_one_chain() -> None:
    chance = np.random.default_rng(3)
    keys = tokenize("Mr. Smith of Acme Inc. went to Berlin. " * 90, []).keys
    names = sorted({name for row in sentence_features(keys[:40]) for name in row})
    table = chance.normal(size=(len(names), len(LABELS))).astype(np.float32)
    moves = chance.normal(size=(len(LABELS), len(LABELS))).astype(np.float32)
    weights = Weights({name: row for row, name in enumerate(names)}, table, moves)
    scores = np.stack([weights.sum_of(row) for row in sentence_features(keys)]).astype(np.float64)
    forward, behind = np.zeros_like(scores), np.zeros_like(scores)
    # The text stands between tokens that are outside, as in windows.
    state = moves[0].astype(np.float64)
    for at, score in enumerate(scores):
        forward[at] = score + (state if at == 0 else np.logaddexp.reduce(forward[at - 1][:, None] + moves, axis=0))
    behind[-1] = moves[:, 0]
    for at in range(len(scores) - 2, -1, -1):
        behind[at] = np.logaddexp.reduce(moves + scores[at + 1] + behind[at + 1], axis=1)
    whole = forward + behind
    expected = np.exp(whole - np.logaddexp.reduce(whole, axis=1, keepdims=True))
    np.testing.assert_allclose(label_chances(keys, weights)[1:-1], expected[1:-1], atol=2e-3)


def test_weights_survive_their_file() -> None:
    table = np.array([[1.0] + [0.0] * (len(LABELS) - 1), [-0.5] * len(LABELS)], np.float32)
    weights = Weights({"0|a": 0, "1|b": 1}, table, np.zeros((len(LABELS), len(LABELS)), np.float32))
    again = Weights.from_bytes(weights.to_bytes())
    assert again.rows == weights.rows
    np.testing.assert_allclose(again.table, table, atol=0.01)


def test_no_name_of_the_labelled_sentences_is_in_the_weights(data: Path) -> None:
    features = {name.partition("|")[2] for name in shipped().rows}
    words = {feature[2:] for feature in features if feature.startswith("w=")}
    assert words
    # The last letter may be the mark of the case.
    assert all(is_plain(flags_of(word)) or is_plain(flags_of(word[:-1])) for word in words)
    assert all(len(feature) <= 6 for feature in features if feature.startswith("e="))
    names = {
        word.lower()
        for sample in load(data / "pii" / "samples.jsonl")
        for kind, start, end in sample.spans
        if kind == "PERSON"
        for word in sample.text[start:end].split()
    }
    names = {name for name in names if not is_plain(flags_of(name))}
    assert len(names) > 200
    assert not names & words


def test_a_datum_is_reported_once() -> None:
    playbook = load_playbook(
        "name: x\ncategories:\n"
        "  - {id: mail, title: Mail, kind: personal_data, weight: 1, patterns: ['\\b\\w{1,9}@\\w{1,9}']}\n"
        "  - {id: file, title: File number, kind: personal_data, weight: 1, patterns: ['\\bF-\\d{3}']}\n"
    )
    text = "F-123 belongs to ann@firm.example"
    document = DocumentText("txt", text, (Page(1, 0, len(text)),), ())
    findings = [Finding("file", 0, 5, r"\bF-\d{3}"), Finding("mail", 17, 25, r"\b\w{1,9}@\w{1,9}")]
    sure = [
        {"type": str(d.type), "start": d.start, "end": d.end, "score": d.score, "why": d.why} for d in structured(text)
    ]
    data = personal_data(playbook, document, findings, sure)
    assert [(datum["type"], datum["text"], datum["page"]) for datum in data] == [
        ("File number", "F-123", 1),
        ("EMAIL_ADDRESS", "ann@firm.example", 1),
    ]
    assert all(datum["why"] for datum in data)
