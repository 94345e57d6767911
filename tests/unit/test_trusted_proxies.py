"""Whose word the gateway takes for where a request comes from."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from pydantic import ValidationError

from gateway.serving import serving_options
from services.settings import Settings


@pytest.mark.parametrize(
    ("trusted", "seen"),
    [("", "127.0.0.1"), ("10.0.0.0/8", "127.0.0.1"), ("10.0.0.1, 127.0.0.0/8", "203.0.113.9")],
)
def test_only_a_trusted_proxy_says_for_whom_it_asks(trusted: str, seen: str) -> None:
    found: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append(scope["client"][0])

    options = serving_options(Settings(trusted_proxies=trusted))
    config = uvicorn.Config(app, log_config=None, **options)
    config.load()
    forwarded = [(b"x-forwarded-for", b"203.0.113.9")]
    scope: Any = {"type": "http", "client": ("127.0.0.1", 1), "scheme": "http", "headers": forwarded}
    served: Any = config.loaded_app
    asyncio.run(served(scope, None, None))
    assert found == [seen]


def test_a_proxy_is_an_address_or_a_network() -> None:
    with pytest.raises(ValidationError):
        Settings(trusted_proxies="*")
