"""The scan of many texts by a playbook, on the GPU in batches: while it has one, the host hands over the next.

A :class:`Collection` stays on the device for the next playbook with the same alphabet, which the same playbook is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from services.findings import Finding
from services.playbooks import Playbook
from shaders.corpus import Corpus, Upload, Uploader
from shaders.factors import ScanPlan
from shaders.runtime import runtime
from shaders.scan import Hits
from workers.analysis.confirm import confirm
from workers.analysis.prepared import cpu_engine, gpu_counter, gpu_scanner, plan_of
from workers.analysis.scan import Device, check_device, scan
from workers.engines.base import Tick, no_tick

BATCH = 64 << 20
"""Bytes that are uploaded at a time."""
# Batches that are uploaded ahead of the one that is looked at.
_AHEAD = 2
_Flight = TypeVar("_Flight")


@dataclass(frozen=True, slots=True)
class _Batch:
    """Some of the texts, from number ``first`` on, on the device."""

    first: int
    texts: Sequence[bytes]
    corpus: Corpus


class Collection:
    """Texts, UTF-8 as they are stored, that are scanned again and again; from one thread at a time.

    ``device`` ``any`` is the CPU, as for one text. Errors as in :func:`scan`; ``gpu_limit`` where one text is larger
    than what a kernel can be given, 128 MiB at least. ``tick`` is called with every batch and every text that the host
    looks at; what it raises ends the scan, and the next one begins anew.
    """

    def __init__(self, texts: Sequence[bytes], *, device: Device = "any", adapter: str | None = None) -> None:
        check_device(device)
        self._texts = texts
        self._adapter = adapter
        self._on_gpu = device == "gpu"
        self._alphabet = b""
        self._resident: list[_Batch] = []

    def scan(self, playbook: Playbook, tick: Tick = no_tick) -> list[tuple[Finding, ...]]:
        """The findings in each text."""
        if not self._on_gpu:
            return list(self._scanned(playbook, tick))
        plan, scanner = plan_of(playbook), gpu_scanner(playbook, runtime(self._adapter))
        found: list[tuple[Finding, ...]] = []
        for batch, flight in _overlapped(self._batches(plan, tick), lambda batch: scanner.begin(batch.corpus)):
            found += _confirmed(batch.texts, scanner.finish(flight), plan, playbook, tick)
        return found

    def count(self, playbook: Playbook, tick: Tick = no_tick) -> NDArray[np.int64]:
        """How many findings of each category, in the playbook's order, each text has, (texts, categories).

        On the GPU, literals are counted there and only what needs a look at the text comes back.
        """
        counts = np.zeros((len(self._texts), len(playbook.categories)), np.int64)
        numbers = {category.id: number for number, category in enumerate(playbook.categories)}
        if not self._on_gpu:
            for number, findings in enumerate(self._scanned(playbook, tick)):
                _add(counts[number], findings, numbers)
            return counts
        plan, counter = plan_of(playbook), gpu_counter(playbook, runtime(self._adapter))
        tally, rest = counter.tally, counter.rest
        batches = _overlapped(
            self._batches(plan, tick), lambda batch: (tally.begin(batch.corpus), rest and rest.begin(batch.corpus))
        )
        for batch, (tallied, flight) in batches:
            own = counts[batch.first : batch.first + len(batch.texts)]
            own += tally.finish(batch.corpus, tallied)
            if rest and flight:
                confirmed = _confirmed(batch.texts, rest.finish(flight), plan, playbook, tick)
                for row, findings in zip(own, confirmed, strict=True):
                    _add(row, findings, numbers)
        return counts

    def _scanned(self, playbook: Playbook, tick: Tick) -> Iterator[tuple[Finding, ...]]:
        """The findings in each text, by the CPU."""
        for text in self._texts:
            tick()
            yield scan(_decoded(text), playbook, device="cpu").findings

    def _batches(self, plan: ScanPlan, tick: Tick) -> Iterator[_Batch]:
        """The batches in the plan's symbols, those on the device or new ones, which then stay there."""
        alphabet = plan.alphabet.table.tobytes()
        if alphabet == self._alphabet:
            for batch in self._resident:
                tick()
                yield batch
            return
        self._alphabet, self._resident = b"", []
        made: list[_Batch] = []
        uploader = Uploader(plan.alphabet, runtime(self._adapter))
        for (first, texts), upload in _uploaded(_cut(self._texts, min(BATCH, uploader.most_bytes)), uploader):
            tick()
            made.append(_Batch(first, texts, uploader.finish(upload)))
            yield made[-1]
        self._alphabet, self._resident = alphabet, made


def engine(playbook: Playbook, *, device: Device = "any", adapter: str | None = None) -> str:
    """What a collection with this device is scanned by: the library's name, or the whole one of the GPU."""
    return runtime(adapter).name if device == "gpu" else cpu_engine(playbook).name


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogatepass")


def _confirmed(
    texts: Sequence[bytes], hits: Sequence[Hits], plan: ScanPlan, playbook: Playbook, tick: Tick
) -> Iterator[tuple[Finding, ...]]:
    """The findings that the hits in each text are."""
    for data, found in zip(texts, hits, strict=True):
        tick()
        if not len(found.places):
            yield ()
            continue
        text = _decoded(data)
        yield confirm(text, plan.alphabet.encode(text), found, plan, playbook)


def _cut(texts: Sequence[bytes], most: int) -> Iterator[tuple[int, Sequence[bytes]]]:
    """The texts in runs of ``most`` bytes, one text at least, each with the number of its first."""
    first, held = 0, 0
    for number, text in enumerate(texts):
        if number > first and held + len(text) + 1 > most:
            yield first, texts[first:number]
            first, held = number, 0
        held += len(text) + 1
    if texts:
        yield first, texts[first:]


def _uploaded(
    cuts: Iterable[tuple[int, Sequence[bytes]]], uploader: Uploader
) -> Iterator[tuple[tuple[int, Sequence[bytes]], Upload]]:
    """Each cut with its upload, in order, the next ones on their way meanwhile."""
    with ThreadPoolExecutor(1, thread_name_prefix="upload") as threads:
        waiting: deque[tuple[tuple[int, Sequence[bytes]], Future[Upload]]] = deque()
        for cut in cuts:
            waiting.append((cut, threads.submit(uploader.begin, cut[1])))
            if len(waiting) > _AHEAD:
                following, upload = waiting.popleft()
                yield following, upload.result()
        for following, upload in waiting:
            yield following, upload.result()


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
