"""A batch of five thousand chats on the fake engine: `make bench NAME=batch`.

OpenAI's own client uploads the file, creates the batch and reads the output, against the stack that `casemill up`
starts. What is measured is the queue and the files: the engine writes made-up words. Memory is the gateway's, the most
that it took beyond what it had before the upload. `python -m tests.benchmarks.batch 50000` takes the longest batch.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import openai
import psutil

from gateway.client_file import ClientFile
from gateway.stack.supervisor import Stack
from services.settings import Settings

LINES = 5000


def main() -> int:
    """Print one JSON line."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else LINES
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "requests.jsonl")
        with source.open("w", encoding="utf-8") as stream:
            stream.writelines(request(number) + "\n" for number in range(count))
        settings = Settings.model_validate({"data_dir": Path(folder), "port": 0, "flower_port": 0, "engine": "fake"})
        with Stack(settings, print) as stack:
            url = stack.start().url
            known = ClientFile(settings.data_dir).read()
            memory = Memory(next(child.pid for child in stack._all() if child.name == "gateway" and child.pid))
            with memory, openai.OpenAI(base_url=f"{url}/v1", api_key=known.key if known else "") as client:
                figures = measured(client, source, count)
    size = round(figures.pop("bytes") / 2**20, 1)
    growth = round(memory.growth / 2**20, 1)
    print(json.dumps({"lines": count, "file_mb": size} | figures | {"gateway_growth_mb": growth}))
    return 0


def request(number: int) -> str:
    """A line of about a kilobyte."""
    messages = [{"role": "user", "content": f"Summarise clause {number}. " + "The tenant pays the rent. " * 32}]
    body = {"model": "fake", "messages": messages, "max_tokens": 32}
    return json.dumps({"custom_id": f"clause-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body})


def measured(client: openai.OpenAI, source: Path, count: int) -> dict[str, float]:
    """Seconds and lines a second of each part."""
    began = time.monotonic()
    with source.open("rb") as stream:
        file = client.files.create(file=stream, purpose="batch")
    uploaded = time.monotonic()
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    answered = time.monotonic()
    validated = 0.0
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
        if not validated and batch.status != "validating":
            validated = time.monotonic()
    ended = time.monotonic()
    found = client.files.content(batch.output_file_id or "").text.splitlines()
    if batch.status != "completed" or len({json.loads(row)["custom_id"] for row in found}) != count:
        raise SystemExit(f"the batch is {batch.status} with {len(found)} lines: {batch.errors}")
    return {
        "upload_s": round(uploaded - began, 3),
        "create_ms": round(1000 * (answered - uploaded), 1),
        "validate_s": round(validated - answered, 2),
        "lines_per_s": round(count / (ended - answered), 1),
        "bytes": float(file.bytes),
    }


class Memory:
    """The most that a process takes while this is entered, beyond what it took then."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.growth = 0

    def __enter__(self) -> Memory:
        self._before = self._process.memory_info().rss
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            self.growth = max(self.growth, self._process.memory_info().rss - self._before)


if __name__ == "__main__":
    sys.exit(main())
