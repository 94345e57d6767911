"""Completes one operation of the description: its scope, its parameters, each answer, its problems and examples."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from gateway.matters import tells_matter
from gateway.openapi.example_ids import EXAMPLE_IDS
from gateway.openapi.examples import add_examples
from gateway.openapi.headers import RATES, header_refs
from gateway.openapi.links import add_links
from gateway.openapi.problems import ALWAYS, WITH_BODY, WITH_JSON, WITH_PARAMETERS, WITH_PATH, problem_answers
from gateway.openapi.raises import Problem, problems_of
from gateway.openapi.schema_forms import said_of_answer, said_of_parameter, sent, untitled
from gateway.problems import speaks_openai
from gateway.state import Scoped, principal_of

_UNSAID: Final = "Successful Response"
_PARAMETER: Final = re.compile(r"\{(\w+)\}")


def complete(
    operation: dict[str, Any], path: str, route: APIRoute, schemas: dict[str, Any], schemes: Iterable[str]
) -> None:
    """Add to an operation what FastAPI does not know of it; ``schemes`` are the ways to send a key."""
    calls = list(_calls(route.dependant))
    scope = next((call for call in calls if isinstance(call, Scoped)), None)
    name = route.endpoint.__name__
    operation |= {"operationId": name, "summary": name.replace("_", " ").capitalize()}
    operation.setdefault("parameters", [])
    if scope:
        operation["security"] = [{scheme: [scope.scope]} for scheme in schemes]
        operation["description"] += f"\n\nNeeds a key with the scope `{scope.scope}`."
    for parameter in operation["parameters"]:
        _complete_parameter(parameter)
    example_path = _PARAMETER.sub(lambda found: EXAMPLE_IDS[found[1]], path)
    answers: dict[str, Any] = operation["responses"]
    answers.pop("422", None)
    rates = RATES if scope else ()
    for answer in answers.values():
        _complete_answer(answer, schemas)
        answer["headers"] = answer.get("headers", {}) | header_refs("X-Request-ID", *rates)
    problems = _problems(operation, scope, _PARAMETER.findall(path)).union(*map(problems_of, [route.endpoint, *calls]))
    for status, answer in problem_answers(problems, example_path, rates, openai=speaks_openai(path)).items():
        answers.setdefault(status, answer)
    operation["responses"] = {status: answers[status] for status in sorted(answers)}
    add_examples(operation)
    add_links(operation)
    operation["parameters"].append({"$ref": "#/components/parameters/X-Request-ID"})


def _complete_parameter(parameter: dict[str, Any]) -> None:
    if parameter["in"] == "path":
        parameter["example"] = EXAMPLE_IDS[parameter["name"]]
    parameter["schema"] = sent(untitled(parameter["schema"]), header=parameter["in"] == "header")
    if "description" not in parameter and (said := said_of_parameter(parameter["schema"])):
        parameter["description"] = said


def _complete_answer(answer: dict[str, Any], schemas: dict[str, Any]) -> None:
    if answer["description"] == _UNSAID:
        answer["description"] = said_of_answer(answer, schemas)
    if "content" in answer:
        answer["content"] = dict(sorted(answer["content"].items(), key=lambda kind: kind[0] != "application/json"))


def _problems(operation: dict[str, Any], scope: Scoped | None, in_path: list[str]) -> set[Problem]:
    """What an operation can be refused for before it runs."""
    found = set(ALWAYS)
    if scope:
        found |= problems_of(principal_of) | {("forbidden", 403)}
        own_matter = scope.scope in ("read", "submit") and not scope.of_any_matter
        if own_matter and not tells_matter(in_path):
            found |= {("matter_forbidden", 403)}
    if in_path:
        found |= WITH_PATH
    if any(parameter["in"] != "path" for parameter in operation["parameters"]):
        found |= WITH_PARAMETERS
    if content := operation.get("requestBody", {}).get("content"):
        found |= WITH_BODY | (WITH_JSON if "application/json" in content else frozenset())
    return found


def _calls(dependant: Dependant) -> Iterator[Any]:
    """What a route depends on, and what that does."""
    for inner in dependant.dependencies:
        yield inner.call
        yield from _calls(inner)
