"""The scan of the developer contracts on the GPU beside the CPU path: `make bench NAME=scan`.

Each text alone and all of them joined, after a first scan that prepares both engines; ``CASEMILL_ADAPTER`` names the
adapter. A folder of texts can be given instead of the shared data.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from services.findings import Finding
from services.playbooks import default_playbook
from services.settings import Settings
from shaders.runtime import runtime
from workers.analysis.scan import Device, scan

DATA = Path(__file__).parents[3] / "shared" / "data" / "cuad" / "texts"


def main() -> int:
    """Print one JSON line."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DATA
    texts = [path.read_bytes().decode() for path in sorted(folder.glob("*.txt"))]
    if not texts:
        print(f"no texts in {folder}")
        return 1
    joined = "".join(texts)
    cpu, cpu_seconds, cpu_joined = timed(texts, joined, "cpu")
    gpu, gpu_seconds, gpu_joined = timed(texts, joined, "gpu")
    figures = {
        "adapter": runtime(Settings().adapter).name,
        "texts": len(texts),
        "characters": len(joined),
        "findings": sum(map(len, cpu)),
        "equal_texts": sum(one == other for one, other in zip(cpu, gpu, strict=True)),
        "cpu_s": round(cpu_seconds, 3),
        "gpu_s": round(gpu_seconds, 3),
        "cpu_joined_s": round(cpu_joined, 3),
        "gpu_joined_s": round(gpu_joined, 3),
    }
    print(json.dumps(figures))
    return 0


def timed(texts: list[str], joined: str, device: Device) -> tuple[list[tuple[Finding, ...]], float, float]:
    """Findings of each text, seconds for all of them one by one, and seconds for them joined."""
    playbook, adapter = default_playbook(), Settings().adapter
    scan(texts[0], playbook, device=device, adapter=adapter)
    begun = time.perf_counter()
    found = [scan(text, playbook, device=device, adapter=adapter).findings for text in texts]
    alone = time.perf_counter() - begun
    begun = time.perf_counter()
    scan(joined, playbook, device=device, adapter=adapter)
    return found, alone, time.perf_counter() - begun


if __name__ == "__main__":
    sys.exit(main())
