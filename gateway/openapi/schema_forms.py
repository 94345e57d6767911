"""Schemas in the form that readers need: without words that say nothing, and parameters as they are sent."""

from __future__ import annotations

from typing import Any, cast


def untitled(schema: Any) -> Any:
    """A schema without the titles that only repeat the names of its members."""
    if isinstance(schema, dict):
        members = cast(dict[str, Any], schema)
        return {
            name: {one: untitled(inner) for one, inner in value.items()} if name == "properties" else untitled(value)
            for name, value in members.items()
            if name != "title" or not isinstance(value, str)
        }
    if isinstance(schema, list):
        return [untitled(item) for item in cast(list[Any], schema)]
    return schema


def sent(schema: dict[str, Any], *, header: bool) -> dict[str, Any]:
    """The schema of a parameter that is sent: it is then never null, and a header is one text."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        schema = {name: value for name, value in schema.items() if name != "anyOf"} | kinds[0]
    return {"type": "string"} if header and schema.get("type") == "array" else schema


def said_of_parameter(schema: dict[str, Any]) -> str | None:
    """What a parameter's schema says of it, or one of those that it may be."""
    return next((one["description"] for one in [schema, *schema.get("anyOf", ())] if "description" in one), None)


def said_of_answer(answer: dict[str, Any], schemas: dict[str, Any]) -> str:
    """What an answer is: the first words of its model."""
    for content in answer.get("content", {}).values():
        if name := content.get("schema", {}).get("$ref", "").rpartition("/")[2]:
            return schemas[name].get("description", "A page of the list").partition(".")[0].partition(";")[0]
        return "The text"
    return "Done; there is no body"
