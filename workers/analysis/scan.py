"""The scan of a text by a playbook: picks GPU or CPU and returns findings, the same on every device and engine.

Step `scan` of a review; ``collection.py`` scans many texts at once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal, TypeAlias

from services.errors import InvalidRequest
from services.findings import Finding
from services.playbooks import Playbook
from shaders.runtime import runtime
from workers.analysis.confirm import confirm
from workers.analysis.prepared import cpu_engine, gpu_scanner, plan_of
from workers.analysis.stretches import Check, unchecked

Device: TypeAlias = Literal["cpu", "gpu", "any"]


@dataclass(frozen=True, slots=True)
class ScanResult:
    """``findings`` by start; ``engine`` names the library or the GPU adapter that ran; ``seconds`` of wall time."""

    findings: tuple[Finding, ...]
    engine: str
    seconds: float


def scan(
    text: str,
    playbook: Playbook,
    *,
    device: Device = "any",
    adapter: str | None = None,
    check: Check = unchecked,
) -> ScanResult:
    """Find the playbook's terms in ``text``.

    ``device`` ``any`` takes the CPU: one text is too small for a GPU to pay. ``adapter`` is part of the GPU's name.
    ``check`` is called for each stretch of text and often among what was found there, and may raise to stop.
    Raises :class:`Permanent` with code ``gpu_not_found`` where a GPU is asked for and there is none.
    """
    begun = time.perf_counter()
    check_device(device)
    plan = plan_of(playbook)
    stream = plan.alphabet.encode(text)
    if device == "gpu":
        found = runtime(adapter)
        hits = gpu_scanner(playbook, found).scan([text.encode("utf-8", "surrogatepass")])[0]
        engine = found.name
    else:
        prepared = cpu_engine(playbook)
        hits, engine = prepared.scan(stream, check), prepared.name
    findings = confirm(text, stream, hits, plan, playbook, check)
    return ScanResult(findings, engine, time.perf_counter() - begun)


def check_device(device: str) -> None:
    """Refuse what is no device."""
    if device not in ("cpu", "gpu", "any"):
        raise InvalidRequest(f"device must be cpu, gpu or any, not `{device}`", code="device_unknown")
