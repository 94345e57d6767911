"""The scan of many texts by a playbook, on the GPU in batches: one is encoded while the device has the one before.

A :class:`Collection` stays on the device for the next playbook with the same alphabet, which the same playbook is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from services.findings import Finding
from services.playbooks import Playbook
from shaders.alphabet import Stream
from shaders.corpus import Corpus
from shaders.factors import ScanPlan
from shaders.runtime import runtime
from workers.analysis.confirm import confirm
from workers.analysis.prepared import gpu_counter, gpu_scanner, plan_of
from workers.analysis.scan import Device, check_device, scan

BATCH = 128 << 20
"""Characters that are encoded and uploaded at a time."""
_Flight = TypeVar("_Flight")


@dataclass(frozen=True, slots=True)
class _Batch:
    """Some of the texts, from number ``first`` on, in symbols and on the device."""

    first: int
    texts: Sequence[str]
    streams: Sequence[Stream]
    corpus: Corpus


class Collection:
    """Texts that are scanned again and again; from one thread at a time.

    ``device`` ``any`` is the CPU, as for one text. Errors as in :func:`scan`.
    """

    def __init__(self, texts: Sequence[str], *, device: Device = "any", adapter: str | None = None) -> None:
        check_device(device)
        self._texts = texts
        self._adapter = adapter
        self._on_gpu = device == "gpu"
        self._alphabet = b""
        self._resident: list[_Batch] = []

    def scan(self, playbook: Playbook) -> list[tuple[Finding, ...]]:
        """The findings in each text."""
        if not self._on_gpu:
            return [scan(text, playbook, device="cpu").findings for text in self._texts]
        plan, scanner = plan_of(playbook), gpu_scanner(playbook, runtime(self._adapter))
        found: list[tuple[Finding, ...]] = []
        for batch, flight in _overlapped(self._batches(plan), lambda batch: scanner.begin(batch.corpus)):
            parts = zip(batch.texts, batch.streams, scanner.finish(flight), strict=True)
            found += [confirm(text, stream, hits, plan, playbook) for text, stream, hits in parts]
        return found

    def count(self, playbook: Playbook) -> NDArray[np.int64]:
        """How many findings of each category, in the playbook's order, each text has, (texts, categories).

        On the GPU, literals are counted there and only what needs a look at the text comes back.
        """
        counts = np.zeros((len(self._texts), len(playbook.categories)), np.int64)
        numbers = {category.id: number for number, category in enumerate(playbook.categories)}
        if not self._on_gpu:
            for number, findings in enumerate(self.scan(playbook)):
                _add(counts[number], findings, numbers)
            return counts
        plan, counter = plan_of(playbook), gpu_counter(playbook, runtime(self._adapter))
        tally, rest = counter.tally, counter.rest
        batches = _overlapped(
            self._batches(plan), lambda batch: (tally.begin(batch.corpus), rest and rest.begin(batch.corpus))
        )
        for batch, (tallied, flight) in batches:
            own = counts[batch.first : batch.first + len(batch.texts)]
            own += tally.finish(batch.corpus, tallied)
            if rest and flight:
                for row, text, stream, hits in zip(own, batch.texts, batch.streams, rest.finish(flight), strict=True):
                    _add(row, confirm(text, stream, hits, plan, playbook), numbers)
        return counts

    def _batches(self, plan: ScanPlan) -> Iterator[_Batch]:
        """The batches in the plan's symbols, those on the device or new ones, which then stay there."""
        alphabet = plan.alphabet.table.tobytes()
        if alphabet == self._alphabet:
            yield from self._resident
            return
        self._alphabet, self._resident = b"", []
        made: list[_Batch] = []
        for first, texts in _cut(self._texts):
            streams = [plan.alphabet.encode(text) for text in texts]
            made.append(_Batch(first, texts, streams, Corpus(runtime(self._adapter), streams)))
            yield made[-1]
        self._alphabet, self._resident = alphabet, made


def _cut(texts: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """The texts in runs of :data:`BATCH` characters, one text at least, each with the number of its first."""
    first, held = 0, 0
    for number, text in enumerate(texts):
        if held and held + len(text) > BATCH:
            yield first, texts[first:number]
            first, held = number, 0
        held += len(text)
    if texts:
        yield first, texts[first:]


def _overlapped(batches: Iterator[_Batch], begin: Callable[[_Batch], _Flight]) -> Iterator[tuple[_Batch, _Flight]]:
    """Each batch with what was begun for it, when the next one has been made and begun as well."""
    under_way: tuple[_Batch, _Flight] | None = None
    for batch in batches:
        following = (batch, begin(batch))
        if under_way:
            yield under_way
        under_way = following
    if under_way:
        yield under_way


def _add(row: NDArray[np.int64], findings: Sequence[Finding], numbers: dict[str, int]) -> None:
    for finding in findings:
        row[numbers[finding.category]] += 1
