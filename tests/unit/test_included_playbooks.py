"""The playbooks for agreements of secrecy and for consumer terms: each rule decides on a sentence of its kind."""

from __future__ import annotations

import pytest

from services.playbook_checks import warnings
from services.playbooks import INCLUDED, included_playbook
from services.texts import DocumentText, Page, Paragraph
from workers.analysis.rules import judge
from workers.analysis.scan import scan

NDA = {
    "no_reverse_engineering": "Recipient shall not decompile or reverse engineer any sample.",
    "return_at_the_end": "Upon termination of this Agreement all documents shall be returned or destroyed.",
    "no_licence": "Nothing herein grants any licence or other right to the Confidential Information.",
    "talks_are_secret": "Neither party will disclose the fact that discussions about a merger take place.",
    "technical_alone": "“Confidential Information” means all financial and customer information of the Discloser.",
    "marking_waived": "Information is confidential whether or not it is marked as such.",
    "marking_needed": "Information is protected only when it is marked “Confidential” in writing.",
    "obligations_survive": "The duties of secrecy survive this Agreement.",
    "independent_development": "This excludes what the Recipient developed independently and without use of it.",
    "keeps_copies": "Notwithstanding the foregoing, Recipient may retain one copy for its records.",
    "keeps_nothing": "The Recipient shall not retain any copies.",
    "spoken_counts": "It includes information disclosed orally.",
    "no_solicitation": "Recipient shall not solicit or hire any employee of the Discloser.",
    "third_parties_may_know": "Recipient may disclose it only to its advisors and consultants who need to know it.",
    "third_parties_shut_out": "Recipient shall not disclose it to any third party.",
    "copies_allowed": "Recipient may make copies as reasonably needed.",
    "copies_excluded": "Recipient shall not copy the Information.",
    "notice_of_compulsion": "If a court orders disclosure, Recipient shall promptly notify the Discloser.",
    "third_source_is_free": "This excludes what was received from a third party without a duty of secrecy.",
    "employees_shut_out": "Recipient shall not give it to its employees.",
    "employees_may_know": "Recipient may disclose it to its employees who need to know.",
    "residuals": "Recipient may use the residuals that its staff keep in unaided memory.",
    "use_is_limited": "Recipient shall use it solely for the Purpose.",
}
TERMS = {
    "arbitration": (
        "Any dispute shall be resolved by binding arbitration.",
        "Streitigkeiten werden durch ein Schiedsverfahren entschieden.",
    ),
    "arbitration_abroad": (
        "Disputes will be settled under the rules of the American Arbitration Association by arbitration.",
        "Wir vereinbaren, dass Ansprüche ausschließlich im Wege eines Schiedsverfahrens geklärt werden.",
    ),
    "change": ("We may change these terms at any time.", "Wir können diese Bedingungen jederzeit ändern."),
    "removal": (
        "We may remove content that breaks these rules.",
        "Wir können Inhalte entfernen, die gegen diese Regeln verstoßen.",
    ),
    "removal_at_will": (
        "We may remove your posts for any reason.",
        "Wir können Inhalte nach eigenem Ermessen löschen.",
    ),
    "jurisdiction": (
        "The courts of Dublin have exclusive jurisdiction.",
        "Ausschließlicher Gerichtsstand ist Dublin.",
    ),
    "law": ("These terms are governed by the laws of Ireland.", "Es gilt das Recht der Republik Irland."),
    "liability": (
        "We are not liable for any loss of data.",
        "Wir haften nicht für den Verlust von Daten.",
    ),
    "liability_for_injury": (
        "We are not liable for personal injury.",
        "Wir übernehmen keine Haftung für Personenschäden.",
    ),
    "termination": (
        "We may suspend your account if you break these terms.",
        "Wir sind berechtigt, Ihr Konto bei Verstößen zu sperren.",
    ),
    "termination_at_will": (
        "We may terminate your access at any time and without notice.",
        "Wir können Ihren Zugang jederzeit ohne Angabe von Gründen sperren.",
    ),
    "use": (
        "By using the site you agree to these terms.",
        "Durch die Nutzung der Website stimmen Sie diesen Bedingungen zu.",
    ),
    "privacy": (
        "By signing up you accept our Privacy Policy.",
        "Sie stimmen der Datenschutzerklärung zu.",
    ),
}
HARMLESS = (
    "You may cancel your subscription at any time.",
    "If you live in the EU, you may sue in the courts of your country of residence.",
    "Sie können Ihr Konto jederzeit löschen.",
    "Verbraucher können am Gericht ihres Wohnsitzes klagen.",
    "The parcel arrives within three days.",
)


def outcomes(name: str, text: str) -> dict[str, str]:
    document = DocumentText("txt", text, (Page(1, 0, len(text)),), (Paragraph(0, len(text)),))
    playbook = included_playbook(name)
    findings = scan(text, playbook, device="cpu").findings
    return {item.rule.id: item.outcome for item in judge(playbook, document, findings, present={})}


def test_every_rule_has_its_sentence() -> None:
    assert [rule.id for rule in included_playbook("nda").rules] == list(NDA)
    assert [rule.id for rule in included_playbook("consumer_terms").rules] == list(TERMS)


@pytest.mark.parametrize("ident", NDA)
def test_a_rule_of_secrecy_decides_on_its_sentence(ident: str) -> None:
    (rule,) = [rule for rule in included_playbook("nda").rules if rule.id == ident]
    said, unsaid = ("met", "breached") if rule.kind == "required" else ("breached", "met")
    assert outcomes("nda", NDA[ident])[ident] == said
    assert outcomes("nda", "The parcel arrives within three days.")[ident] == unsaid


@pytest.mark.parametrize(("ident", "sentence"), [(ident, text) for ident, both in TERMS.items() for text in both])
def test_an_unfair_term_is_found_in_both_languages(ident: str, sentence: str) -> None:
    assert outcomes("consumer_terms", sentence)[ident] == "breached"


@pytest.mark.parametrize("sentence", HARMLESS)
def test_a_fair_term_breaches_nothing(sentence: str) -> None:
    assert set(outcomes("consumer_terms", sentence).values()) == {"met"}


@pytest.mark.parametrize("name", INCLUDED)
def test_a_playbook_that_comes_along_bears_its_name_and_warns_of_broad_words_alone(name: str) -> None:
    assert included_playbook(name).name == name
    told = warnings(included_playbook(name))
    assert [text for text in told if "is short and" not in text and " stands in " not in text] == []
