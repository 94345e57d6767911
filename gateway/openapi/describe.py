"""Makes the API's description: what FastAPI reads off the routes, completed by what these declare beside it."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic.json_schema import models_json_schema

from gateway.openapi.answers import REFERRED
from gateway.openapi.headers import HEADERS
from gateway.openapi.messages import described_messages
from gateway.openapi.operations import complete
from gateway.openapi.problems import EXAMPLES, RESPONSES
from gateway.openapi.schema_forms import untitled
from gateway.openapi.words import DESCRIPTION, TAGS
from gateway.state import SESSION_COOKIE

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
    document["webhooks"] = described_messages()
    components: dict[str, Any] = document["components"]
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, APIRoute) and route.include_in_schema:
            path = str(route.path_format)
            for method in route.methods or ():
                operation = document["paths"][path][method.lower()]
                complete(operation, path, route.original_route, components["schemas"], list(_SCHEMES))
    components["schemas"] = _schemas(components["schemas"])
    components |= {
        "securitySchemes": _SCHEMES,
        "headers": HEADERS,
        "examples": EXAMPLES,
        "responses": dict(sorted(RESPONSES.items())),
        "parameters": {"X-Request-ID": _REQUEST_ID},
    }
    return document


def _schemas(known: dict[str, Any]) -> dict[str, Any]:
    """All that is referred to, by name; without FastAPI's own errors, in whose place problems are answered."""
    _, more = models_json_schema(
        [(model, "serialization") for model in REFERRED], ref_template="#/components/schemas/{model}"
    )
    found = more.get("$defs", {}) | known
    own = sorted(found.keys() - {"HTTPValidationError", "ValidationError"})
    return {name: untitled(found[name]) for name in own}
