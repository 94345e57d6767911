"""What a run over many documents takes of Redis and the gateway, for short and long texts: `make bench NAME=footprint`.

10,000 documents, or as many as given, are uploaded to a stack with the fake engine and reviewed by one run, whose
results are read at the end; then the same on another stack with texts ten times as long. Neither may grow with the
texts. Redis's memory is what was added for each document, without records of steps, which go within ten minutes, and
without the index of known vectors, which is bounded and stands in a line of its own. The gateway's growth is the most
that it had after a tenth of the uploads, beyond what it had then.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import psutil

from gateway.client_file import ClientFile
from gateway.stack.supervisor import Stack
from gateway.stack.valkey import reachable_settings
from services.keys import Keys
from services.redis_client import connect
from services.settings import Settings

COUNT = 10_000
LENGTHS = {"short": 1, "ten times as long": 10}
# Seconds after which every record of a step is gone, as services/lua/transitions.lua says.
STEP_SECONDS = 600
CHUNK = 1000


def main() -> int:
    """Print a table and one JSON line."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    found = {length: measure(count, times) for length, times in LENGTHS.items()}
    for row in (
        "bytes of a text",
        "documents/s",
        "Redis, bytes/document",
        "known vectors, MB",
        "gateway, MB",
        "growth, MB",
    ):
        print(f"{row:26s}" + "".join(f"{figures[row]:>14}" for figures in found.values()))
    short, long = found.values()
    print(
        json.dumps(
            {
                "documents": count,
                "redis_bytes_per_document": short["Redis, bytes/document"],
                "redis_bytes_per_document_long": long["Redis, bytes/document"],
                "gateway_growth_mb": short["growth, MB"],
                "gateway_growth_mb_long": long["growth, MB"],
            }
        )
    )
    return 0


def measure(count: int, times: int) -> dict[str, Any]:
    """The figures of one stack over documents of ``times`` the length."""
    with tempfile.TemporaryDirectory() as folder:
        values = {"data_dir": Path(folder) / "data", "port": 0, "flower_port": 0, "engine": "fake"}
        settings = Settings.model_validate(values)
        with Stack(settings, print) as stack:
            url = stack.start().url
            known = ClientFile(settings.data_dir).read()
            redis: Any = connect(reachable_settings(settings))
            (gateway,) = (psutil.Process(child.pid) for child in stack._all() if child.name == "gateway")
            empty = redis.info("memory")["used_memory"]
            headers = {"Authorization": f"Bearer {known.key if known else ''}"}
            with httpx.Client(base_url=url, headers=headers, timeout=600, trust_env=False) as http:
                resident = uploaded(http, gateway, count, times)
                began = time.monotonic()
                resident += reviewed(http, gateway, count)
            took = time.monotonic() - began
            forget_steps(redis, Keys(settings.prefix))
            vectors = sum(redis.memory_usage(name) for name in redis.scan_iter(f"{settings.prefix}vectors*"))
            added = redis.info("memory")["used_memory"] - empty - vectors
    return {
        "bytes of a text": len(text(0, times)),
        "documents/s": round(count / took, 1),
        "Redis, bytes/document": round(added / count),
        "known vectors, MB": round(vectors / 2**20, 1),
        "gateway, MB": round(resident[0] / 2**20, 1),
        "growth, MB": round((max(resident) - resident[0]) / 2**20, 1),
    }


def text(number: int, times: int) -> str:
    """A contract of which no sentence stands in another; its length hardly depends on ``number``."""
    return "\n\n".join(
        f"{part}. Under contract {number:06d}.{part:02d} either party may terminate on notice of {part + 30} days. "
        "The tenant shall pay the rent in advance and shall keep the premises in good repair at its own expense. "
        f"Notices under clause {number:06d}.{part:02d} are in writing."
        for part in range(4 * times)
    )


def uploaded(http: httpx.Client, gateway: psutil.Process, count: int, times: int) -> list[int]:
    """Upload all documents; the gateway's bytes after a tenth of them, and now and then from there on."""
    resident: list[int] = []
    for number in range(count):
        named = {"name": f"{number}.txt", "matter": "footprint", "read": "false"}
        http.post("/v1/documents", params=named, content=text(number, times).encode()).raise_for_status()
        if (number + 1) % max(1, count // 10) == 0:
            resident.append(gateway.memory_info().rss)
    return resident


def reviewed(http: httpx.Client, gateway: psutil.Process, count: int) -> list[int]:
    """Review them by one run and read its results; the gateway's bytes now and then."""
    resident: list[int] = []
    run = http.post("/v1/runs", json={"name": "footprint", "matter": "footprint", "model": "none"}).json()["id"]
    while not (view := http.get(f"/v1/runs/{run}").json())["finished_at"]:
        resident.append(gateway.memory_info().rss)
        time.sleep(1)
    if view["succeeded"] != count:
        raise SystemExit(f"{view['failed']} documents failed: {view['problem']}")
    with http.stream("GET", f"/v1/runs/{run}/results") as answer:
        lines = sum(1 for _ in answer.iter_lines())
    if lines != count:
        raise SystemExit(f"{lines} results instead of {count}")
    return [*resident, gateway.memory_info().rss]


def forget_steps(redis: Any, keys: Keys) -> None:
    """Let go now what goes within ten minutes, so that figures do not depend on how long the run took."""
    names = redis.scan_iter(keys("job", tenant="*", id="*"), count=CHUNK)
    for some in chunks(names):
        pipeline = redis.pipeline(transaction=False)
        for name in some:
            pipeline.ttl(name)
        gone = [name for name, ttl in zip(some, pipeline.execute(), strict=True) if 0 <= ttl <= STEP_SECONDS]
        if gone:
            redis.delete(*gone)


def chunks(names: Iterator[str]) -> Iterator[list[str]]:
    """The names, so many at a time as one round trip takes."""
    while some := list(islice(names, CHUNK)):
        yield some


if __name__ == "__main__":
    sys.exit(main())
