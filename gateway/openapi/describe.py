"""Makes the API's description: what FastAPI reads off the routes, completed by what these declare beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from pydantic.json_schema import models_json_schema

from gateway.matters import tells_matter
from gateway.openapi.answers import REFERRED
from gateway.openapi.example_ids import EXAMPLE_IDS
from gateway.openapi.examples import add_examples
from gateway.openapi.headers import HEADERS, RATES, header_refs
from gateway.openapi.links import add_links
from gateway.openapi.problems import ALWAYS, EXAMPLES, WITH_BODY, WITH_JSON, WITH_PARAMETERS, WITH_PATH, problem_answers
from gateway.openapi.raises import Problem, problems_of
from gateway.openapi.words import DESCRIPTION, TAGS
from gateway.problems import speaks_openai
from gateway.state import SESSION_COOKIE, Scoped, principal_of

_UNSAID: Final = "Successful Response"
_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_REQUEST_ID: Final[dict[str, Any]] = {
    "name": "X-Request-ID",
    "in": "header",
    "description": "your own id for the request, to find it in answers, jobs and logs: up to 128 letters, digits and "
    "any of `_.:-`; one is made where you send none or another",
    "schema": {"type": "string"},
}
_SCHEMES: Final[dict[str, Any]] = {
    "key": {"type": "http", "scheme": "bearer", "bearerFormat": "cm_…", "description": "An API key."},
    "password": {"type": "http", "scheme": "basic", "description": "The API key as the password, any user."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": SESSION_COOKIE,
        "description": "A browser's session, which a one-time log-in link opens.",
    },
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the application, made once."""
    if app.openapi_schema is None:
        app.openapi_schema = _described(app)
    return app.openapi_schema


def _described(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes, tags=TAGS)
    components = document["components"]
    schemas = components["schemas"]
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                _complete(
                    document["paths"][route.path_format][method.lower()], route, route.original_route.endpoint, schemas
                )
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, in whose place problems are answered
        schemas.pop(name, None)
    _, extra = models_json_schema(
        [(model, "serialization") for model in REFERRED], ref_template="#/components/schemas/{model}"
    )
    for name, schema in extra.get("$defs", {}).items():
        schemas.setdefault(name, schema)
    components["schemas"] = {name: _untitled(schemas[name]) for name in sorted(schemas)}
    components |= {
        "securitySchemes": _SCHEMES,
        "headers": HEADERS,
        "examples": EXAMPLES,
        "parameters": {"X-Request-ID": _REQUEST_ID},
    }
    return document


def _complete(
    operation: dict[str, Any], route: RouteContext, endpoint: Callable[..., Any], schemas: dict[str, Any]
) -> None:
    """Add to an operation what FastAPI does not know of it."""
    calls = list(_calls(route.dependant))
    scope = next((call for call in calls if isinstance(call, Scoped)), None)
    operation["operationId"] = endpoint.__name__
    operation["summary"] = endpoint.__name__.replace("_", " ").capitalize()
    if scope:
        operation["security"] = [{name: [scope.scope]} for name in _SCHEMES]
        operation["description"] += f"\n\nNeeds a key with the scope `{scope.scope}`."
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            parameter["example"] = EXAMPLE_IDS[parameter["name"]]
        parameter["schema"] = _sent(_untitled(parameter["schema"]), header=parameter["in"] == "header")
        if "description" not in parameter and (said := _said(parameter["schema"])):
            parameter["description"] = said
    answers = operation["responses"]
    answers.pop("422", None)
    template = str(route.path_format)
    path = _PARAMETER.sub(lambda name: EXAMPLE_IDS[name[1]], template)
    rates = (RATES if speaks_openai(path) else ("RateLimit", "RateLimit-Policy")) if scope else ()
    for answer in answers.values():
        if answer["description"] == _UNSAID:
            answer["description"] = _said_of(answer, schemas)
        if "content" in answer:
            answer["content"] = dict(sorted(answer["content"].items(), key=lambda kind: kind[0] != "application/json"))
        answer["headers"] = answer.get("headers", {}) | header_refs("X-Request-ID", *rates)
    problems = _problems(operation, scope, _PARAMETER.findall(template)).union(*map(problems_of, [endpoint, *calls]))
    for status, answer in problem_answers(problems, path, openai=speaks_openai(path)).items():
        answers.setdefault(status, answer)
    operation["responses"] = {status: answers[status] for status in sorted(answers)}
    add_examples(operation)
    operation.setdefault("parameters", [])
    add_links(operation)
    operation["parameters"].append({"$ref": "#/components/parameters/X-Request-ID"})


def _sent(schema: dict[str, Any], *, header: bool) -> dict[str, Any]:
    """The schema of a parameter that is sent: it is then never null, and a header is one text."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        schema = {name: value for name, value in schema.items() if name != "anyOf"} | kinds[0]
    return {"type": "string"} if header and schema.get("type") == "array" else schema


def _said(schema: dict[str, Any]) -> str | None:
    """What a parameter's schema says of it, or one of those that it may be."""
    return next((one["description"] for one in [schema, *schema.get("anyOf", ())] if "description" in one), None)


def _said_of(answer: dict[str, Any], schemas: dict[str, Any]) -> str:
    """What an answer is: the first sentence of its model."""
    for content in answer.get("content", {}).values():
        if name := content.get("schema", {}).get("$ref", "").rpartition("/")[2]:
            return schemas[name].get("description", "A page of the list").partition(".")[0].partition(";")[0]
        return "The text"
    return "Done; there is no body"


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
    if operation.get("parameters"):
        found |= WITH_PARAMETERS if any(item["in"] != "path" for item in operation["parameters"]) else frozenset()
    if content := operation.get("requestBody", {}).get("content"):
        found |= WITH_BODY | (WITH_JSON if "application/json" in content else frozenset())
    return found


def _calls(dependant: Dependant) -> Iterator[Any]:
    for inner in dependant.dependencies:
        yield inner.call
        yield from _calls(inner)


def _untitled(schema: Any) -> Any:
    """A schema without the titles that only repeat the names of its members."""
    if isinstance(schema, dict):
        members = cast(dict[str, Any], schema)
        return {
            name: {one: _untitled(inner) for one, inner in value.items()} if name == "properties" else _untitled(value)
            for name, value in members.items()
            if name != "title" or not isinstance(value, str)
        }
    if isinstance(schema, list):
        return [_untitled(item) for item in cast(list[Any], schema)]
    return schema
