"""The scan of a text by a playbook: picks GPU or CPU, keeps what was prepared for a playbook, returns findings.

Step `scan` of a review; the findings are the same on every device and engine.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias, TypeVar

from services.errors import InvalidRequest
from services.findings import Finding
from services.playbooks import Playbook
from shaders.factors import ScanPlan
from shaders.runtime import runtime
from shaders.scan import GpuScanner
from workers.analysis.ahocorasick_engine import AhoCorasickEngine
from workers.analysis.confirm import confirm

try:
    from workers.analysis.hyperscan_engine import HyperscanEngine as CpuEngine
except ModuleNotFoundError:  # no wheel for this system
    CpuEngine = AhoCorasickEngine  # the same hits, slower

Device: TypeAlias = Literal["cpu", "gpu", "any"]
_Made = TypeVar("_Made")
_KEPT = 32  # prepared plans and engines; a worker sees few playbooks


@dataclass(frozen=True, slots=True)
class ScanResult:
    """``findings`` by start; ``engine`` names the library or the GPU adapter that ran; ``seconds`` of wall time."""

    findings: tuple[Finding, ...]
    engine: str
    seconds: float


class _Kept:
    """What is costly to prepare and the same for every text, most recently used last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: OrderedDict[tuple[str, ...], object] = OrderedDict()

    def get(self, key: tuple[str, ...], kind: type[_Made], make: Callable[[], _Made]) -> _Made:
        with self._lock:
            made = self._made.get(key)
            if not isinstance(made, kind):
                made = self._made[key] = make()
            self._made.move_to_end(key)
            while len(self._made) > _KEPT:
                self._made.popitem(last=False)
            return made


_kept = _Kept()


def scan(text: str, playbook: Playbook, *, device: Device = "any", adapter: str | None = None) -> ScanResult:
    """Find the playbook's terms in ``text``.

    ``device`` ``any`` takes the CPU: one text is too small for a GPU to pay. ``adapter`` is part of the GPU's name.
    Raises :class:`Permanent` with code ``gpu_not_found`` where a GPU is asked for and there is none.
    """
    begun = time.perf_counter()
    if device not in ("cpu", "gpu", "any"):
        raise InvalidRequest(f"device must be cpu, gpu or any, not `{device}`", code="device_unknown")
    plan = _kept.get(("plan", playbook.version), ScanPlan, partial(ScanPlan, playbook))
    stream = plan.alphabet.encode(text)
    if device == "gpu":
        found = runtime(adapter)
        scanner = _kept.get(("gpu", playbook.version, found.name), GpuScanner, partial(GpuScanner, plan, found))
        hits, engine = scanner.scan([stream])[0], found.name
    else:
        prepared = _kept.get(("cpu", playbook.version), CpuEngine, partial(CpuEngine, plan))
        hits, engine = prepared.scan(stream), prepared.name
    findings = confirm(text, stream, hits, plan, playbook)
    return ScanResult(findings, engine, time.perf_counter() - begun)
