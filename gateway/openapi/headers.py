"""The headers of answers, each described once; routes name those that their answers have."""

from __future__ import annotations

from typing import Any, Final


def _header(description: str, example: str | int, *, kind: str = "string", required: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {"description": description, "schema": {"type": kind}, "example": example}
    return found | ({"required": True} if required else {})


HEADERS: Final[dict[str, dict[str, Any]]] = {
    "X-Request-ID": _header(
        "The request's id, yours if you sent one; it stands in the job and in the workers' logs.",
        "req_3f0c9a7be15d48c2a6e19b70",
        required=True,
    ),
    "Location": _header("Path of what was made.", "/v1/jobs/job_019a3f6be2404c1d9e5b7a80f2c3d4e5", required=True),
    "Retry-After": _header("Seconds after which to ask again.", 2, kind="integer", required=True),
    "Preference-Applied": _header("What of `Prefer` was followed (RFC 7240).", "wait=10"),
    "ETag": _header(
        "Stands for this content; send it as `If-None-Match`.", '"5f2b8c1e9d3a47f06b8e2c1d9a3f5e70"', required=True
    ),
    "Cache-Control": _header("Whether and how a copy may be kept.", "private, no-cache", required=True),
    "Content-Disposition": _header("A name for the file.", 'attachment; filename="results.jsonl"', required=True),
    "X-Accel-Buffering": _header("Asks proxies to pass each event on as it comes.", "no", required=True),
    "Accept": _header("The media type that the body has to have.", "application/json", required=True),
    "WWW-Authenticate": _header("How a key is sent.", 'Bearer realm="casemill", Basic realm="casemill"', required=True),
    "RateLimit-Policy": _header(
        "The limits of the key and its tenant, where there are any: requests or tokens of a window in seconds.",
        '"requests";q=600;w=60',
    ),
    "RateLimit": _header("What is left of them, and in how many seconds all is.", '"requests";r=598;t=1'),
    "x-ratelimit-limit-requests": _header(
        "The tightest limit of requests a minute, as OpenAI's clients read it.", 600, kind="integer"
    ),
    "x-ratelimit-remaining-requests": _header("Requests that are left of it.", 598, kind="integer"),
    "x-ratelimit-reset-requests": _header("Until all are.", "1s"),
    "x-ratelimit-limit-tokens": _header("The tightest limit of tokens a minute.", 100_000, kind="integer"),
    "x-ratelimit-remaining-tokens": _header("Tokens that are left of it.", 99_744, kind="integer"),
    "x-ratelimit-reset-tokens": _header("Until all are.", "1s"),
}
RATES: Final = tuple(name for name in HEADERS if "ratelimit" in name.lower())
"""Those of every answer to a key that has limits."""


def header_refs(*names: str) -> dict[str, Any]:
    """References to the descriptions of these headers; a ``?`` behind a name says that it is not always sent.

    Raises ``KeyError`` for one that has no description.
    """
    return {name.removesuffix("?"): _ref(name) for name in names}


def _ref(name: str) -> dict[str, Any]:
    header = HEADERS[name.removesuffix("?")]
    if name.endswith("?"):
        return {what: said for what, said in header.items() if what != "required"}
    return {"$ref": f"#/components/headers/{name}"}
