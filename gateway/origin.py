"""Keeps pages of other origins from acting by a browser's session: a cookie goes along with whatever the browser sends.

``SameSite=Strict`` on the cookie keeps other sites out, but another port of the same host, or another host of the same
domain, is the same site. So what changes something has to say that it comes from here: by ``Sec-Fetch-Site`` (Fetch
Metadata), or by ``Origin``, which browsers send with every such request, where the gateway is reached over plain HTTP
and they leave out the former.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from fastapi import Request

from gateway.openapi.raises import raises
from services.errors import Forbidden

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@raises("cross_origin")
def check_origin(request: Request) -> None:
    """Raise ``Forbidden`` where a request that a cookie lets in may be another origin's and could change a thing."""
    if request.method in SAFE:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin", "")
    if site == "same-origin":
        return
    if site is None and urlsplit(origin).netloc == request.headers.get("host"):
        return
    raise Forbidden(
        "a browser's session changes nothing for pages of another origin; programs send a key as `Authorization: "
        "Bearer cm_…`",
        code="cross_origin",
    )
