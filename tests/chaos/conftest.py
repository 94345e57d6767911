"""Fixtures of the chaos tests: a server of their own that they may kill, and a queue on it with short leases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.stack.valkey import EmbeddedValkey
from services.lifecycle import Lifecycle
from services.settings import Settings
from tests.chaos.installation import LEASE


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A server of the test's own, to be killed."""
    server = EmbeddedValkey(tmp_path / "valkey")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def queue(request: pytest.FixtureRequest, valkey: EmbeddedValkey, tmp_path: Path) -> Iterator[Lifecycle]:
    """An installation with short leases, or those of the parameter, and the fake engine."""
    lease = getattr(request, "param", LEASE)
    values = {"REDIS_URL": valkey.url, "lease_seconds": lease, "data_dir": tmp_path, "engine": "fake"}
    lifecycle = Lifecycle(Settings.model_validate(values))
    yield lifecycle
    lifecycle.client.close()
