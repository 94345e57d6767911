"""Answers with an ``ETag`` of their content, and 304 to whoever has that content already (RFC 9110)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Header, Response
from pydantic import BaseModel

from gateway.openapi.answers import Answers, answer

_TAG = re.compile(r'(?:W/)?("[^"]*")')
# A copy may be kept by the client alone, and is asked about before it is used.
CACHE_CONTROL = "private, no-cache"
TAGGED: Final[Answers] = {
    200: answer("ETag", "Cache-Control"),
    304: answer("ETag", "Cache-Control", description="The copy that `If-None-Match` names is still right"),
}
"""The answers of a route that is asked on a condition."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What the request has a copy of: the value of ``If-None-Match``."""

    asked: str

    def answer(self, view: BaseModel) -> Response:
        """The view as JSON, or 304 when the request names its tag."""
        body = view.model_dump_json().encode()
        tag = entity_tag(body)
        return self.not_modified(tag) or Response(body, media_type="application/json", headers=validators(tag))

    def not_modified(self, tag: str) -> Response | None:
        """304, when the request names the tag."""
        if self.asked.strip() == "*" or tag in _TAG.findall(self.asked):
            return Response(status_code=304, headers=validators(tag))
        return None


async def _condition(
    if_none_match: Annotated[
        list[str] | None, Header(alias="If-None-Match", description="`ETag` of a copy: 304 while it is still right")
    ] = None,
) -> Condition:
    return Condition(",".join(if_none_match or ()))


Conditional = Annotated[Condition, Depends(_condition)]


def entity_tag(content: bytes) -> str:
    """The tag of some content."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def validators(tag: str) -> dict[str, str]:
    """The headers of an answer that has the tag."""
    return {"ETag": tag, "Cache-Control": CACHE_CONTROL}
