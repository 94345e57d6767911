"""The wgpu device of this process: chosen by adapter name, made at first use, with its compiled pipelines kept.

A device must be made after any fork, hence lazily. One that is lost, or does not answer in time, stays so: whatever is
asked of it raises ``DeviceLost``, and :func:`lost` tells the worker to end, since a new process gets a new device.
wgpu-py has no types; this module is the one place that touches it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from services.errors import CasemillError, DeviceLost, Permanent, Transient
from shaders.catalog import Kernel
from shaders.staging import Staging

_BINDING_LIMIT = "max-storage-buffer-binding-size"
_BUFFER_LIMIT = "max-buffer-size"
_DIMENSION_LIMIT = "max-compute-workgroups-per-dimension"
WAIT_SECONDS = 60.0
"""How long the device may take for what was submitted; then it is taken for lost."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One run of a kernel's entry point by ``threads`` threads; ``buffers`` by binding number."""

    kernel: Kernel
    entry: str
    buffers: Mapping[int, Any]
    threads: int


class _Waiters:
    """Waits where waiting cannot be ended: on threads of their own, one of which may be left behind.

    Those that are idle are kept, since a new thread takes longer to begin than most answers take to come.
    """

    def __init__(self) -> None:
        self._idle: list[SimpleQueue[tuple[Callable[[], Any], Future[Any]]]] = []

    def answer(self, ask: Callable[[], _Answer], seconds: float) -> _Answer:
        """What ``ask`` answers or raises; ``TimeoutError`` after so many seconds."""
        try:
            waiter = self._idle.pop()
        except IndexError:
            waiter = SimpleQueue[tuple[Callable[[], Any], Future[Any]]]()
            threading.Thread(target=_wait, args=(waiter,), name="gpu-read", daemon=True).start()
        done: Future[_Answer] = Future()
        waiter.put((ask, done))
        try:
            return done.result(seconds)
        finally:
            if done.done():
                self._idle.append(waiter)


def _wait(asked: SimpleQueue[tuple[Callable[[], Any], Future[Any]]]) -> None:
    while True:
        ask, done = asked.get()
        try:
            done.set_result(ask())
        except Exception as error:  # raised again by whoever waits
            done.set_exception(error)
        del ask, done  # or the answer, and the buffer it came from, would stay until the next one


