"""Sealed files that are read in parts: blocks of AES-256-GCM under one key of the file, so any place can be opened.

A block's nonce is its number, so none can stand in another's place; the last is bound to being the last, so a file that
was cut off is noticed by who reads to its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

BLOCK_BYTES: Final = 256 * 1024
_TAG_BYTES: Final = 16
_STORED_BYTES: Final = BLOCK_BYTES + _TAG_BYTES


def seal_blocks(cipher: AESGCM, pieces: Iterable[bytes], bound_to: bytes) -> Iterator[bytes]:
    """Pieces of any size as sealed blocks."""
    held, number = bytearray(), 0
    for piece in pieces:
        held += piece
        while len(held) > BLOCK_BYTES:
            yield cipher.encrypt(_nonce(number), bytes(held[:BLOCK_BYTES]), _bound(bound_to, last=False))
            del held[:BLOCK_BYTES]
            number += 1
    yield cipher.encrypt(_nonce(number), bytes(held), _bound(bound_to, last=True))


def open_blocks(
    cipher: AESGCM, stream: BinaryIO, bound_to: bytes, *, start: int, length: int | None
) -> Iterator[bytes]:
    """The bytes from ``start`` on of what stands at the stream's place, ``length`` of them if that is named.

    Raises ``InvalidTag`` where a block is not what was sealed.
    """
    number, skip = divmod(start, BLOCK_BYTES)
    stream.seek(number * _STORED_BYTES, 1)
    block = stream.read(_STORED_BYTES)
    while block and length != 0:
        following = stream.read(_STORED_BYTES)
        opened = cipher.decrypt(_nonce(number), block, _bound(bound_to, last=not following))[skip:]
        if length is not None:
            opened = opened[:length]
            length -= len(opened)
        if opened:
            yield opened
        block, number, skip = following, number + 1, 0


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _bound(bound_to: bytes, *, last: bool) -> bytes:
    return bound_to + (b"|last" if last else b"|more")
