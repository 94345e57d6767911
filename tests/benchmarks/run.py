"""Bulk runs beside the same steps in one process without a queue: `make bench NAME=run`.

The developer contracts are reviewed without a generation model, in parts of forty: each part by a run on the stack that
`casemill up` starts and, right after it on the same server and disk, by a loop over the same tasks, on one thread or on
one thread a core, whichever is faster over the first part. `python -m tests.benchmarks.run 60` takes every so-manieth
contract, 60 in all. Equal texts count once, as they are one document. What was uploaded is not part of either.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from gateway.client_file import ClientFile
from gateway.stack.supervisor import Stack
from services.settings import Settings
from tests.conftest import DATA

PART = 40


def main() -> int:
    """Print a table and one JSON line."""
    files = list({file.read_bytes(): file for file in sorted((DATA / "cuad" / "texts").glob("*.txt"))}.values())
    count = int(sys.argv[1]) if len(sys.argv) > 1 else len(files)
    files = files[:: max(1, len(files) // count)][:count]
    # Every tenth and so on, so that each part has short and long contracts.
    step = -(-len(files) // PART)
    parts = [files[at::step] for at in range(step)]
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_validate({"data_dir": Path(folder), "port": 0, "flower_port": 0})
        with Stack(settings, print) as stack:
            url = stack.start().url
            few = {threads: in_one_process(settings, parts[0], threads) for threads in (1, psutil.cpu_count() or 2)}
            best = min(few, key=lambda threads: few[threads])
            ours = alone = 0.0
            memory: list[float] = []
            for part in parts:
                ours += queued(settings, url, part)
                memory.append(resident())
                alone += in_one_process(settings, part, best)
                print(f"{len(part)} more: {ours:.0f} s by runs, {alone:.0f} s in one process", flush=True)
    # The first part loads models and fills what is kept, the second has the size of all later ones.
    growth = round((memory[-1] - memory[min(1, len(memory) - 1)]) / 2**20, 1)
    rows: dict[str, Any] = {"documents": len(files), "runs, documents/s": round(len(files) / ours, 3)}
    rows |= {f"first part, one process, {n} threads, documents/s": round(len(parts[0]) / few[n], 3) for n in few}
    rows[f"one process, {best} threads, documents/s"] = round(len(files) / alone, 3)
    for name, value in rows.items():
        print(f"{name:50s} {value}")
    print(
        json.dumps({"docs_per_s": rows["runs, documents/s"], "ratio": round(alone / ours, 3), "rss_growth_mb": growth})
    )
    return 0


def queued(settings: Settings, url: str, files: list[Path]) -> float:
    """Seconds that a run over these documents takes."""
    known = ClientFile(settings.data_dir).read()
    headers = {"Authorization": f"Bearer {known.key if known else ''}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as http:
        ids = [
            http.post("/v1/documents", params={"name": file.name, "read": "false"}, content=file.read_bytes()).json()
            for file in files
        ]
        body = {"name": "bench", "documents": [item["id"] for item in ids], "model": "none"}
        run = http.post("/v1/runs", json=body).json()
        while not (view := http.get(f"/v1/runs/{run['id']}").json())["finished_at"]:
            time.sleep(0.2)
    if view["succeeded"] != len(files):
        raise SystemExit(f"{view['failed']} documents failed: {view['problem']}")
    return _seconds(view["finished_at"]) - _seconds(view["created_at"])


def resident() -> float:
    """Memory of every process of the stack."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def in_one_process(settings: Settings, files: list[Path], threads: int) -> float:
    """Seconds that the tasks take, called one after the other in a process of their own as a worker is one."""
    command = [sys.executable, "-m", "tests.benchmarks.run_alone", str(settings.data_dir), str(threads)]
    listed = "\n".join(str(file) for file in files)
    answer = subprocess.run(command, input=listed, capture_output=True, text=True, check=True).stdout
    return float(answer.splitlines()[-1])


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


if __name__ == "__main__":
    sys.exit(main())
