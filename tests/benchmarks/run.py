"""A bulk run beside the same steps in one process without a queue: `make bench NAME=run`.

The developer contracts are reviewed without a generation model, by the stack that `casemill up` starts and, on the same
server and disk, by a loop over the same tasks: on one thread or on one thread a core, whichever is faster over a tenth
of them. `python -m tests.benchmarks.run 60` takes every so-manieth contract, 60 in all. Equal texts count once, as they
are one document. What was uploaded is not part of either.
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


def main() -> int:
    """Print a table and one JSON line."""
    files = list({file.read_bytes(): file for file in sorted((DATA / "cuad" / "texts").glob("*.txt"))}.values())
    count = int(sys.argv[1]) if len(sys.argv) > 1 else len(files)
    files = files[:: max(1, len(files) // count)][:count]
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_validate({"data_dir": Path(folder), "port": 0, "flower_port": 0})
        with Stack(settings, print) as stack:
            url = stack.start().url
            ours, growth = queued(settings, url, files)
            few = {threads: in_one_process(settings, files[::10], threads) for threads in (1, psutil.cpu_count() or 2)}
            best = max(few, key=lambda threads: few[threads])
            alone = in_one_process(settings, files, best)
    rows: dict[str, Any] = {"documents": len(files), "queue documents/s": round(ours, 3)}
    rows |= {f"a tenth, one process, {threads} threads, documents/s": round(rate, 3) for threads, rate in few.items()}
    rows[f"one process, {best} threads, documents/s"] = round(alone, 3)
    for name, value in rows.items():
        print(f"{name:50s} {value}")
    figures = {"docs_per_s": round(ours, 3), "ratio": round(ours / alone, 3), "rss_growth_mb": growth}
    print(json.dumps(figures))
    return 0


def queued(settings: Settings, url: str, files: list[Path]) -> tuple[float, float]:
    """Documents a second of a run, and growth of the stack's memory in MB from its first fifth to its end."""
    known = ClientFile(settings.data_dir).read()
    headers = {"Authorization": f"Bearer {known.key if known else ''}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as http:
        ids = [
            http.post("/v1/documents", params={"name": file.name, "read": "false"}, content=file.read_bytes()).json()
            for file in files
        ]
        body = {"name": "bench", "documents": [item["id"] for item in ids], "model": "none"}
        run = http.post("/v1/runs", json=body).json()
        before = 0.0
        while True:
            view = http.get(f"/v1/runs/{run['id']}").json()
            if not before and view["succeeded"] >= len(files) / 5:
                before = resident()
            if view["finished_at"]:
                break
            time.sleep(0.2)
        growth = resident() - before
    if view["succeeded"] != len(files):
        raise SystemExit(f"{view['failed']} documents failed: {view['problem']}")
    seconds = _seconds(view["finished_at"]) - _seconds(view["created_at"])
    return len(files) / seconds, round(growth / 2**20, 1)


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
    """Documents a second of the tasks called one after the other, in a process of their own as a worker is one."""
    command = [sys.executable, "-m", "tests.benchmarks.run_alone", str(settings.data_dir), str(threads)]
    listed = "\n".join(str(file) for file in files)
    answer = subprocess.run(command, input=listed, capture_output=True, text=True, check=True).stdout
    return float(answer.splitlines()[-1])


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


if __name__ == "__main__":
    sys.exit(main())
