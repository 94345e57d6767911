"""What this machine can compute with: cores, memory, GPUs for llama.cpp, adapters that wgpu sees, tesseract."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from typing import Any

import psutil

from services.errors import InvalidRequest


def describe() -> dict[str, Any]:
    """JSON-ready description, each part with an ``error`` instead when a library is missing or its driver fails."""
    return {
        "cores": usable_cores(),
        "memory": psutil.virtual_memory().total,
        "gpus": _nvidia_gpus(),
        "llama": _llama(),
        "adapters": _adapters(),
        "ocr": _ocr(),
    }


def usable_cores() -> list[int]:
    """Core numbers that this process may run on."""
    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):
        return sorted(process.cpu_affinity() or [])
    return list(range(psutil.cpu_count() or 1))


def pin(cores: list[int]) -> None:
    """Keep this process and its threads on these cores; macOS cannot, there it is a hint to thread counts alone."""
    process = psutil.Process()
    if cores and hasattr(process, "cpu_affinity"):
        process.cpu_affinity(cores)


def see_only(gpu: int) -> None:
    """Hide all GPUs but one from this process, ``gpu`` being its place among those that the user left visible.

    Call it before a GPU library starts. Raises ``InvalidRequest`` when the user left fewer visible.
    """
    cuda = _left_visible("CUDA_VISIBLE_DEVICES")
    hip = _left_visible("HIP_VISIBLE_DEVICES")
    for variable, entries in (("CUDA_VISIBLE_DEVICES", cuda), ("HIP_VISIBLE_DEVICES", cuda if hip is None else hip)):
        if entries is not None and gpu >= len(entries):
            raise InvalidRequest(f"there is no GPU {gpu}: {variable} leaves {len(entries)} visible", code="gpu_hidden")
        os.environ[variable] = str(gpu) if entries is None else entries[gpu]


def _left_visible(variable: str) -> list[str] | None:
    """The GPUs that the user names in the driver's own variable, ``None`` when it is not set."""
    value = os.environ.get(variable)
    return None if value is None else [entry.strip() for entry in value.split(",") if entry.strip()]


def _nvidia_gpus() -> list[dict[str, Any]]:
    """GPUs that CUDA lets this process use, ``index`` in CUDA's order, ``memory`` in bytes where the driver tells."""
    query = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return usable_gpus(answer, _left_visible("CUDA_VISIBLE_DEVICES"))


def usable_gpus(answer: str, visible: list[str] | None) -> list[dict[str, Any]]:
    """The rows of ``nvidia-smi`` that are among ``visible``, if that is given, in its order."""
    rows = [row for row in (line.split(", ") for line in answer.strip().splitlines()) if len(row) == 4]
    if visible is not None:
        # As CUDA does: a number or the beginning of a UUID each, and the first that is neither ends the list.
        chosen: list[list[str]] = []
        for entry in visible:
            match = [row for row in rows if entry == row[0] or (not entry.isdigit() and row[1].startswith(entry))]
            if not match and not entry.startswith("MIG-"):
                break
            chosen += match[:1] or [["", entry, entry, ""]]
        rows = chosen
    return [
        # Memory that a GPU shares with the processor is "[N/A]".
        {"index": place, "name": name, "memory": int(mib) * 2**20 if mib.isdigit() else None}
        for place, (_, _, name, mib) in enumerate(rows)
    ]


def _llama() -> dict[str, Any]:
    try:
        import llama_cpp

        supports: Any = llama_cpp.llama_supports_gpu_offload
        return {"version": importlib.metadata.version("llama-cpp-python"), "gpu_offload": bool(supports())}
    except Exception as error:  # a native library fails in many ways; doctor shows which
        return {"error": f"{type(error).__name__}: {error}"}


def _ocr() -> dict[str, Any] | None:
    from workers.documents.ocr import program

    tesseract = program()
    if tesseract is None:
        return None
    try:
        ask = [tesseract, "--list-langs"]
        listed = subprocess.run(ask, capture_output=True, text=True, errors="replace", timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"path": tesseract, "languages": [line.strip() for line in listed.stdout.splitlines()[1:] if line.strip()]}


def _adapters() -> list[dict[str, str]] | dict[str, str]:
    try:
        import wgpu

        gpu: Any = wgpu.gpu
        found: list[dict[str, str]] = []
        for adapter in gpu.enumerate_adapters_sync():
            info = adapter.info
            found.append({"name": info["device"], "type": info["adapter_type"], "backend": info["backend_type"]})
        return found
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
