"""Where the documents of ``casemill run`` come from: files, folders, patterns and ZIP archives, one at a time."""

from __future__ import annotations

import glob
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.errors import CasemillError, InvalidRequest, PayloadTooLarge


@dataclass(frozen=True, slots=True)
class Source:
    """A document before its upload: a file, or a member of a ZIP archive."""

    name: str
    path: Path
    member: str | None = None

    def read(self, limit: int) -> bytes:
        """Its bytes; raises ``PayloadTooLarge``, and ``InvalidRequest`` for what cannot be read."""
        try:
            if self.member is None:
                if self.path.stat().st_size > limit:
                    raise PayloadTooLarge(f"larger than {limit} bytes", code="document_too_large")
                return self.path.read_bytes()
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as member:
                data = member.read(limit + 1)  # what the archive says of its size may be a lie
        except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise InvalidRequest(f"cannot be read: {error}", code="file_unreadable") from None
        if len(data) > limit:
            raise PayloadTooLarge(f"larger than {limit} bytes", code="document_too_large")
        return data


def sources(places: tuple[str, ...]) -> list[Source]:
    """The documents at files, folders (with what is below), ZIP archives and patterns, each file once, in order.

    Hidden files are left out. Raises ``InvalidRequest`` for a place where nothing is.
    """
    found: dict[tuple[Path, str | None], Source] = {}
    for place in places:
        here = list(_at(place))
        if not here:
            raise InvalidRequest(f"there is no document at {place}", code="documents_required")
        for source in here:
            found.setdefault((source.path.resolve(), source.member), source)
    return list(found.values())


def _at(place: str) -> Iterator[Source]:
    path = Path(place)
    if path.is_dir():
        for file in sorted(item for item in path.rglob("*") if item.is_file()):
            relative = file.relative_to(path)
            if not any(part.startswith(".") for part in relative.parts):
                yield from _in_file(file, relative.as_posix())
    elif path.is_file():
        yield from _in_file(path, path.name)
    else:
        for match in sorted(glob.glob(place, recursive=True)):  # noqa: PTH207 (a pattern may be absolute)
            if Path(match).is_file():
                yield from _in_file(Path(match), Path(match).name)


def _in_file(path: Path, name: str) -> Iterator[Source]:
    if path.suffix.lower() == ".zip":
        yield from _in_archive(path)
    else:
        yield Source(name, path)


def _in_archive(path: Path) -> Iterator[Source]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(info.filename for info in archive.infolist() if not info.is_dir())
    except (OSError, zipfile.BadZipFile) as error:
        raise InvalidRequest(f"{path} is no ZIP archive that can be read: {error}", code="archive_broken") from None
    for name in names:
        parts = Path(name).parts
        if parts and parts[0] != "__MACOSX" and not any(part.startswith(".") for part in parts):
            yield Source(name, path, name)


def describe(source: Source, error: CasemillError) -> dict[str, object]:
    """A document that never reached the run, for the output."""
    return {"file": source.name, "problem": error.problem()}
