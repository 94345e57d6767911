"""Answers with an ``ETag`` of their content, and 304 to whoever has that content already (RFC 9110)."""

from __future__ import annotations

import hashlib
import re

from fastapi import Request, Response
from pydantic import BaseModel

_TAG = re.compile(r'(?:W/)?("[^"]*")')
# A copy may be kept by the client alone, and is asked about before it is used.
CACHE_CONTROL = "private, no-cache"


def conditional(request: Request, view: BaseModel) -> Response:
    """The view as JSON, or 304 when the request names its tag."""
    body = view.model_dump_json().encode()
    tag = entity_tag(body)
    return not_modified(request, tag) or Response(body, media_type="application/json", headers=validators(tag))


def entity_tag(content: bytes) -> str:
    """The tag of some content."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def not_modified(request: Request, tag: str) -> Response | None:
    """304, when ``If-None-Match`` of the request names the tag."""
    asked = ",".join(request.headers.getlist("if-none-match"))
    if asked.strip() == "*" or tag in _TAG.findall(asked):
        return Response(status_code=304, headers=validators(tag))
    return None


def validators(tag: str) -> dict[str, str]:
    """The headers of an answer that has the tag."""
    return {"ETag": tag, "Cache-Control": CACHE_CONTROL}
