"""What the stack makes of a machine: the GPUs that may be used, the roles that fit, and questions that end."""

from __future__ import annotations

import os
import threading

import pytest

from gateway.stack.children import Stopped
from gateway.stack.plan import Roster, fit
from gateway.stack.supervisor import ask_workers
from services.errors import InvalidRequest, Unavailable
from services.scaling import Bounds, Kind
from services.settings import Settings
from workers.hardware import see_only, usable_gpus

SMI = "0, GPU-aa11, NVIDIA A, 1024\n1, GPU-bb22, NVIDIA B, [N/A]\n2, GPU-cc33, NVIDIA C, 4096\n"


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["NVIDIA A", "NVIDIA B", "NVIDIA C"]),
        ("2,0", ["NVIDIA C", "NVIDIA A"]),
        ("GPU-bb,2", ["NVIDIA B", "NVIDIA C"]),
        ("0,7,2", ["NVIDIA A"]),
        ("0,-1,2", ["NVIDIA A"]),
        ("MIG-4f", ["MIG-4f"]),
        ("", []),
    ],
)
def test_gpus_are_those_that_the_user_left_visible(visible: str | None, names: list[str]) -> None:
    entries = None if visible is None else [entry for entry in visible.split(",") if entry]
    gpus = usable_gpus(SMI, entries)
    assert [gpu["name"] for gpu in gpus] == names
    assert [gpu["index"] for gpu in gpus] == list(range(len(names)))


def test_memory_that_the_driver_does_not_tell_is_none() -> None:
    assert [gpu["memory"] for gpu in usable_gpus(SMI, None)] == [2**30, None, 2**32]
    assert usable_gpus("Unable to determine the device handle\n", None) == []


def test_a_role_takes_its_gpu_from_the_users_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-bb22")
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "")
    monkeypatch.delenv("HIP_VISIBLE_DEVICES")
    hardware = {"cores": [0], "llama": {"gpu_offload": True}, "gpus": usable_gpus(SMI, ["2", "GPU-bb22"])}
    role = fit(hardware, Settings())[0].roles[1]
    assert role.gpu == 1
    see_only(role.gpu)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == os.environ["HIP_VISIBLE_DEVICES"] == "GPU-bb22"


def test_without_a_list_the_number_is_the_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    see_only(3)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == os.environ["HIP_VISIBLE_DEVICES"] == "3"


def test_a_gpu_that_the_user_hid_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(InvalidRequest, match="CUDA_VISIBLE_DEVICES leaves 1 visible"):
        see_only(1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"


def test_a_question_to_the_workers_ends_in_time_or_when_told_to() -> None:
    with pytest.raises(Unavailable, match="did not answer within 0 s"):
        ask_workers("hardware", timeout=0.01)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        ask_workers("hardware", stop=stop)


def on(cores: int, **settings: int) -> list[Roster]:
    hardware = {"cores": list(range(cores)), "llama": {"gpu_offload": False}, "gpus": []}
    return fit(hardware, Settings.model_validate(settings))


def test_two_cores_start_one_engine_on_all_cores_and_one_worker_for_documents_and_for_webhooks() -> None:
    engines, documents, delivery = on(2)
    assert [(role.name, role.cores) for role in engines.roles] == [("cpu-0", (0, 1))]
    assert engines.bounds == documents.bounds == delivery.bounds == Bounds(1, 1)
    assert [(role.name, role.lanes) for role in delivery.roles] == [("delivery", ("deliver",))]
    assert [role.name for role in documents.roles] == ["documents", "documents-2"]


@pytest.mark.parametrize(("cores", "own", "count"), [(8, 2, 4), (8, 3, 2), (2, 16, 1), (5, 1, 5)])
def test_engines_on_the_cpu_never_share_a_core(cores: int, own: int, count: int) -> None:
    engines = on(cores, cores_per_worker=own)[0]
    pinned = [core for role in engines.roles for core in role.cores]
    assert (engines.kind, len(engines.roles), engines.bounds) == (Kind.CPU, count, Bounds(1, count))
    assert len(set(pinned)) == len(pinned) <= cores
    assert {len(role.cores) for role in engines.roles} == {min(own, cores)}


def test_a_gpu_has_one_process() -> None:
    hardware = {"cores": [0, 1], "llama": {"gpu_offload": True}, "gpus": usable_gpus(SMI, None)}
    engines = fit(hardware, Settings())[0]
    assert (engines.kind, engines.bounds) == (Kind.GPU, Bounds(3, 3))
    assert [role.gpu for role in engines.roles] == [0, 1, 2]
