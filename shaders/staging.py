"""Brings texts to the device through a ring of mapped buffers: each byte is written once, where the device reads it.

`write_buffer` wants them joined before and copies them into memory that is new each time, which takes twice as long.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

# Large enough that mapping a buffer again costs little beside filling it.
CHUNK: Final = 16 << 20
_RING: Final = 2


class Staging:
    """The ring of one device; safe to share between threads, of which one writes at a time."""

    def __init__(self, device: Any, wait: Callable[[Callable[[], Any]], Any]) -> None:
        """``wait`` calls what may never return, and raises where it does not."""
        import wgpu

        self._device = device
        self._wait = wait
        self._usage: Any = wgpu.BufferUsage.MAP_WRITE | wgpu.BufferUsage.COPY_SRC
        self._lock = threading.Lock()
        self._ring: list[Any] = []
        # For each buffer of the ring that the device still reads, the promise to map it again.
        self._promises: list[Any] = []
        self._at = 0

    def copy(self, texts: Iterable[bytes], behind: int, target: Any) -> None:
        """Write the texts into the buffer ``target``, each with the byte ``behind`` after it; whole words are written.

        Other threads run between two texts. The device has them before whatever is submitted afterwards.
        """
        with self._lock:
            try:
                self._copy(texts, behind, target)
            except BaseException:
                # A buffer may be left that is neither mapped nor about to be.
                self._ring = []
                raise

    def _copy(self, texts: Iterable[bytes], behind: int, target: Any) -> None:
        if not self._ring:
            self._ring = [
                self._device.create_buffer(size=CHUNK, usage=self._usage, mapped_at_creation=True) for _ in range(_RING)
            ]
            self._promises = [None] * _RING
        begin, used, memory = 0, 0, self._mapped()
        for text in texts:
            end = used + len(text)
            if end < CHUNK:
                memory[used:end] = text
                memory[end] = behind
                used = end + 1
                continue
            rest = memoryview(text + bytes([behind]))
            while rest:
                if used == CHUNK:
                    self._send(target, begin, used)
                    begin, used, memory = begin + used, 0, self._mapped()
                end = min(CHUNK, used + len(rest))
                memory[used:end] = rest[: end - used]
                rest, used = rest[end - used :], end
        while used % 4:
            memory[used] = behind
            used += 1
        if used:
            self._send(target, begin, used)

    def _mapped(self) -> Any:
        """The memory of the next buffer, as soon as the device has read what it held before."""
        promise = self._promises[self._at]
        if promise is not None:
            self._wait(promise.sync_wait)
            self._promises[self._at] = None
        # Without this, each piece of memory that is written is looked up and checked anew.
        return self._ring[self._at]._experimental_get_mapped_range(0, CHUNK)

    def _send(self, target: Any, begin: int, size: int) -> None:
        """Let the device copy what was written to its place in ``target``."""
        buffer = self._ring[self._at]
        buffer.unmap()
        encoder = self._device.create_command_encoder()
        encoder.copy_buffer_to_buffer(buffer, 0, target, begin, size)
        self._device.queue.submit([encoder.finish()])
        self._promises[self._at] = buffer.map_async("write")
        self._at = (self._at + 1) % _RING
