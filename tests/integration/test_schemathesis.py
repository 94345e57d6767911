"""schemathesis over every operation of the API: whatever is sent, the gateway answers as its description says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.openapi.example_ids import EXAMPLE_IDS
from tests.described import NAMES, Description
from tests.integration.conftest import Running, running
from tests.prepared import Prepared

ROOT = Path(__file__).parents[2]
# The same requests each time, so that a failure stays until it is mended; FUZZING_SEED looks further.
SEED = ("--seed", os.environ.get("FUZZING_SEED", "1"))
# A minute or so in `make test`; in `make test-all` every boundary of every schema as well.
BRIEF = ("--phases", "fuzzing,stateful", "--max-examples", "10", *SEED)
LONG = ("--phases", "examples,coverage", "--max-examples", "10", *SEED)
BRIEF_REFUSED = ("--phases", "fuzzing,stateful", "--max-examples", "5", *SEED)
REFUSED = ("--phases", "coverage", "--max-examples", "4", *SEED)


@dataclass(frozen=True)
class Fuzzed:
    """A stack that requests may lay waste, and its description with ids of what is there."""

    stack: Running
    description: Path
    operations: int

    def key(self, *scopes: str) -> str:
        answer = self.stack.http.post("/v1/keys", json={"name": "fuzzing", "scopes": scopes})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["key"])

    def run(self, key: str | None, options: tuple[str, ...]) -> str:
        """What schemathesis says; fails with all of it where it has found something."""
        sent = ["-H", f"Authorization: Bearer {key}"] if key else []
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            "--config-file",
            "tests/schemathesis.toml",
            "run",
        ]
        # One worker: hypothesis parses source, which fails in several threads of Python 3.11 at once.
        command += [str(self.description), "--url", self.stack.url, "--workers", "1", *sent, *options]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "FUZZING_KEY_ID": key.split("_")[1] if key else ""}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{self.operations} selected / {self.operations} total" in done.stdout, done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    folder = tmp_path_factory.mktemp("fuzzed")
    with running(folder / "data", max_wait_seconds=1) as stack:
        ids = Prepared(stack).ids
        text = stack.http.get("/openapi.json").text
        for name, known in EXAMPLE_IDS.items():
            text = text if name in NAMES else text.replace(known, ids[name])
        file = folder / "openapi.json"
        file.write_text(text, encoding="utf-8")
        yield Fuzzed(stack, file, len(list(Description(stack.http.get("/openapi.json").json()).operations())))


@pytest.mark.parametrize("options", [BRIEF, pytest.param(LONG, marks=pytest.mark.slow)], ids=["brief", "long"])
def test_with_a_key_that_may_everything(fuzzed: Fuzzed, options: tuple[str, ...]) -> None:
    said = fuzzed.run(fuzzed.key("submit", "read", "admin", "operator"), options)
    assert "Authentication failed" not in said, said


@pytest.mark.parametrize(
    "options", [BRIEF_REFUSED, pytest.param(REFUSED, marks=pytest.mark.slow)], ids=["brief", "long"]
)
@pytest.mark.parametrize("scopes", [(), ("read",)], ids=["no key", "read"])
def test_with_no_key_and_with_one_of_few_scopes(
    fuzzed: Fuzzed, scopes: tuple[str, ...], options: tuple[str, ...]
) -> None:
    said = fuzzed.run(fuzzed.key(*scopes) if scopes else None, options)
    assert "Authentication failed" in said, said
