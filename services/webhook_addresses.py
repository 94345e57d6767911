"""Which addresses a webhook may be sent to: asked when an endpoint is registered, and again before each connection."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import Final

import httpx

from services.errors import InvalidRequest
from services.settings import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_URL = 2048
# Whatever the allow-list says: link-local, metadata services of clouds, "this host", multicast, reserved, and forms
# of IPv6 that carry an IPv4 address which would have to be judged in its place.
REFUSED: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32"),
        *("224.0.0.0/4", "240.0.0.0/4", "::/128", "fe80::/10", "fec0::/10", "ff00::/8"),
        *("fd00:ec2::/32", "fd20:ce::254/128", "fd00:42::42/128"),
        *("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"),
    )
)


def checked_url(url: str) -> httpx.URL:
    """An endpoint's URL; raises ``InvalidRequest`` with the reason why it cannot be one."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise _invalid(f"not a URL: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.raw_host:
        raise _invalid("an endpoint's address begins with https:// or http:// and names a host")
    if parsed.userinfo or parsed.fragment:
        raise _invalid("an endpoint's address has neither a user nor a #fragment; put a token into its path or query")
    if len(url) > MAX_URL:
        raise _invalid(f"an endpoint's address has at most {MAX_URL} characters")
    return parsed


def host_name(url: httpx.URL) -> str:
    """The host as it goes over the wire; ``url.host`` would decode it, which fails for some names."""
    return url.raw_host.decode("ascii")


def resolve(url: httpx.URL, allowed: Sequence[Network]) -> list[str]:
    """The addresses that the URL's host has now, in the order in which to try them; every one has passed the check.

    Raises ``InvalidRequest`` ``webhook_unresolved`` or ``webhook_address_refused``. Who connects to what this answers,
    and asks no resolver again, cannot be led elsewhere by a name that changes its mind.
    """
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host_name(url), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, OverflowError) as error:
        raise InvalidRequest(
            f"the host {host_name(url)!r} does not resolve ({type(error).__name__}); check the name",
            code="webhook_unresolved",
        ) from None
    addresses = list(dict.fromkeys(str(row[4][0]) for row in found))
    for address in addresses:
        _check(url, ipaddress.ip_address(address), allowed)
    return addresses


def _check(url: httpx.URL, address: Address, allowed: Sequence[Network]) -> None:
    judged = (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address
    if any(judged in network for network in REFUSED) or not any(judged in network for network in allowed):
        raise InvalidRequest(
            f"{host_name(url)} is at {address}, which lies in no network that webhooks may go to; "
            "CASEMILL_WEBHOOK_NETWORKS lists those, and link-local and metadata addresses are never among them",
            code="webhook_address_refused",
        )
    if url.scheme == "http" and judged.is_global:
        raise InvalidRequest(
            f"{host_name(url)} is at {address}, outside the private networks; use https:// there",
            code="webhook_url_invalid",
        )


def _invalid(detail: str) -> InvalidRequest:
    return InvalidRequest(detail, code="webhook_url_invalid")
