"""Decides which workers fit a machine: pure, from what it has to the processes that `casemill up` may start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.scaling import Bounds, Kind
from services.settings import Settings

# Threads beyond the engine's sequences, so that small work and urgent generations find a thread.
EXTRA_SLOTS = 4
READER_SLOTS = 2
# They wait for receivers, and a receiver that hangs must not hold up the others.
DELIVERY_SLOTS = 16


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
        """The role as arguments of ``casemill worker`` and ``python -m workers run``."""
        arguments = ["--name", self.name, "--device", self.device, "--lanes", ",".join(self.lanes)]
        arguments += ["--slots", str(self.slots)]
        if self.cores:
            arguments += ["--cores", ",".join(map(str, self.cores))]
        if self.gpu is not None:
            arguments += ["--gpu", str(self.gpu)]
        return arguments


@dataclass(frozen=True, slots=True)
class Roster:
    """Every worker of a kind that the machine has room for, in starting order; ``bounds`` hold until others are set."""

    kind: Kind
    roles: tuple[WorkerRole, ...]
    bounds: Bounds


def fit(hardware: dict[str, Any], settings: Settings) -> list[Roster]:
    """The workers for a machine as ``python -m workers hardware`` describes it.

    A GPU worker for each GPU that this build of llama.cpp can use; without one, CPU workers, each of which owns its
    cores alone. Documents are read in workers of their own, whose child processes share the cores; webhooks are sent by
    one that reads none.
    """
    cores = tuple(hardware["cores"])
    offload = bool(hardware["llama"].get("gpu_offload"))
    gpus: list[dict[str, Any]] = hardware["gpus"] if offload else []
    slots = settings.sequences + EXTRA_SLOTS
    if gpus:
        roles = tuple(WorkerRole(f"gpu-{gpu['index']}", "gpu", Kind.GPU.lanes, slots, gpu=gpu["index"]) for gpu in gpus)
        engines = Roster(Kind.GPU, roles, Bounds(len(gpus), len(gpus)))
    else:
        own = min(settings.cores_per_worker or len(cores), len(cores))
        count = len(cores) // own
        roles = tuple(
            WorkerRole(f"cpu-{place}", "cpu", Kind.CPU.lanes, slots, cores[place * own : (place + 1) * own])
            for place in range(count)
        )
        engines = Roster(Kind.CPU, roles, Bounds(1, count))
    readers = max(READER_SLOTS, len(cores) // 2)
    roles = tuple(
        WorkerRole(f"documents-{number}" if number > 1 else "documents", "cpu", Kind.DOCUMENTS.lanes, readers)
        for number in range(1, max(2, len(cores)) + 1)
    )
    delivery = WorkerRole("delivery", "cpu", Kind.DELIVERY.lanes, DELIVERY_SLOTS)
    return [
        engines,
        Roster(Kind.DOCUMENTS, roles, Bounds(1, max(1, len(cores) // readers))),
        Roster(Kind.DELIVERY, (delivery,), Bounds(1, 1)),
    ]
