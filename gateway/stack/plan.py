"""Decides which roles fit a machine: pure, from what the machine has to the processes that `casemill up` starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Threads beyond the engine's sequences, so that small work and urgent generations find a thread.
EXTRA_SLOTS = 4
READER_SLOTS = 2


@dataclass(frozen=True, slots=True)
class WorkerRole:
    """One worker process; ``cores`` empty means all of them."""

    name: str
    device: str
    lanes: tuple[str, ...]
    slots: int
    cores: tuple[int, ...] = ()
    gpu: int | None = None

    def arguments(self) -> list[str]:
        """The role as arguments of ``casemill worker``."""
        arguments = ["--name", self.name, "--device", self.device, "--lanes", ",".join(self.lanes)]
        arguments += ["--slots", str(self.slots)]
        if self.cores:
            arguments += ["--cores", ",".join(map(str, self.cores))]
        if self.gpu is not None:
            arguments += ["--gpu", str(self.gpu)]
        return arguments


def fit(hardware: dict[str, Any], sequences: int) -> list[WorkerRole]:
    """The workers for a machine as ``python -m workers hardware`` describes it.

    A GPU worker for each GPU that this build of llama.cpp can use; without one, a CPU worker that owns all cores.
    Documents are read in a worker of their own, whose child processes share the cores.
    """
    cores = tuple(hardware["cores"])
    offload = bool(hardware["llama"].get("gpu_offload"))
    gpus: list[dict[str, Any]] = hardware["gpus"] if offload else []
    workers = [
        WorkerRole(
            f"gpu-{gpu['index']}",
            "gpu",
            ("generate", "embed", "analyze"),
            sequences + EXTRA_SLOTS,
            gpu=gpu["index"],
        )
        for gpu in gpus
    ]
    if not gpus:
        workers.append(WorkerRole("cpu-0", "cpu", ("generate", "embed", "analyze"), sequences + EXTRA_SLOTS, cores))
    readers = max(READER_SLOTS, len(cores) // 2)
    workers.append(WorkerRole("documents", "cpu", ("extract", "deliver"), readers))
    return workers
