"""What ``casemill doctor`` looks at: interpreter, storage, server, native libraries, models, the running stack."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from gateway.client_file import ClientFile
from gateway.stack.supervisor import ask_workers
from gateway.stack.valkey import find_server, reachable_settings
from services.errors import CasemillError, Unavailable
from services.models import CLAUSE_MODEL, Catalog
from services.redis_client import connect, server_info
from services.seals import Seals
from services.settings import Settings

MIN_FREE = 2 * 2**30
HARDWARE_SECONDS = 120
_INSTALL = f'"{sys.executable}" -m pip install "casemill[worker]"'


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; ``missing`` is something optional that is not there, ``broken`` keeps work from being done."""

    name: str
    state: Literal["ok", "missing", "broken"]
    detail: str
    fix: str = ""


def examine(settings: Settings) -> list[Check]:
    """All checks, in the order in which a person would mend them."""
    checks = [_python(), _storage(settings), _sealing(settings), _redis(settings)]
    try:
        hardware = ask_workers("hardware", timeout=HARDWARE_SECONDS)
    except Unavailable as error:
        fix = "see whether `nvidia-smi` or `vulkaninfo` hangs too; then update or restart the graphics driver"
        checks.append(Check("workers", "broken", str(error), fix))
    except (CasemillError, OSError) as error:
        checks.append(Check("workers", "broken", str(error), _INSTALL))
    else:
        checks += [_llama(hardware), _gpu(hardware), _adapter(hardware), _ocr(hardware, settings)]
    checks += [_models(settings), _stack(settings)]
    return checks


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _storage(settings: Settings) -> Check:
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".doctor"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        fix = "set CASEMILL_DATA_DIR to a folder that you can write"
        return Check("storage", "broken", f"{folder} cannot be written: {error.strerror}", fix)
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE:
        return Check("storage", "broken", f"{free / 2**30:.1f} GiB free in {folder}", "free at least 2 GiB there")
    return Check("storage", "ok", f"{folder}, {free / 2**30:.0f} GiB free")


def _sealing(settings: Settings) -> Check:
    try:
        seals = Seals.of(settings)
    except CasemillError as error:
        return Check("sealing", "broken", error.detail, "put the master key back where it was")
    if seals.on:
        return Check("sealing", "ok", f"under {settings.master_key_path}, of which a copy belongs elsewhere")
    fix = "" if settings.master_key_file else "casemill up   (it makes a master key)"
    return Check("sealing", "missing", "documents and texts lie here as they are", fix)


def _redis(settings: Settings) -> Check:
    reachable = reachable_settings(settings)
    if "redis_url" in settings.model_fields_set or reachable is not settings:
        try:
            info = server_info(connect(reachable))
        except CasemillError as error:
            if "redis_url" in settings.model_fields_set:
                return Check("redis", "broken", str(error), "start the server that REDIS_URL names, or unset REDIS_URL")
        else:
            name = f"{info['server']} {info['version']}"
            if info["durable"] == "yes":
                return Check("redis", "ok", f"{name} answers, every write is synced")
            fix = "CONFIG SET appendonly yes; CONFIG SET appendfsync always"
            return Check("redis", "missing", f"{name} answers, but a crash of its machine may lose the last jobs", fix)
    try:
        return Check("redis", "ok", f"`casemill up` runs its own: {find_server()}")
    except CasemillError as error:
        return Check("redis", "broken", "no server here", str(error))


def _llama(hardware: dict[str, Any]) -> Check:
    llama: dict[str, Any] = hardware["llama"]
    if "error" in llama:
        return Check("llama.cpp", "broken", llama["error"], _INSTALL)
    return Check("llama.cpp", "ok", f"llama-cpp-python {llama['version']}")


def _gpu(hardware: dict[str, Any]) -> Check:
    names = ", ".join(gpu["name"] for gpu in hardware["gpus"])
    if not names:
        return Check("gpu", "missing", f"none; models run on {len(hardware['cores'])} cores")
    if hardware["llama"].get("gpu_offload"):
        return Check("gpu", "ok", names)
    fix = (
        'CMAKE_ARGS="-DGGML_CUDA=on -DLLAVA_BUILD=OFF" '
        f'"{sys.executable}" -m pip install --force-reinstall --no-cache-dir llama-cpp-python==0.3.36'
    )
    return Check("gpu", "missing", f"{names} is here, but llama.cpp was built for the CPU", fix)


def _adapter(hardware: dict[str, Any]) -> Check:
    adapters: list[dict[str, str]] | dict[str, str] = hardware["adapters"]
    fix = "apt-get install mesa-vulkan-drivers libvulkan1" if sys.platform == "linux" else "update the graphics driver"
    if isinstance(adapters, dict):
        return Check("shaders", "missing", f"wgpu: {adapters['error']}; scans run on the CPU", fix)
    if not adapters:
        return Check("shaders", "missing", "wgpu finds no adapter; scans run on the CPU", fix)
    shown = "; ".join(dict.fromkeys(f"{item['name']} ({item['type']}, {item['backend']})" for item in adapters))
    return Check("shaders", "ok", shown)


def _ocr(hardware: dict[str, Any], settings: Settings) -> Check:
    found = hardware["ocr"]
    fix = "apt-get install tesseract-ocr" if sys.platform == "linux" else "install tesseract and put it on the PATH"
    if found is None:
        return Check("ocr", "missing", "tesseract is not on the PATH; scanned pages cannot be read", fix)
    if "error" in found:
        return Check("ocr", "broken", f"tesseract does not run: {found['error']}", fix)
    lacking = [name for name in settings.ocr_languages.split("+") if name not in found["languages"]]
    if lacking:
        names = ", ".join(lacking)
        return Check("ocr", "broken", f"tesseract has no data for {names}", f"install its language data for {names}")
    return Check("ocr", "ok", f"{found['path']}, reads {settings.ocr_languages}")


def _models(settings: Settings) -> Check:
    try:
        models = Catalog(settings.models_folder).list()
    except CasemillError as error:
        return Check("models", "broken", str(error), "mend or delete the catalog file that is named")
    gone = [model.name for model in models if not model.path.exists()]
    if gone:
        return Check("models", "broken", f"the files of {', '.join(gone)} are gone", "casemill models add PATH")
    if not models:
        return Check("models", "missing", "none is installed", "casemill models add PATH   (or: casemill models demo)")
    shown = ", ".join(f"{model.name} ({model.kind})" for model in models)
    if all(model.name != CLAUSE_MODEL for model in models):
        fix = (
            "casemill models demo   (or, from a machine that has it: casemill models add FILE --name minilm-contracts)"
        )
        return Check("models", "missing", f"{shown}; without {CLAUSE_MODEL} clauses are found by words alone", fix)
    return Check("models", "ok", shown)


def _stack(settings: Settings) -> Check:
    known = ClientFile(settings.data_dir).read()
    url = settings.url or (known.url if known else settings.local_url)
    if _try(lambda: httpx.get(f"{url}/livez", timeout=3, trust_env=False).status_code == 200):
        return Check("gateway", "ok", f"answers at {url}")
    return Check("gateway", "missing", f"does not answer at {url}", "casemill up")


def _try(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