class Runtime:
    """One adapter's device; safe to share between threads."""

    def __init__(self, adapter: Any) -> None:
        import wgpu

        self._usage: Any = wgpu.BufferUsage
        limits = {name: int(adapter.limits[name]) for name in (_BINDING_LIMIT, _BUFFER_LIMIT)}
        self.name = str(adapter.info["device"])
        self.binding_bytes = min(limits.values())
        """The largest buffer that a kernel can be given."""
        self._groups = int(adapter.limits[_DIMENSION_LIMIT])
        self._lock = threading.Lock()
        self._waiters = _Waiters()
        self._pipelines: dict[tuple[str, str], Any] = {}
        self.lost: DeviceLost | None = None
        """Why this device is of no use any more."""
        with self._reported():
            self._device: Any = adapter.request_device_sync(required_limits=limits)
        self._staging = Staging(self._device, self._answer)

    def width(self, kernel: Kernel) -> int:
        """Threads in x of every dispatch of ``kernel`` that needs more than one row of workgroups."""
        return self._groups * kernel.workgroup

    def upload(self, data: NDArray[Any], *, uniform: bool = False) -> Any:
        """A buffer with ``data``, four bytes at least.

        Raises :class:`Permanent` with code ``gpu_limit`` where the adapter cannot bind as much.
        """
        self._check(data.nbytes)
        usage = self._usage.UNIFORM if uniform else self._usage.STORAGE
        with self._reported():
            raw = np.ascontiguousarray(data) if data.nbytes else np.zeros(1, np.uint32)
            return self._device.create_buffer_with_data(data=raw, usage=usage)

    def upload_texts(self, texts: Iterable[bytes], behind: int, size: int) -> Any:
        """A buffer of ``size`` bytes that begins with the texts, the byte ``behind`` after each.

        The last word of them is filled up with that byte, what follows are zeros. Other threads run meanwhile. Errors
        as in :meth:`upload`.
        """
        self._check(size)
        with self._reported():
            buffer = self._device.create_buffer(size=size, usage=self._usage.STORAGE | self._usage.COPY_DST)
            self._staging.copy(texts, behind, buffer)
            return buffer

    def empty(self, size: int) -> Any:
        """A buffer of ``size`` zero bytes that kernels write and :meth:`read` reads; errors as in :meth:`upload`."""
        self._check(size)
        with self._reported():
            return self._device.create_buffer(size=max(4, size), usage=self._usage.STORAGE | self._usage.COPY_SRC)

    def run(self, dispatches: Sequence[Dispatch]) -> None:
        """Submit the dispatches in order; :meth:`read` waits for them."""
        with self._reported():
            encoder = self._device.create_command_encoder()
            scope = encoder.begin_compute_pass()
            for dispatch in dispatches:
                pipeline = self._pipeline(dispatch.kernel, dispatch.entry)
                scope.set_pipeline(pipeline)
                scope.set_bind_group(0, self._bind(pipeline, dispatch))
                groups = -(-dispatch.threads // dispatch.kernel.workgroup)
                rows = -(-groups // self._groups)
                scope.dispatch_workgroups(min(groups, self._groups), rows, 1)
            scope.end()
            self._device.queue.submit([encoder.finish()])

    def read(self, buffer: Any, count: int) -> NDArray[np.uint32]:
        """The first ``count`` numbers of a buffer, after all that was submitted has run."""
        if count == 0:
            return np.zeros(0, np.uint32)
        with self._reported():
            return np.frombuffer(self._answer(lambda: self._device.queue.read_buffer(buffer, 0, 4 * count)), np.uint32)

    def _answer(self, ask: Callable[[], _Answer]) -> _Answer:
        """What ``ask`` answers, within :data:`WAIT_SECONDS`."""
        try:
            return self._waiters.answer(ask, WAIT_SECONDS)
        except TimeoutError:
            raise DeviceLost(
                f"the GPU {self.name} has not answered for {WAIT_SECONDS:.0f} s; the worker ends", code="gpu_timeout"
            ) from None

    @contextmanager
    def _reported(self) -> Generator[None]:
        """Errors of wgpu as ours; what shows that the device is lost is remembered."""
        if self.lost:
            raise DeviceLost(self.lost.detail, code=self.lost.code)
        try:
            with _reported(self.name):
                yield
        except DeviceLost as error:
            self.lost = error
            raise
        except CasemillError as error:
            # Another thread found the device lost meanwhile, of which this is what came.
            if self.lost:
                raise DeviceLost(self.lost.detail, code=self.lost.code) from error
            raise

    def _check(self, size: int) -> None:
        if size > self.binding_bytes:
            raise Permanent(
                f"the GPU {self.name} binds {self.binding_bytes} bytes at most, {size} are needed", code="gpu_limit"
            )

    def _pipeline(self, kernel: Kernel, entry: str) -> Any:
        with self._lock:
            if (kernel.file, entry) not in self._pipelines:
                module = self._device.create_shader_module(label=kernel.file, code=kernel.source())
                self._pipelines[kernel.file, entry] = self._device.create_compute_pipeline(
                    label=f"{kernel.file}:{entry}", layout="auto", compute={"module": module, "entry_point": entry}
                )
            return self._pipelines[kernel.file, entry]

    def _bind(self, pipeline: Any, dispatch: Dispatch) -> Any:
        entries: list[dict[str, Any]] = []
        for binding in dispatch.kernel.entries[dispatch.entry]:
            buffer = dispatch.buffers[binding]
            entries.append({"binding": binding, "resource": {"buffer": buffer, "offset": 0, "size": buffer.size}})
        return self._device.create_bind_group(layout=pipeline.get_bind_group_layout(0), entries=entries)


_runtimes: dict[str | None, Runtime] = {}
_making = threading.Lock()


def runtime(adapter: str | None = None) -> Runtime:
    """The process's runtime on the adapter whose name contains ``adapter``; without a name, the fastest there is.

    Raises :class:`Permanent` with code ``gpu_not_found`` where there is none.
    """
    with _making:
        if adapter not in _runtimes:
            chosen = _choose(adapter)
            # What was made on a device is of no use on another: all names of an adapter share one.
            same = (made for made in _runtimes.values() if made.name == str(chosen.info["device"]))
            _runtimes[adapter] = next(same, None) or Runtime(chosen)
        return _runtimes[adapter]


def lost() -> CasemillError | None:
    """Why this process must end to get a device again, if it must."""
    return next((made.lost for made in list(_runtimes.values()) if made.lost), None)


def adapters() -> list[str]:
    """Names of the adapters that compute kernels can run on, each once, real GPUs before software ones."""
    return list(dict.fromkeys(str(adapter.info["device"]) for adapter in _usable()))


def _usable() -> list[Any]:
    import wgpu

    try:
        found = cast("list[Any]", wgpu.gpu.enumerate_adapters_sync())  # pyright: ignore[reportUnknownMemberType]
    except (RuntimeError, OSError) as error:
        raise Permanent(f"wgpu cannot start: {error}", code="gpu_not_found") from error
    rank = {"DiscreteGPU": 0, "IntegratedGPU": 1, "VirtualGPU": 2}
    modern = [adapter for adapter in found if adapter.info["backend_type"] in ("Vulkan", "Metal", "D3D12")]
    return sorted(modern, key=lambda adapter: rank.get(str(adapter.info["adapter_type"]), 3))


def _choose(name: str | None) -> Any:
    found = _usable()
    if not found:
        raise Permanent(
            "no GPU adapter was found; install the GPU's Vulkan driver (Debian's software one is mesa-vulkan-drivers) "
            "or ask for the CPU",
            code="gpu_not_found",
        )
    for adapter in found:
        if name is None or name.lower() in str(adapter.info["device"]).lower():
            return adapter
    names = ", ".join(sorted({str(adapter.info["device"]) for adapter in found}))
    raise Permanent(f"no GPU adapter is named `{name}`; CASEMILL_ADAPTER can be part of: {names}", code="gpu_not_found")


@contextmanager
def _reported(name: str) -> Generator[None]:
    """Turns wgpu's errors into ours: a lost device may come back with a new process, anything else is a fault of ours.

    wgpu-native only logs the loss itself; later calls fail with a text that says so.
    """
    import wgpu

    try:
        yield
    except (wgpu.GPUError, RuntimeError) as error:
        text = str(error)
        if "lost" in text.lower():
            raise DeviceLost(f"the GPU {name} was lost; the worker ends: {text}") from error
        if isinstance(error, wgpu.GPUOutOfMemoryError) or "out of memory" in text.lower():
            raise Transient(f"the GPU {name} has no memory left: {text}", code="gpu_memory") from error
        raise Permanent(f"the GPU {name} refused the work: {text}", code="gpu_refused") from error
