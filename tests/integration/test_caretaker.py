"""The caretaker's duties stand each by itself: one that fails keeps no other from being carried out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from services import caretaker as caretaking
from services.blobs import Blobs
from services.caretaker import Caretaker
from services.lifecycle import Lifecycle
from services.settings import Settings
from tests.conftest import wait_until

pytestmark = pytest.mark.both_servers

DUTIES = {
    "_lifecycle": "care",
    "_schedules": "fire",
    "_files": "expire",
    "_erasures": "carry_on",
    "_capacity": "decide",
}


@pytest.fixture
def caretaker(settings: Settings, lifecycle: Lifecycle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caretaker]:
    monkeypatch.setattr(caretaking, "ROUND_SECONDS", 0.02)
    caretaker = Caretaker(lifecycle, Blobs(settings.data_dir))
    yield caretaker
    caretaker.stop()
    caretaker.join()
    lifecycle.client.delete(lifecycle.keys("caretaker"))


@pytest.mark.parametrize("broken", DUTIES)
def test_a_duty_that_fails_keeps_no_other(
    caretaker: Caretaker, broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[str] = []

    def duty(owner: str) -> Any:
        method: Any = getattr(getattr(caretaker, owner), DUTIES[owner])

        def counted() -> Any:
            done.append(owner)
            if owner == broken:
                raise KeyError("recurrence")
            return method()

        return counted

    for owner, name in DUTIES.items():
        monkeypatch.setattr(getattr(caretaker, owner), name, duty(owner))
    caretaker.start()
    wait_until(lambda: all(done.count(owner) > 2 for owner in DUTIES), 10, "three rounds of every duty")
    told = [record for record in caplog.records if record.name == caretaking.__name__]
    assert [record.exc_info is not None for record in told] == [True], "a reason is told once, with where it came from"


def test_files_that_cannot_be_swept_keep_no_orphan(
    caretaker: Caretaker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = Blobs(settings.data_dir)
    orphan = blobs.put_document("acme", b"its process died before it was recorded")
    os.utime(blobs.path("acme", orphan), (0, 0))

    def fail(*_: object) -> None:
        raise OSError("an unreadable folder")

    monkeypatch.setattr(caretaker._blobs, "sweep", fail)
    caretaker._sweep_files()
    assert not blobs.exists("acme", orphan)
    caretaker.start()
