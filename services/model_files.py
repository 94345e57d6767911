"""Brings model files into the data directory whole or not at all, and knows their checksums; used by the catalog."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import httpx

from services.durable_files import write_durably
from services.errors import ModelError, Unavailable

BLOCK: Final = 2**20
SPARE_BYTES: Final = 256 * 2**20
# Models may be shared by several users of a machine, as the umask says.
SHARED_MODE: Final = 0o666

Progress = Callable[[int, int | None], None]


def sha256_of(path: Path) -> str:
    """The file's sha256 in hexadecimal. Raises ``ModelError`` ``model_missing`` where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
    except OSError as error:
        raise ModelError(f"The model file {path} cannot be read: {error.strerror}.", code="model_missing") from error
    return digest.hexdigest()


def require_space(folder: Path, needed: int) -> None:
    """Raise ``ModelError`` ``disk_full`` where ``folder`` cannot take ``needed`` bytes and keep 256 MiB free."""
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        raise ModelError(
            f"The model needs {needed:,} bytes and {folder} has {free:,} free (256 MiB are kept free). Free some space "
            f"or point CASEMILL_DATA_DIR to another disk.",
            code="disk_full",
        )


def write_whole(target: Path, blocks: Iterator[bytes], sha256: str | None = None) -> str:
    """Write ``blocks`` durably to ``target``, which appears only with the right sum; returns the sha256.

    Nothing is left behind where anything fails. Raises ``ModelError`` ``model_checksum_mismatch``.
    """
    digest = hashlib.sha256()

    def summed() -> Iterator[bytes]:
        for block in blocks:
            digest.update(block)
            yield block
        if sha256 and digest.hexdigest() != sha256.lower():
            raise checksum_mismatch(target.name, sha256.lower(), digest.hexdigest())

    write_durably(target, summed(), mode=SHARED_MODE)
    return digest.hexdigest()


def checksum_mismatch(name: str, expected: str, found: str) -> ModelError:
    """The error for a file that is not the one that was meant."""
    return ModelError(
        f"{name} has the sha256 {found}, expected was {expected}. The file is damaged or another one: check the "
        f"source, then fetch it again.",
        code="model_checksum_mismatch",
    )


def download(url: str, target: Path, sha256: str, progress: Progress | None = None) -> None:
    """Stream ``url`` into ``target``, which appears only when complete and with the right ``sha256``.

    ``progress`` is told the bytes so far and the total where the server says it. Raises ``ModelError``
    (``model_checksum_mismatch``, ``disk_full``, ``model_source_refused`` for a 4xx) or ``Unavailable``.
    """

    def blocks(answer: httpx.Response, total: int | None) -> Iterator[bytes]:
        done = 0
        for block in answer.iter_bytes(BLOCK):
            done += len(block)
            if total is None and done % (64 * BLOCK) < len(block):
                require_space(target.parent, BLOCK)
            yield block
            if progress is not None:
                progress(done, total)

    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=httpx.Timeout(30.0)) as answer:
            if answer.is_client_error:
                raise ModelError(
                    f"{url} answered {answer.status_code}: check the address.", code="model_source_refused"
                )
            answer.raise_for_status()
            length = answer.headers.get("content-length", "")
            total = int(length) if length.isdecimal() else None
            require_space(target.parent, total or BLOCK)
            write_whole(target, blocks(answer, total), sha256)
    except httpx.InvalidURL as error:
        raise ModelError(f"{url} is no address: {error}", code="model_source_refused") from error
    except httpx.HTTPError as error:
        raise Unavailable(f"{url} could not be fetched: {error or type(error).__name__}. Try again.") from error
