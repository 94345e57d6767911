"""Prints a review for a person: risk first, then what is missing, terms, clauses, personal data and privilege."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import click

QUOTE_CHARS = 110
SHOWN_CLAUSES = 2
SHOWN_DATA = 3
SHOWN_SIGNS = 5


def print_review(result: dict[str, Any]) -> None:
    """The review as lines of text."""
    pages = f"{result['pages']} page" + ("s" if result["pages"] != 1 else "")
    click.echo()
    click.secho(f"{result['document']['name']}  ({result['kind']}, {pages})", bold=True)
    for remark in result["notes"]:
        click.echo(f"  note: {remark}")
    click.echo(f"\nRisk {result['risk']['score']:.2f} of 1")
    ranked = sorted(result["risk"]["by_category"].items(), key=lambda item: -item[1])
    for category, risk in ranked[:8]:
        click.echo(f"  {risk:.2f}  {category}")
    if len(ranked) > 8:
        click.echo(f"        and {len(ranked) - 8} more, in --json")
    print_rules(result["rules"])
    if result["missing"]:
        click.echo("\nMissing")
        for item in result["missing"]:
            click.echo(f"  {item['category']}" + (f": {item['why']}" if item["why"] else ""))
    _print_terms(result)
    _print_clauses(result["clauses"])
    _print_personal_data(result["pii"])
    _print_privilege(result.get("privilege", []))
    _print_provenance(result)


def print_rules(rules: list[dict[str, Any]]) -> None:
    """The rules as lines of text: those breached with their places, those nobody could judge, and how many are met."""
    if not rules:
        return
    counts = Counter(rule["outcome"] for rule in rules)
    click.echo("\nRules (" + ", ".join(f"{counts[name]} {name}" for name in ("breached", "unknown", "met")) + ")")
    for rule in rules:
        if rule["outcome"] == "breached":
            click.secho(f"  breached  {rule['severity']:6s}  {rule['title']}", fg="red")
            click.echo(f"            {rule['reason']}")
            click.echo(f"            {rule['found']}")
            for span in rule["spans"][:SHOWN_CLAUSES]:
                click.echo(f"            p. {span['page']}  {quote(span['text'])}")
            if len(rule["spans"]) > SHOWN_CLAUSES:
                click.echo(f"            and {len(rule['spans']) - SHOWN_CLAUSES} more, in --json")
    for rule in rules:
        if rule["outcome"] == "unknown":
            click.secho(f"  unknown   {rule['severity']:6s}  {rule['title']}", fg="yellow")
            click.echo(f"            {rule['found']}")
    for rule in rules:
        if rule["outcome"] == "met":
            click.echo(f"  met       {rule['severity']:6s}  {rule['title']}")


def _print_terms(result: dict[str, Any]) -> None:
    if result.get("terms"):
        click.echo("\nTerms (each quote stands verbatim on its page)")
        for term in result["terms"]:
            click.echo(f"  p. {term['page']}  {term['term']}: {quote(term['quote'])}   by the demo model {term['by']}")
    if result.get("unsupported_terms"):
        click.echo("\nAnswers of the model that no quote supports (not counted)")
        for term in result["unsupported_terms"]:
            click.echo(f"  {term['term']}: {quote(term['quote'])}")


def _print_clauses(clauses: list[dict[str, Any]]) -> None:
    grouped: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for clause in clauses:
        grouped[clause["category"]].append(clause)
    if grouped:
        click.echo(f"\nClauses ({len(clauses)} places in {len(grouped)} categories)")
    for category, found in sorted(grouped.items()):
        best = sorted(found, key=lambda clause: -clause["score"])
        more = f"  (+{len(best) - SHOWN_CLAUSES} more)" if len(best) > SHOWN_CLAUSES else ""
        click.echo(f"  {category}{more}")
        for clause in best[:SHOWN_CLAUSES]:
            click.echo(f"    p. {clause['page']}  {clause['score']:.2f}  {quote(clause['text'])}")


def _print_personal_data(data: list[dict[str, Any]]) -> None:
    grouped: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for datum in data:
        grouped[datum["type"]].append(datum)
    if grouped:
        click.echo(f"\nPersonal data ({len(data)} places)")
    for name, found in sorted(grouped.items()):
        more = f"  (+{len(found) - SHOWN_DATA} more)" if len(found) > SHOWN_DATA else ""
        shown = ", ".join(f"p. {datum['page']} {quote(datum['text'])}" for datum in found[:SHOWN_DATA])
        click.echo(f"  {name}: {shown}{more}")


def _print_privilege(signs: list[dict[str, Any]]) -> None:
    if signs:
        click.echo("\nMay be privileged: a lawyer should look")
    for sign in sorted(signs, key=lambda sign: -sign["score"])[:SHOWN_SIGNS]:
        click.echo(f"  p. {sign['page']}  {quote(sign['text'])}: {sign['why']}")
    if len(signs) > SHOWN_SIGNS:
        click.echo(f"  and {len(signs) - SHOWN_SIGNS} more, in --json")


def _print_provenance(result: dict[str, Any]) -> None:
    provenance = result["provenance"]
    models = ", ".join(
        f"{step} by {model['name']} ({model['licence']})" for step, model in provenance["models"].items()
    )
    kept = provenance["reused"]
    seconds = ", ".join(
        f"{step} " + ("kept" if step in kept else f"{provenance['seconds'][step]:.2f} s")
        for step in provenance["steps"]
        if step in provenance["seconds"]
    )
    playbook = provenance["playbook"]
    click.echo(f"\nPlaybook {playbook['name']} {playbook['sha256'][:12]}, scan by {provenance['scan_engine']}")
    if models:
        click.echo(f"Models: {models}")
    if "heads" in provenance["without"] and "clauses" in provenance["steps"]:
        click.secho(
            "Clauses by words alone: the model minilm-contracts is not installed (casemill doctor)", fg="yellow"
        )
    click.echo(f"Time: {seconds}")
    click.echo(result["notice"])


def quote(text: str, most: int = QUOTE_CHARS) -> str:
    """A text on one line in quotes, cut after ``most`` characters."""
    line = " ".join(text.split())
    return f"“{line}”" if len(line) <= most else f"“{line[:most]}…”"
