"""What differs between two playbooks: categories, terms and rules added, removed and changed, by id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.playbooks import Category, Playbook


def diff(old: Playbook, new: Playbook) -> dict[str, Any]:
    """JSON values: ``title`` as ``[old, new]`` or null, and for ``categories`` and ``rules`` what changed.

    Each has ``added`` and ``removed`` (ids) and ``changed``: id, ``fields`` (name → ``[old, new]``), and for
    categories ``terms_added`` and ``terms_removed``. Their order means nothing and is not compared.
    """
    categories = {item.id: item for item in old.categories}, {item.id: item for item in new.categories}
    rules = {item.id: item.content() for item in old.rules}, {item.id: item.content() for item in new.rules}
    return {
        "title": [old.title, new.title] if old.title != new.title else None,
        "categories": _members(categories[0], categories[1])
        | {"changed": _changed_categories(categories[0], categories[1])},
        "rules": _members(rules[0], rules[1])
        | {
            "changed": [
                {"id": ident, "fields": fields}
                for ident in rules[0]
                if ident in rules[1] and (fields := _fields(rules[0][ident], rules[1][ident]))
            ]
        },
    }


def _members(old: Mapping[str, object], new: Mapping[str, object]) -> dict[str, Any]:
    return {"added": [ident for ident in new if ident not in old], "removed": [item for item in old if item not in new]}


def _changed_categories(old: Mapping[str, Category], new: Mapping[str, Category]) -> list[dict[str, Any]]:
    changed: list[dict[str, Any]] = []
    for ident, before in old.items():
        after = new.get(ident)
        if after is None or before == after:
            continue
        plain = [{k: v for k, v in item.content().items() if k not in _TERMS} for item in (before, after)]
        terms = terms_of(before), terms_of(after)
        added = [term for term in terms[1] if term not in terms[0]]
        removed = [term for term in terms[0] if term not in terms[1]]
        fields = _fields(plain[0], plain[1])
        if fields or added or removed:
            changed.append({"id": ident, "fields": fields, "terms_added": added, "terms_removed": removed})
    return changed


_TERMS = ("literals", "patterns")


def terms_of(category: Category) -> dict[str, None]:
    """The terms in words, in order: literals in quotes, those found inside words too with ``…``, patterns bare."""
    literals = [f'"{item.text}"' if item.whole_words else f'"…{item.text}…"' for item in category.literals]
    return dict.fromkeys([*literals, *(pattern.source for pattern in category.patterns)])


def _fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    return {name: [old[name], new[name]] for name in old if old[name] != new[name]}
