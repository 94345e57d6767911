"""Rules of a playbook: what is refused with which line, and how each kind is judged, at exact offsets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.errors import InvalidRequest
from services.playbooks import default_playbook, load_playbook
from services.rules import Amount
from services.texts import DocumentText, Page, Paragraph
from workers.analysis.passages import Passages
from workers.analysis.quantities import compare, number, quantities
from workers.analysis.reasons import reasons, rule_views
from workers.analysis.risk import assess
from workers.analysis.rules import Judgement, judge
from workers.analysis.scan import scan

RULES = """\
name: rent
categories:
  - {id: notice, title: Notice, weight: 0, literals: [notice]}
  - {id: law, title: Law, weight: 0, literals: [governed by]}
rules:
  - id: notice_is_short
    title: Notice is short
    kind: limit
    category: notice
    severity: medium
    at_most: 60 days
    reason: Long ones are missed.
  - {id: law, title: Law, kind: one_of, category: law, severity: high, reason: Ours., values: [England, Ohio]}
"""


def document(text: str) -> DocumentText:
    lines = tuple(Paragraph(match.start(), match.end()) for match in re.finditer(r"\S(?:.*\S)?", text))
    return DocumentText("txt", text, (Page(1, 0, len(text)),), lines)


def judged(text: str, rules: str, categories: str = "") -> dict[str, Judgement]:
    head = "name: x\ncategories:\n  - {id: notice, title: Notice, weight: 0, literals: [notice]}\n" + categories
    playbook = load_playbook(f"{head}\nrules:\n{rules}")
    found = scan(text, playbook, device="cpu").findings
    return {item.rule.id: item for item in judge(playbook, document(text), found, present={})}


def limit(text: str, bound: str, more: str = "") -> Judgement:
    rule = f"  - {{id: r, title: R, kind: limit, category: notice, severity: low, reason: Why., {bound}{more}}}"
    return judged(text, rule)["r"]


def quoted(text: str, judgement: Judgement) -> list[str]:
    return [text[start:end] for start, end in judgement.spans]


def test_rules_are_part_of_the_version() -> None:
    playbook = load_playbook(RULES)
    assert playbook.rules[0].at_most == Amount(60, "days")
    assert playbook.rules[1].values == ("England", "Ohio")
    changes = [
        ("60 days", "61 days"),
        ("medium", "high"),
        ("Ohio", "Iowa"),
        ("missed.", "missed!"),
        ("at_most", "at_least"),
    ]
    versions = {load_playbook(RULES.replace(old, new, 1)).version for old, new in changes}
    assert len(versions | {playbook.version}) == len(changes) + 1
    assert load_playbook("# why\n" + RULES).version == playbook.version


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("category: notice\n", "category: notices\n", 9, "the category `notices`, which is not there"),
        ("kind: limit", "kind: limits", 8, "`kind` must be required or forbidden"),
        ("severity: medium", "severity: 0.5", 10, "`severity` must be low or medium or high"),
        ("at_most: 60 days", "at_most: two months", 11, "must be a number and one of hours, days"),
        ("at_most: 60 days", "at_most: 60 fortnights", 11, "must be a number and one of hours, days"),
        ("at_most: 60 days", "values: [x]", 6, "needs `at_least` or `at_most`"),
        ("at_most: 60 days", "at_most: 60 days\n    at_least: 90 days", 11, "the larger number at most"),
        ("at_most: 60 days", "at_most: 60 days\n    at_least: 1 week", 11, "one unit"),
        ("kind: limit", "kind: forbidden", 11, "`at_most` goes with `kind: limit`"),
        ("values: [England, Ohio]", "values: []", 13, "needs `values`"),
        ("kind: one_of", "kind: required", 13, "`values` goes with `kind: one_of`"),
        ("values: [England", "values: [" + "x" * 101, 13, "101 characters"),
        ("{id: law, title: Law, kind", "{id: notice_is_short, title: Law, kind", 13, "stands twice"),
        ("{id: law, title: Law, kind", "{id: law, title: Notice is short, kind", 13, "stands at two rules"),
        ("reason: Long", "where: ['a.*']\n    reason: Long", 12, "no upper bound"),
        ("    reason: Long ones are missed.\n", "", 6, "needs `reason`"),
        ("reason: Long ones are missed.", "because: x", 12, "no key `because`"),
        ("id: law, title: Law, weight", "id: law, title: Notice, weight", 4, "stands at two categories"),
        ("rules:\n", "rules: all\nrule:\n", 5, "must be a list"),
    ],
)
def test_refusals_name_line_and_reason(old: str, new: str, line: int, reason: str) -> None:
    assert old in RULES
    text = RULES.replace(old, new, 1)
    if new.startswith("rules: all"):
        text = text.partition("rule:\n")[0]
    with pytest.raises(InvalidRequest) as caught:
        load_playbook(text)
    assert caught.value.code == "playbook_invalid"
    assert caught.value.detail.startswith(f"line {line}: "), caught.value.detail
    assert reason in caught.value.detail


@pytest.mark.parametrize(
    ("text", "found", "low", "high", "unit"),
    [
        ("on thirty (30) days' notice", "thirty (30) days", 30, 30, "days"),
        ("on 30 (thirty) calendar days", "30 (thirty) calendar days", 30, 30, "days"),
        ("a Sixty-Day period", "Sixty-Day", 60, 60, "days"),
        ("one hundred and twenty (120)\n days", "one hundred and twenty (120)\n days", 120, 120, "days"),
        ("twenty-four (24) months", "twenty-four (24) months", 24, 24, "months"),
        ("ten (10) business days", "ten (10) business days", 10, 10, "business days"),
        ("from 30 to 60 days", "30 to 60 days", 30, 60, "days"),
        ("30-60 days", "30-60 days", 30, 60, "days"),
        ("thirty (60) days", "thirty (60) days", 30, 60, "days"),
        ("1,000 hours", "1,000 hours", 1000, 1000, "hours"),
        ("at 8.5% a year", "8.5%", 8.5, 8.5, "percent"),
        ("eight per cent of", "eight per cent", 8, 8, "percent"),
        ("two thousand five hundred hours", "two thousand five hundred hours", 2500, 2500, "hours"),
        ("binnen drei Monaten", "drei Monaten", 3, 3, "months"),
        ("mit 14 Kalendertagen", "14 Kalendertagen", 14, 14, "days"),
        ("FÜNF Werktage", "FÜNF Werktage", 5, 5, "business days"),
    ],
)
def test_amounts_are_read_at_their_offsets(text: str, found: str, low: float, high: float, unit: str) -> None:
    (quantity,) = quantities(text)
    assert text[quantity.start : quantity.end] == found
    assert (quantity.low, quantity.high, quantity.unit) == (low, high, unit)


@pytest.mark.parametrize(
    "text", ["30 dayspring", "clause 30", "the days of a year", "USD 30", "v1.30 days", "someone days"]
)
def test_what_is_no_amount(text: str) -> None:
    assert quantities(text) == []


PIECES = st.sampled_from(
    ["one", "ſix", "thirty", "hundred", "and", "(", ")", "30", "1,000", "to", "-", " ", "\n", "days", "%", "x"]
)


@given(st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=60))
@example("ſix days")
@example("sİx wee\u212as")
@example("hundred days")
def test_any_text_is_read_without_failing_in_order(text: str) -> None:
    reached = 0
    for quantity in quantities(text):
        assert reached <= quantity.start < quantity.end <= len(text)
        assert quantity.low <= quantity.high
        reached = quantity.end


@given(st.integers(1, 999))
def test_number_words_have_the_value_of_their_digits(value: int) -> None:
    small = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    ones = ["", *small.split(), "eighteen", "nineteen"]
    tens = ["", "", *["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]]
    hundreds, rest = divmod(value, 100)
    words = [ones[hundreds], "hundred"] if hundreds else []
    words += ["and"] if words and rest else []
    words += [ones[rest]] if 0 < rest < 20 else [f"{tens[rest // 10]}-{ones[rest % 10]}".strip("-")] if rest else []
    assert number(" ".join(words)) == value
    (quantity,) = quantities(f"{' '.join(words)} days")
    assert (quantity.start, quantity.low) == (0, value)


@pytest.mark.parametrize(
    ("amount", "unit", "limit", "signs"),
    [
        (30, "days", Amount(30, "days"), (0, 0)),
        (5, "weeks", Amount(30, "days"), (1, 1)),
        (1, "years", Amount(12, "months"), (0, 0)),
        (30, "days", Amount(1, "months"), (-1, 1)),
        (27, "days", Amount(1, "months"), (-1, -1)),
        (32, "days", Amount(1, "months"), (1, 1)),
        (1, "years", Amount(366, "days"), (-1, 0)),
        (10, "business days", Amount(9, "days"), (1, 1)),
        (10, "business days", Amount(14, "days"), (-1, 1)),
        (8, "percent", Amount(8.5, "percent"), (-1, -1)),
    ],
)
def test_units_compare_exactly_or_by_what_they_can_be(
    amount: float, unit: str, limit: Amount, signs: tuple[int, int]
) -> None:
    (quantity,) = quantities(f"{amount} {unit}")
    assert compare(quantity, limit) == signs


def test_a_heading_goes_on_with_the_sentence_below_it() -> None:
    text = "9. NOTICE\n\n9.1 It is ninety days. It may not be less."
    judgement = limit(text, "at_most: 60 days")
    assert judgement.outcome == "breached"
    assert quoted(text, judgement) == ["NOTICE\n\n9.1 It is ninety days"]


@given(st.text(alphabet='aA. \n!1"“;', max_size=80), st.data())
def test_a_passage_holds_its_finding(text: str, draw: st.DataObject) -> None:
    start = draw.draw(st.integers(0, len(text)))
    end = draw.draw(st.integers(start, len(text)))
    first, last = Passages(document(text)).around(start, end)
    assert 0 <= first <= start <= end <= last <= len(text)


@pytest.mark.parametrize(
    ("text", "bound", "outcome", "span"),
    [
        ("Notice of ninety (90) days.", "at_most: 60 days", "breached", "Notice of ninety (90) days"),
        ("Sixty days' notice within one year.", "at_most: 60 days", "met", "Sixty days' notice"),
        ("Notice. It takes ninety days.", "at_most: 60 days", "unknown", "Notice."),
        ("Nothing about it, ninety days.", "at_most: 60 days", "unknown", None),
        ("Notice of 30 to 90 days.", "at_most: 60 days", "unknown", "Notice of 30 to 90 days"),
        ("Notice of two months.", "at_most: 60 days", "unknown", "Notice of two months"),
        ("Notice of 10%.", "at_most: 60 days", "unknown", "Notice of 10%."),
        ("Notice of ten days.", "at_least: 30 days", "breached", "Notice of ten days"),
        ("Notice of 40 days.", "at_least: 30 days, at_most: 60 days", "met", "Notice of 40 days"),
        ("Notice of 40 days. Notice of 99 days.", "at_most: 60 days", "breached", "Notice of 99 days"),
    ],
)
def test_a_limit_takes_the_nearest_amount_of_its_sentence(
    text: str, bound: str, outcome: str, span: str | None
) -> None:
    judgement = limit(text, bound)
    assert judgement.outcome == outcome
    assert quoted(text, judgement) == ([span] if span else [])


def test_where_moves_the_place_that_an_amount_is_nearest_to() -> None:
    text = "After notice of five days it pays within  ninety days."
    assert limit(text, "at_most: 60 days").outcome == "met"
    moved = limit(text, "at_most: 60 days", ", where: ['\\bpays within']")
    assert (moved.outcome, quoted(text, moved)) == ("breached", ["pays within  ninety days"])


def test_required_and_forbidden_look_at_sentences_that_where_and_unless_admit() -> None:
    rule = "  - {{id: {0}, title: {0}, kind: {0}, category: notice, severity: low, reason: Why.{1}}}\n"
    plain = rule.format("required", "") + rule.format("forbidden", "")
    text = "A notice in\nwriting is due. A notice is not."
    found = judged(text, plain)
    assert (found["required"].outcome, found["forbidden"].outcome) == ("met", "breached")
    assert quoted(text, found["forbidden"]) == ["A notice in\nwriting is due.", "A notice is not."]
    where = ", where: ['in writing'], unless: ['is not']"
    found = judged(text, rule.format("required", where) + rule.format("forbidden", where))
    assert quoted(text, found["required"]) == ["A notice in\nwriting is due."]
    also = ", where: ['a notice'], also: ['is due', 'by fax']"
    found = judged(text, rule.format("required", also) + rule.format("forbidden", ", also: ['by fax']"))
    assert quoted(text, found["required"]) == ["A notice in\nwriting is due."]
    assert found["forbidden"].outcome == "met"
    never = ", where: ['by fax']"
    found = judged(text, rule.format("required", never) + rule.format("forbidden", never))
    assert (found["required"].outcome, found["forbidden"].outcome) == ("breached", "met")
    assert found["required"].spans == found["forbidden"].spans == ()


def test_one_of_wants_a_value_as_whole_words_whatever_their_case_and_blanks() -> None:
    rule = (
        "  - {id: r, title: R, kind: one_of, category: notice, severity: low, reason: Why., values: [New  York, Ohio]}"
    )
    assert judged("Notice under the laws of NEW\nYORK.", rule)["r"].outcome == "met"
    assert judged("Notice under the laws of New Yorkshire.", rule)["r"].outcome == "breached"
    assert judged("Silence in Ohio.", rule)["r"].outcome == "unknown"


def test_what_other_means_found_meets_a_required_rule() -> None:
    playbook = load_playbook(RULES.replace("kind: one_of", "kind: required").replace(", values: [England, Ohio]", ""))
    text = document("Nothing here.")
    assert judge(playbook, text, [], present={})[1].outcome == "breached"
    told = judge(playbook, text, [], present={"law": [(0, 7)]})[1]
    assert (told.outcome, told.spans) == ("met", ((0, 7),))


def test_the_score_is_the_sum_of_its_reasons_and_grows_with_a_breach() -> None:
    text = (Path(__file__).parents[2] / "docs" / "sample" / "contract.txt").read_text("utf-8")
    playbook, parts = default_playbook(), document(text)
    findings = scan(text, playbook, device="cpu").findings
    judgements = judge(playbook, parts, findings, present={})
    breached = [item.rule.id for item in judgements if item.outcome == "breached"]
    risk = assess(playbook, findings, breached=breached)
    shown = reasons(playbook, parts, findings, risk, judgements)
    assert sum(part["share"] for part in shown) == pytest.approx(risk.score, abs=1e-4)
    assert [part["share"] for part in shown] == sorted((part["share"] for part in shown), reverse=True)
    assert {part["id"] for part in shown if part["of"] == "rule"} == set(breached)
    for part in (*shown, *rule_views(parts, judgements)):
        assert all(span["text"] == text[span["start"] : span["end"]] for span in part["spans"])
        assert part["spans"] or part.get("of") == "missing" or part.get("outcome") != "breached"
    for rule in playbook.rules:
        worse = assess(playbook, findings, breached={*breached, rule.id}).score
        assert risk.score <= worse <= 1
    assert assess(playbook, findings, breached=[rule.id for rule in playbook.rules]).score < 1


SAID = {
    "liability_without_limit": "7.3 The Supplier's liability for a breach of clause 4 shall be unlimited.",
    "renewal_needs_notice": "This Agreement shall automatically renew for successive periods of one year.",
    "renewal_notice_is_short": "A party may give notice of non-renewal six (6) months before the end of the term.",
    "notice_of_convenience": "Either party may terminate this Agreement for convenience on ten (10) days' notice.",
    "change_of_control_ends": "Upon a change of control of the Tenant the Landlord may terminate this Lease.",
    "assignment_needs_consent": "The Bank may assign this Agreement to anybody without the consent of the Borrower.",
    "no_ban_on_competition": "For two years the Seller shall not engage in a competing business.",
    "ban_on_competition_is_short": "The Seller agrees not to compete for a period of five (5) years.",
    "no_most_favoured_terms": "Most favored nation pricing applies to every order.",
    "no_exclusivity": "Buyer grants Seller the exclusive right to supply the Region.",
    "licence_has_bounds": "The fee buys an enterprise license for all staff.",
    "licence_can_end": "Licensor grants an irrevocable licence of the Marks.",
    "payment_within_60_days": "The Customer shall pay each invoice within one hundred twenty (120) days.",
}
UNSAID = {
    "liability_without_limit": "Nothing limits liability for death, that liability is unlimited.",
    "renewal_needs_notice": "This Agreement shall automatically renew unless a party gives notice of non-renewal.",
    "renewal_notice_is_short": "A party may give notice of non-renewal thirty (30) days before the end of the term.",
    "notice_of_convenience": "Either party may terminate this Agreement for convenience on ninety (90) days' notice.",
    "change_of_control_ends": "A change of control of the Tenant must be told to the Landlord.",
    "assignment_needs_consent": "Neither party may assign this Agreement without the prior consent of the other.",
    "no_ban_on_competition": "Nothing in this Agreement keeps a party from a competing business.",
    "ban_on_competition_is_short": "The Seller agrees not to compete for a period of one (1) year.",
    "no_exclusivity": "The courts of Ohio have exclusive jurisdiction on an exclusive basis.",
    "licence_can_end": "This offer is irrevocable until Friday.",
    "payment_within_60_days": "The Customer shall pay each invoice within thirty (30) days.",
}


@pytest.mark.parametrize(("said", "outcome"), [(SAID, "breached"), (UNSAID, "met")])
def test_the_default_rules_tell_what_they_forbid_from_what_they_allow(said: dict[str, str], outcome: str) -> None:
    playbook = default_playbook()
    judged_as = {
        ident: {
            item.rule.id: item.outcome
            for item in judge(playbook, document(text), scan(text, playbook, device="cpu").findings, present={})
        }[ident]
        for ident, text in said.items()
    }
    assert judged_as == dict.fromkeys(said, outcome)


def test_every_default_rule_has_a_sentence_that_breaches_it() -> None:
    required = {rule.id for rule in default_playbook().rules if rule.kind == "required"}
    assert {rule.id for rule in default_playbook().rules} == required | set(SAID)
    empty = judge(default_playbook(), document("Hello."), [], present={})
    assert {item.rule.id for item in empty if item.outcome == "breached"} == required
