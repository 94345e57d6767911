"""The scripted gateway, for the blocking and the awaiting client in turn."""

from __future__ import annotations

import pytest

from tests.scripted_gateway import Clock, Gateway


@pytest.fixture(params=["blocking", "awaiting"])
def gateway(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    clock = Clock()
    clock.install(monkeypatch)
    return Gateway(request.param == "awaiting", clock)
