"""Blobs too large for memory: written and read block by block, each block sealed by itself where there is a key.

A file has a blob's header line, then the bytes as they are, or blocks of ``BLOCK_BYTES`` that are sealed with their
number and whether they are the last, so that none can be moved, left out or cut off without being seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

from services.blobs import PLAIN, Blobs, Header, bound
from services.errors import NotFound
from services.seals import SEAL_BYTES

BLOCK_BYTES: Final = 256 * 1024


class LargeBlobs:
    """Large blobs among the others of an installation; they belong to their tenant alone, to no document."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def name(self, tenant: str, kind: str, of: str) -> str:
        """The name of the one blob of this kind that belongs to ``of``, whatever it holds."""
        return f"{kind}_{self._blobs.keyed(tenant, f'{kind}:{of}'.encode())}"

    def put(self, tenant: str, name: str, parts: Iterable[bytes]) -> None:
        """Store bytes under a :meth:`name`; takes the place of what lay there.

        Durable on return; raises ``Unavailable`` when the disk is full, and what ``parts`` raises.
        """
        header = Header((), self._blobs.seals.fingerprint(tenant, ()))
        self._blobs.write(tenant, name, self._file(tenant, name, header, parts))

    def read(self, tenant: str, name: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes, or ``length`` of them from ``start`` on, in blocks; raises ``NotFound`` at once."""
        try:
            stream = self._blobs.path(tenant, name).open("rb")
        except FileNotFoundError:
            raise NotFound(f"blob {name} is not in the store; was it deleted?", code="blob_missing") from None
        return self._cut(self._opened(stream, tenant, name, start), length)

    def _file(self, tenant: str, name: str, header: Header, parts: Iterable[bytes]) -> Iterator[bytes]:
        yield header.line
        if header.key == PLAIN:
            yield from parts
            return
        about, number = bound(tenant, name, header), 0
        held = b""
        for part in parts:
            held += part
            while len(held) > BLOCK_BYTES:  # the last block is known by what does not follow it
                block, held = held[:BLOCK_BYTES], held[BLOCK_BYTES:]
                yield self._blobs.seals.seal_bytes(tenant, block, (), _place(about, number, last=False))
                number += 1
        yield self._blobs.seals.seal_bytes(tenant, held, (), _place(about, number, last=True))

    def _opened(self, stream: BinaryIO, tenant: str, name: str, start: int) -> Iterator[bytes]:
        """From ``start`` on, to the end."""
        with stream:
            header = Header.parse(stream.readline())
            begin = stream.tell() if header else 0
            if header is None or header.key == PLAIN:
                stream.seek(begin + start)
                while block := stream.read(BLOCK_BYTES):
                    yield block
                return
            size = BLOCK_BYTES + SEAL_BYTES
            blocks = -(-(stream.seek(0, 2) - begin) // size)
            first = start // BLOCK_BYTES
            stream.seek(begin + first * size)
            for number in range(first, blocks):
                about = _place(bound(tenant, name, header), number, last=number == blocks - 1)
                block = self._blobs.seals.open_bytes(tenant, stream.read(size), (), about)
                yield block[start - first * BLOCK_BYTES :] if number == first else block

    @staticmethod
    def _cut(blocks: Iterator[bytes], length: int | None) -> Iterator[bytes]:
        left = length
        for block in blocks:
            wanted = block if left is None else block[:left]
            left = None if left is None else left - len(wanted)
            if wanted:
                yield wanted
            if left == 0:
                return


def _place(about: bytes, number: int, *, last: bool) -> bytes:
    return about + f"{number}{'.' if last else ''}".encode()
