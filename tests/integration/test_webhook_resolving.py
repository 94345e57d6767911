"""An endpoint whose host the resolver does not find in time, over HTTP."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gateway import resolving
from tests.integration.test_keys import Served, gateway, installation, refused
from tests.integration.test_lifecycle import tidy

__all__ = ["gateway", "installation", "tidy"]  # fixtures


def test_a_resolver_that_hangs_holds_up_nobody(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    admin, over, find = gateway.make(), threading.Event(), socket.getaddrinfo

    def hang(host: Any, *asked: Any, **more: Any) -> Any:
        if host == "hangs.example":
            over.wait()
            raise socket.gaierror
        return find(host, *asked, **more)

    monkeypatch.setattr(resolving, "SECONDS", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        with ThreadPoolExecutor(2 * resolving.THREADS) as many:
            wanted = [{"url": "https://hangs.example/hook"}] * 2 * resolving.THREADS
            for answer in many.map(lambda body: admin.post("/v1/webhooks", json=body), wanted):
                refused(answer, 422, "webhook_unresolved")
        assert not over.is_set()
    finally:
        over.set()
