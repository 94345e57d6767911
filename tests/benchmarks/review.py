"""Reviews without a language model through the whole stack, and where their time goes: `make bench NAME=review`.

A run over the developer contracts by the stack that `casemill up` starts; each result says what its steps took. The
seconds of a step are those of the clock, so on busy cores they hold what others computed meanwhile. An argument takes
every so-manieth contract, so many in all.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import httpx

from gateway.client_file import ClientFile
from gateway.stack.supervisor import Stack
from services.settings import Settings
from tests.benchmarks.run import queued
from tests.conftest import DATA

COUNT = 40


def main() -> int:
    """Print a table and one JSON line."""
    files = sorted((DATA / "cuad" / "texts").glob("*.txt"))
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    files = files[:: max(1, len(files) // count)][:count]
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_validate({"data_dir": Path(folder), "port": 0, "flower_port": 0})
        with Stack(settings, print) as stack:
            url = stack.start().url
            rate = len(files) / queued(settings, url, files)
            steps = step_seconds(settings, url)
    characters = sum(len(file.read_bytes().decode()) for file in files)
    total = sum(steps.values())
    print(f"{len(files)} documents, {characters / len(files):,.0f} characters each, {rate:.3f} documents/s")
    for step, seconds in sorted(steps.items(), key=lambda item: -item[1]):
        print(f"{step:12s} {seconds / len(files):7.3f} s a document  {seconds / total:6.1%}")
    shares = {f"share_{step}": round(seconds / total, 4) for step, seconds in steps.items()}
    print(json.dumps({"docs_per_s": round(rate, 3)} | shares))
    return 0


def step_seconds(settings: Settings, url: str) -> dict[str, float]:
    """Seconds of each step over all reviews."""
    known = ClientFile(settings.data_dir).read()
    headers = {"Authorization": f"Bearer {known.key if known else ''}"}
    found: defaultdict[str, float] = defaultdict(float)
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as http:
        run = http.get("/v1/runs").json()["data"][0]["id"]
        with http.stream("GET", f"/v1/runs/{run}/results") as answer:
            for line in answer.iter_lines():
                for step, seconds in json.loads(line)["result"]["provenance"]["seconds"].items():
                    found[step] += seconds
    return dict(found)


if __name__ == "__main__":
    sys.exit(main())
