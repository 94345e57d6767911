"""A device that is lost or does not answer is given up for good, and says so to the worker."""

from __future__ import annotations

import threading
from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from services.errors import DeviceLost
from shaders import runtime as runtimes
from shaders.catalog import MINHASH
from shaders.minhash import GpuMinHash
from shaders.runtime import Runtime, lost


@pytest.fixture
def own(gpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> Generator[Runtime]:
    """A device that may be broken."""
    monkeypatch.setattr(runtimes, "_runtimes", {})
    yield runtimes.runtime(gpu.name)


def test_a_lost_device_says_so_at_every_call(own: Runtime) -> None:
    kept = own.empty(64)
    assert own.read(kept, 4).tolist() == [0, 0, 0, 0]
    assert lost() is None
    own._device.destroy()
    for ask in (lambda: own.read(kept, 4), lambda: own.upload(np.zeros(4, np.uint32)), lambda: own.empty(4)):
        with pytest.raises(DeviceLost, match=r"was lost; the worker ends") as caught:
            ask()
        assert caught.value.code == "gpu_lost"
        assert caught.value.problem()["retryable"]
    told = lost()
    assert told
    assert told.code == "gpu_lost"


def test_a_device_that_does_not_answer_in_time_is_lost(own: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeping = threading.Event()
    stuck: Any = SimpleNamespace(queue=SimpleNamespace(read_buffer=lambda *_: sleeping.wait()))
    kept = own.empty(64)
    monkeypatch.setattr(runtimes, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(own, "_device", stuck)
    with pytest.raises(DeviceLost, match="has not answered") as caught:
        own.read(kept, 4)
    assert caught.value.code == "gpu_timeout"
    sleeping.set()
    with pytest.raises(DeviceLost, match="has not answered"):
        own.upload(np.zeros(1, np.uint32))
    told = lost()
    assert told
    assert told.code == "gpu_timeout"


def test_a_pipeline_is_compiled_once(own: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    compiled = own._device.create_shader_module
    monkeypatch.setattr(own._device, "create_shader_module", lambda **kw: made.append(kw["label"]) or compiled(**kw))
    for _ in range(3):
        GpuMinHash(own).sketch([b"some words of a text"])
    assert made == [MINHASH.file]
