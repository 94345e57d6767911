"""A runtime as in ``shaders/runtime.py`` on Chromium's WebGPU, which checks what wgpu-native lets pass.

Its compiler refuses barriers in control flow that is not uniform, and its limits are the least that WebGPU promises:
16 KiB of workgroup memory, 128 MiB a binding, 8 storage buffers.
"""

from __future__ import annotations

import base64
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Page, sync_playwright

from shaders.catalog import Kernel
from shaders.runtime import Dispatch

CHROMIUM = "/usr/bin/chromium"
_ARGUMENTS = ["--headless=new", "--no-sandbox", "--enable-unsafe-webgpu"]
_ADDRESS = "http://localhost/"  # answered by the test itself; WebGPU needs a secure context
_SCRIPT = """
let device, lost, pipelines = new Map(), buffers = [];

async function start() {
  const adapter = navigator.gpu && await navigator.gpu.requestAdapter();
  if (!adapter) throw new Error('no WebGPU adapter');
  device = await adapter.requestDevice();
  device.lost.then(info => { lost = info.message; });
  return [adapter.info.vendor, adapter.info.architecture].join(' ');
}

async function checked(action) {
  device.pushErrorScope('validation');
  const value = await action();
  const error = await device.popErrorScope();
  if (error || lost) throw new Error(error ? error.message : 'lost: ' + lost);
  return value;
}

async function compile(name, code, entry) {
  const key = name + ':' + entry;
  if (!pipelines.has(key)) pipelines.set(key, await checked(async () => {
    const module = device.createShaderModule({code});
    const wrong = (await module.getCompilationInfo()).messages.filter(message => message.type !== 'info');
    if (wrong.length) throw new Error(wrong.map(item => item.lineNum + ': ' + item.message).join('; '));
    return device.createComputePipelineAsync({layout: 'auto', compute: {module, entryPoint: entry}});
  }));
  return key;
}

const upload = (size, data, usage) => checked(() => {
  const bytes = Uint8Array.from(atob(data), char => char.charCodeAt(0));
  const buffer = device.createBuffer({size, usage: usage | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC});
  if (bytes.length) device.queue.writeBuffer(buffer, 0, bytes);
  return buffers.push(buffer) - 1;
});

const run = dispatches => checked(() => {
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  for (const {key, bindings, groups} of dispatches) {
    const pipeline = pipelines.get(key);
    const entries = bindings.map(([binding, number]) => ({binding, resource: {buffer: buffers[number]}}));
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({layout: pipeline.getBindGroupLayout(0), entries}));
    pass.dispatchWorkgroups(...groups);
  }
  pass.end();
  device.queue.submit([encoder.finish()]);
});

const read = (number, size) => checked(async () => {
  const copy = device.createBuffer({size, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ});
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(buffers[number], 0, copy, 0, size);
  device.queue.submit([encoder.finish()]);
  await copy.mapAsync(GPUMapMode.READ);
  let text = '';
  for (const byte of new Uint8Array(copy.getMappedRange())) text += String.fromCharCode(byte);
  return btoa(text);
});
"""


@dataclass(frozen=True, slots=True)
class _Buffer:
    number: int
    size: int


class BrowserRuntime:
    """The methods of ``Runtime`` that kernels are dispatched by; ``ran`` collects files and entry points."""

    binding_bytes = 128 << 20
    _GROUPS = 65_535

    def __init__(self, page: Page) -> None:
        self._page = page
        self.name = str(page.evaluate("start()"))
        self.ran: set[tuple[str, str]] = set()

    def width(self, kernel: Kernel) -> int:
        return self._GROUPS * kernel.workgroup

    def upload(self, data: NDArray[Any], *, uniform: bool = False) -> _Buffer:
        raw = np.ascontiguousarray(data).tobytes()
        return self._buffer(max(4, -(-len(raw) // 4) * 4), raw, "UNIFORM" if uniform else "STORAGE")

    def upload_texts(self, texts: Iterable[bytes], behind: int, size: int) -> _Buffer:
        joined = b"".join(text + bytes([behind]) for text in texts)
        return self._buffer(size, joined + bytes([behind]) * (-len(joined) % 4), "STORAGE")

    def empty(self, size: int) -> _Buffer:
        return self._buffer(max(4, size), b"", "STORAGE")

    def compile(self, name: str, code: str, entry: str) -> str:
        """Raises playwright's ``Error`` with the compiler's messages."""
        return str(self._page.evaluate("([name, code, entry]) => compile(name, code, entry)", [name, code, entry]))

    def run(self, dispatches: Sequence[Dispatch]) -> None:
        calls: list[dict[str, Any]] = []
        for dispatch in dispatches:
            kernel, entry = dispatch.kernel, dispatch.entry
            groups = -(-dispatch.threads // kernel.workgroup)
            calls.append(
                {
                    "key": self.compile(kernel.file, kernel.source(), entry),
                    "bindings": [[binding, dispatch.buffers[binding].number] for binding in kernel.entries[entry]],
                    "groups": [min(groups, self._GROUPS), -(-groups // self._GROUPS)],
                }
            )
            self.ran.add((kernel.file, entry))
        self._page.evaluate("dispatches => run(dispatches)", calls)

    def read(self, buffer: _Buffer, count: int) -> NDArray[np.uint32]:
        if count == 0:
            return np.zeros(0, np.uint32)
        data = self._page.evaluate("([number, size]) => read(number, size)", [buffer.number, 4 * count])
        return np.frombuffer(base64.b64decode(data), np.uint32)

    def _buffer(self, size: int, raw: bytes, usage: str) -> _Buffer:
        call = f"([size, data]) => upload(size, data, GPUBufferUsage.{usage})"
        return _Buffer(int(self._page.evaluate(call, [size, base64.b64encode(raw).decode()])), size)


@contextmanager
def browser_runtime() -> Generator[BrowserRuntime]:
    """A runtime in a Chromium of its own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        page = browser.new_page()
        page.route("**/*", lambda route: route.fulfill(body=f"<script>{_SCRIPT}</script>", content_type="text/html"))
        page.goto(_ADDRESS)
        yield BrowserRuntime(page)
        browser.close()
