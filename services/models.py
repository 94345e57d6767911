"""The catalog of installed models: which GGUF file stands for which name, with its checksum, licence and size.

Kept as ``catalog.json`` in the models folder of the settings, replaced atomically under a lock, so that the command
line, the gateway and many workers may read and change it at once. Files added by path stay where they are; downloads go
beside the catalog.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, cast
from urllib.parse import unquote, urlsplit

from services.durable_files import read_replaced, write_durably
from services.errors import Conflict, InvalidRequest, ModelError, NotFound
from services.file_locks import exclusive
from services.gguf_header import read_header
from services.model_files import SHARED_MODE, Progress, checksum_mismatch, download, sha256_of

log = logging.getLogger("casemill.models")

Kind = Literal["generate", "embed"]
CLAUSE_MODEL: Final = "minilm-contracts"
"""MiniLM adapted to contracts: sentences are read by it, in their context, for the clause heads."""
# What a cache of keys and values holds: 16-bit numbers, or half the bytes.
KvType = Literal["f16", "q8_0"]

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,95}")
SHA256: Final = re.compile(r"[0-9a-f]{64}")
FAKE: Final = "fake"


@dataclass(frozen=True, slots=True)
class Model:
    """One installed model.

    ``bytes`` is the size of the file, ``context_tokens`` the longest context it was trained for, ``dimensions`` the
    width of its hidden state (for ``embed``: of its vectors). ``source`` is where the file came from (path, URL or
    package), ``origin`` who made the weights and under which address.
    """

    name: str
    kind: Kind
    path: Path
    sha256: str
    bytes: int
    licence: str
    architecture: str
    context_tokens: int
    dimensions: int
    source: str
    origin: str

    def to_json(self) -> dict[str, Any]:
        """The members as JSON has them."""
        return {**asdict(self), "path": str(self.path)}


class Catalog:
    """The models of one folder; cheap to create, reads the file on every call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = self.folder / "catalog.json"

    def list(self) -> list[Model]:
        """All models, in the order in which they were added. Raises ``ModelError`` ``catalog_damaged``."""
        return list(self._read().values())

    def get(self, name: str) -> Model:
        """The model called ``name``, whose file is there in its full size.

        Raises ``NotFound`` ``model_unknown`` naming the installed ones; ``ModelError`` ``model_missing`` or
        ``model_damaged`` where its file is gone or has another size than when it was added.
        """
        models = self._read()
        if name not in models:
            installed = ", ".join(models) or "none yet; `casemill models add` installs one"
            raise NotFound(f"There is no model {name!r}. Installed: {installed}.", code="model_unknown")
        model = models[name]
        try:
            size = model.path.stat().st_size
        except OSError as error:
            raise ModelError(
                f"The file of model {name!r} is gone: {model.path}. Put it back or remove and add the model again.",
                code="model_missing",
            ) from error
        if size != model.bytes:
            raise ModelError(
                f"The file of model {name!r} has {size:,} bytes, it had {model.bytes:,} when it was added. Remove the "
                f"model and add it again.",
                code="model_damaged",
            )
        return model

    def add(
        self,
        path_or_url: str | Path,
        sha256: str | None = None,
        name: str | None = None,
        licence: str | None = None,
        *,
        source: str | None = None,
        origin: str | None = None,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Model:
        """Install a GGUF file: one on this machine stays where it is, one at an ``https`` URL is downloaded.

        ``sha256`` is required for a URL and checked wherever it is given; ``name`` and ``licence`` default to what the
        file says. The same file under the same name again is no error; with ``overwrite`` neither is another, whose
        entry it takes. Raises ``InvalidRequest`` (``sha256_required``, ``model_name_invalid``), ``Conflict``
        ``model_exists``, ``ModelError`` (``model_checksum_mismatch``, ``model_damaged``, ``model_missing``,
        ``disk_full``) or ``Unavailable``.
        """
        wanted = sha256.strip().lower() if sha256 else None
        if wanted is not None and not SHA256.fullmatch(wanted):
            raise InvalidRequest("The sha256 must be 64 hexadecimal digits.", code="sha256_invalid")
        location = str(path_or_url)
        remote = location.lower().startswith(("http://", "https://"))
        if remote and wanted is None:
            raise InvalidRequest(
                "A model from a URL needs its sha256 (the model's page shows it), so that nobody can swap the file.",
                code="sha256_required",
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        if remote:
            file_name = PurePosixPath(unquote(urlsplit(location).path)).name or "model.gguf"
            path = self.folder / f"{cast(str, wanted)[:12]}-{re.sub(r'[^A-Za-z0-9._-]', '_', file_name)}"
            if not (path.exists() and sha256_of(path) == wanted):
                download(location, path, cast(str, wanted), progress)
        else:
            path = Path(location).expanduser().resolve()
        try:
            return self._record(path, wanted, name, licence, source or location, origin, overwrite=overwrite)
        except BaseException:
            # A download that is no model, or whose name is taken, must not stay behind unlisted.
            if remote and all(model.path != path for model in self.list()):
                path.unlink(missing_ok=True)
            raise

    def _record(
        self,
        path: Path,
        wanted: str | None,
        name: str | None,
        licence: str | None,
        source: str,
        origin: str | None,
        *,
        overwrite: bool,
    ) -> Model:
        header = read_header(path)
        found = sha256_of(path)
        if wanted is not None and found != wanted:
            raise checksum_mismatch(path.name, wanted, found)
        chosen = name or re.sub(r"[^a-z0-9._-]+", "-", (header.name or path.stem).lower()).strip("-._") or "model"
        if not NAME.fullmatch(chosen) or chosen == FAKE:
            raise InvalidRequest(
                f"{chosen!r} cannot be a model's name: use up to 96 of a-z, 0-9, dot, dash and underscore.",
                code="model_name_invalid",
            )
        model = Model(
            name=chosen,
            kind="embed" if header.kind == "embed" else "generate",
            path=path,
            sha256=found,
            bytes=path.stat().st_size,
            licence=licence or header.licence or "not stated",
            architecture=header.architecture,
            context_tokens=header.context_tokens,
            dimensions=header.dimensions,
            source=source,
            origin=origin or header.text("general.source.url") or header.text("general.url") or source,
        )

        def put(models: dict[str, Model]) -> None:
            there = models.get(chosen)
            if there is not None and there.sha256 != found:
                if not overwrite:
                    raise Conflict(
                        f"Another model is called {chosen!r}. Give this one another name or remove that one first.",
                        code="model_exists",
                    )
                replaced.append(there.path)
            models[chosen] = model

        replaced: list[Path] = []
        self._change(put)
        for old in replaced:
            if old != path and old.is_relative_to(self.folder.resolve()):
                try:
                    old.unlink(missing_ok=True)
                except OSError:  # a worker on Windows still has it open
                    log.warning("%s is no longer used: delete it when no worker has it open", old)
        return model

    def verify(self, name: str) -> Model:
        """Read the whole file again and compare. Raises ``ModelError`` ``model_checksum_mismatch``, and as ``get``."""
        model = self.get(name)
        found = sha256_of(model.path)
        if found != model.sha256:
            raise checksum_mismatch(f"The file of model {name!r}", model.sha256, found)
        return model

    def remove(self, name: str) -> Model:
        """Forget the model; its file is deleted where it lies in the data directory and no other name uses it."""
        removed: list[Model] = []
        left: list[Path] = []

        def drop(models: dict[str, Model]) -> None:
            if name not in models:
                raise NotFound(f"There is no model {name!r} to remove.", code="model_unknown")
            removed.append(models.pop(name))
            left.extend(model.path for model in models.values())

        self._change(drop)
        path = removed[0].path
        if path.is_relative_to(self.folder.resolve()) and path not in left:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise ModelError(
                    f"The model {name!r} is no longer listed, but {path} is in use and could not be deleted: stop the "
                    f"workers and delete it.",
                    code="model_in_use",
                ) from error
        return removed[0]

    def _change(self, change: Callable[[dict[str, Model]], None]) -> None:
        with exclusive(self.folder / "catalog.lock"):
            models = self._read()
            change(models)
            root = self.folder.resolve()
            rows: list[dict[str, Any]] = []
            for model in models.values():
                # Relative inside the data directory, so that the directory can be moved.
                inside = model.path.is_relative_to(root)
                path = model.path.relative_to(root).as_posix() if inside else str(model.path)
                rows.append({**model.to_json(), "path": path})
            text = json.dumps({"version": 1, "models": rows}, indent=1, ensure_ascii=False)
            write_durably(self._file, text.encode(), mode=SHARED_MODE)

    def _read(self) -> dict[str, Model]:
        text = read_replaced(self._file)
        if text is None:
            return {}
        root = self.folder.resolve()
        try:
            rows = [Model(**{**row, "path": root / row["path"]}) for row in json.loads(text)["models"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{self._file} cannot be read ({error}). Move it away and add the models again.", code="catalog_damaged"
            ) from error
        return {model.name: model for model in rows}


def fake_model(kind: Kind) -> Model:
    """The model record of the ``fake`` engine, which has no weights."""
    base = Model(
        name=FAKE, kind="generate", path=Path(), sha256="0" * 64, bytes=0, licence="Apache-2.0", architecture="none",
        context_tokens=4096, dimensions=384, source="built in", origin="Casemill; no weights, for tests only",
    )  # fmt: skip
    return base if kind == "generate" else replace(base, kind="embed", context_tokens=512)
