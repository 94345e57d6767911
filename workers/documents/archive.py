"""Opens ZIP packages that may be bombs: every part is unpacked as a stream and counted, headers are not believed."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import Final

from services.errors import DocumentError
from workers.documents.limits import Limits, damaged

BROKEN: Final = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError)
"""What :mod:`zipfile` raises on an archive that is cut off or broken, where its parts are packed by :data:`METHODS`."""
METHODS: Final = frozenset((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
"""How a package may pack its parts (ISO/IEC 29500-2); no other decompressor is given bytes that nobody vouches for."""

_CHUNK = 256 * 1024
# Word files unpack to some 5 to 60 times their size; DEFLATE can reach 1,032.
_ABSURD_RATIO = 250
_RATIO_FROM = 16 * 2**20
_MOST_PARTS = 20_000


class Package:
    """The parts of a package, all of them unpacked once and found to stay within the limits."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        """Check every part. Raises ``document_expands_too_much``, ``document_encrypted``, ``document_damaged``."""
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(data))
        except BROKEN as error:
            raise damaged("The Word document is cut off or broken.") from error
        self.names = frozenset(self._archive.namelist())
        if len(self._archive.infolist()) > _MOST_PARTS:
            raise _expands()
        total = 0
        for part in self._archive.infolist():
            if part.flag_bits & 1:
                raise DocumentError(
                    "The document is encrypted. Remove its password and send it again.", code="document_encrypted"
                )
            total = self._check(part, total, len(data), limits)

    def _check(self, part: zipfile.ZipInfo, total: int, packed: int, limits: Limits) -> int:
        """The bytes unpacked so far, this part included."""
        if part.compress_type not in METHODS:
            raise damaged(f"The Word document packs its part {part.filename!r} in a way that Word does not read.")
        try:
            with self._archive.open(part) as stream:
                while chunk := stream.read(_CHUNK):
                    total += len(chunk)
                    if total > limits.unpacked_bytes or (total > _RATIO_FROM and total > _ABSURD_RATIO * packed):
                        raise _expands()
        except BROKEN as error:
            raise damaged(f"The Word document is broken in its part {part.filename!r}.") from error
        return total

    def read(self, name: str) -> bytes:
        """The content of one part, whose size was counted before."""
        return self._archive.read(name)


def _expands() -> DocumentError:
    return DocumentError(
        "The document unpacks to far more than a document holds. If it is sound, save it as PDF and send that.",
        code="document_expands_too_much",
    )
