"""The clause heads: words, weights that survive their file, neighbours, and clauses out of sentences."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from services.findings import Finding
from services.playbooks import default_playbook
from services.texts import DocumentText
from tests.conftest import DATA
from workers.analysis.clause_heads.context import FAR, joins, presence, second_logits, signs
from workers.analysis.clause_heads.logits import First, first_logits, lexical_logits
from workers.analysis.clause_heads.score import found_terms, score_document
from workers.analysis.clause_heads.spans import LIKELY, SURE, find_spans
from workers.analysis.clause_heads.weights import SIDES, SIGNS, Floats, Weights, same_space, shipped
from workers.analysis.clause_heads.words import runs, words
from workers.analysis.sentences import find_sentences
from workers.tasks.clauses import by_heads
from workers.tasks.context import Context


def small(**changed: Any) -> Weights:
    random = np.random.default_rng(5)
    values: dict[str, Any] = {
        "heads": ("rent", "term"),
        "vocabulary": ("rent", "the rent", "term", "pay # %"),
        "rarity": np.array([1, 2, 1, 3], np.float32),
        "lexical": np.array([[2, -1], [3, -1], [-1, 4], [1, 0]], np.float32),
        "lexical_bias": np.array([-1, -2], np.float32),
        "dense": random.standard_normal((6, 2)).astype(np.float32),
        "dense_bias": np.array([-3, 1], np.float32),
        "blend": np.array([[0.5, 0.25, 1], [1, 2, -1]], np.float32),
        "context": np.zeros((2, SIDES + 1), np.float32),
        "presence": np.zeros((2, SIGNS + 1), np.float32),
        "probe": np.array([0, 0, 0, 0, 0, 1], np.float32),
    }
    return Weights(**(values | changed))


def unit(rows: int) -> Floats:
    vectors = np.random.default_rng(6).standard_normal((rows, 6)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_words_are_folded_and_numbers_are_alike() -> None:
    assert words("Pay 12.5 % of RENT, § 3") == ["pay", "#", "#", "%", "of", "rent", "#"]
    assert list(runs("the rent is")) == ["the", "rent", "is", "the rent", "rent is", "the rent is"]
    assert list(runs("")) == []


def test_weights_survive_their_file() -> None:
    weights = small()
    read = Weights.from_npz(weights.to_npz())
    assert (read.heads, read.vocabulary, read.places) == (weights.heads, weights.vocabulary, weights.places)
    assert np.allclose(read.lexical, weights.lexical, atol=4 / 127)
    assert np.allclose(read.dense, weights.dense, atol=2e-3)
    assert Weights.from_npz(read.to_npz()).to_npz() == read.to_npz()


def test_first_logits_are_words_and_vector() -> None:
    weights, vectors = small(), unit(3)
    texts = ["The rent is due.", "nothing known", "pay 3 %"]
    found = lexical_logits(weights, texts)
    values = np.array([1.0, 2.0]) / np.sqrt(5)
    assert np.allclose(found[0], values @ weights.lexical[:2] + weights.lexical_bias, atol=1e-5)
    assert np.allclose(found[1], weights.lexical_bias)
    dense = vectors @ weights.dense + weights.dense_bias
    first = first_logits(weights, texts, vectors)
    assert np.array_equal(first.lexical, found)
    assert np.allclose(first.dense, dense, atol=2e-3)
    assert np.allclose(first.both, found * [0.5, 1] + dense * [0.25, 2] + [1, -1], atol=5e-3)


def test_a_list_goes_on_and_its_last_sentence_does_not() -> None:
    assert joins(["as follows:", "(a) rent;", "fees.", "Term", "and more", "x;"]).tolist() == [
        True, True, False, True, True, False,
    ]  # fmt: skip
    assert joins([]).tolist() == []


def test_neighbours_count_unless_a_sentence_is_far_from_a_clause() -> None:
    context = np.zeros((2, SIDES + 1), np.float32)
    context[:, 2] = 1.0  # the logit of the sentence before
    first = np.array([[3, FAR - 1], [-1, 0], [-2, FAR - 1]], np.float32)
    second = second_logits(context, first, np.zeros_like(first), ["One.", "Two.", "Three."])
    assert np.allclose(second, [[-8, -9], [3, FAR - 1], [-1, -9]])


def test_clauses_are_sentences_that_go_on_in_each_other() -> None:
    texts = ["(a) rent;", "(b) fees;", "and costs.", "Term.", "Other."]
    sure, likely, no = SURE + 0.1, LIKELY + 0.05, LIKELY - 0.05
    column = np.array([[likely], [sure], [likely], [sure], [no]], np.float32)
    found = find_spans(column, texts)
    assert [(item.first, item.last) for item in found] == [(0, 2), (3, 3)]
    assert find_spans(np.full((5, 1), likely, np.float32), texts) == []
    assert find_spans(np.zeros((0, 2), np.float32), []) == []


def test_more_signs_never_make_a_clause_less_present() -> None:
    weights = np.random.default_rng(7).uniform(0.05, 0.2, (2, SIGNS + 1)).astype(np.float32)
    weak, strong = np.full((4, 2), -5, np.float32), np.full((4, 2), -5, np.float32)
    strong[1] = 4
    found = np.zeros((4, 2), np.float32)
    least = presence(weights, First(weak, weak, weak), weak, found)
    for place in range(4):
        seen = [strong if place == at else weak for at in range(4)]
        assert (presence(weights, First(*seen[:3]), seen[3], found) > least).all()
    nothing = np.zeros((1, 2), np.float32)
    assert signs(First(nothing, nothing, nothing), nothing, nothing).shape == (2, SIGNS)


def test_findings_count_in_the_sentence_where_they_begin() -> None:
    findings = [Finding("term", 12, 16, "term"), Finding("elsewhere", 0, 4, "x"), Finding("rent", 0, 4, "rent")]
    assert found_terms(("rent", "term"), [0, 10, 20], findings).tolist() == [[1, 0], [0, 1], [0, 0]]
    assert found_terms(("rent",), [], findings).shape == (0, 1)


def test_vectors_of_another_model_are_refused() -> None:
    weights = small()
    assert same_space(weights, weights.probe)
    assert not same_space(weights, -weights.probe)
    assert not same_space(weights, np.ones(384, np.float32))


def test_a_document_of_no_sentences_has_no_clauses() -> None:
    scored = score_document(small(), [], np.zeros((0, 6), np.float32), np.zeros((0, 2), np.float32))
    assert (scored.clauses, scored.presence.tolist()) == ([], [0, 0])


def test_the_heads_that_come_along_are_clauses_of_the_default_playbook() -> None:
    weights = shipped()
    kinds = {category.id: category.kind for category in default_playbook().categories}
    assert len(weights.heads) == 41
    assert all(kinds[head] == "clause" for head in weights.heads)
    assert weights.lexical.shape == (len(weights.vocabulary), 41)
    assert len(weights.places) == len(weights.vocabulary)
    assert not np.isnan(weights.lexical).any()


def test_the_same_words_have_the_same_scores_whatever_ends_their_lines() -> None:
    weights = shipped()
    scores: list[tuple[list[float], dict[str, float]]] = []
    for end in ("\n", "\r\n"):
        law = f"This Agreement shall{end}be governed by{end}the laws of{end}the State of{end}New York."
        document = DocumentText("txt", f"{law}{end}{end}the parties agree.", (), ())
        spans = np.array(find_sentences(document), np.int64)
        context = Context(spans, np.stack([weights.probe] * len(spans)), weights.probe)
        clauses, held = by_heads(weights, document, [], context, None, lambda: None)
        scores.append(([clause.score for clause in clauses], held))
    assert len(spans) == 2
    assert scores[0][0]
    assert scores[0] == scores[1]


@pytest.mark.skipif(not (DATA / "cuad").exists(), reason="the shared contracts are not there")
def test_the_words_alone_know_governing_law() -> None:
    """Weights, vocabulary and sentences fit each other: the sentence that the lawyers marked is the likeliest."""
    weights = shipped()
    column = weights.heads.index("governing_law")
    right = total = 0
    for line in (DATA / "cuad" / "labels.jsonl").read_text("utf-8").splitlines()[:40]:
        label = json.loads(line)
        gold = [span for span in label["spans"] if span["category"] == "Governing Law"]
        if not gold:
            continue
        text = (DATA / "cuad" / "texts" / f"{label['id']}.txt").read_bytes().decode()
        spans = find_sentences(DocumentText("txt", text, (), ()))
        best = int(lexical_logits(weights, [text[start:end] for start, end in spans])[:, column].argmax())
        right += any(spans[best][0] < span["end"] and span["start"] < spans[best][1] for span in gold)
        total += 1
    assert right >= 0.9 * total
