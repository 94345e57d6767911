"""What is sealed opens again for whom it was sealed, and for nobody once a key of it is destroyed."""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from services.blobs import Blobs
from services.data_keys import DataKeys, Erased, matter_owner
from services.errors import Permanent
from services.master_key import line_of, make_master_key, new_line, read_master_keys
from services.sealed_blocks import BLOCK_BYTES, open_blocks, seal_blocks
from services.seals import Seals
from services.settings import Settings

DOCUMENT = "doc_" + 64 * "a"
OTHER = "doc_" + 64 * "b"
TEXT = "Die Mieterin Zoë zahlt 1.200 €"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate({"data_dir": tmp_path / "data"})


@pytest.fixture
def seals(settings: Settings) -> Seals:
    assert Seals.make_master_key(settings)
    seals = Seals.of(settings)
    keys_of(seals).create("acme", DOCUMENT)
    keys_of(seals).create("acme", OTHER)
    return seals


def keys_of(seals: Seals) -> DataKeys:
    assert seals.keys
    return seals.keys


def test_a_text_opens_again_and_shows_nothing(seals: Seals) -> None:
    for owners in ((), (DOCUMENT,), (DOCUMENT, matter_owner("acme", "m1"))):
        sealed = seals.seal_text("acme", "input", TEXT, owners)
        assert "Mieterin" not in sealed
        assert seals.seal_text("acme", "input", TEXT, owners) != sealed, "equal texts must not look equal"
        assert seals.open_text("acme", "input", sealed) == TEXT


def test_a_text_opens_only_as_what_it_is_and_for_whom(seals: Seals) -> None:
    sealed = seals.seal_text("acme", "input", TEXT, (DOCUMENT,))
    keys_of(seals).create("other", DOCUMENT)
    for tenant, kind, stored in (
        ("acme", "name", sealed),
        ("other", "input", sealed),
        ("acme", "input", sealed.replace(DOCUMENT, OTHER)),
        ("acme", "input", sealed[:-6] + "AAAAAA"),
    ):
        with pytest.raises(Erased):
            seals.open_text(tenant, kind, stored)


def test_a_destroyed_key_opens_nothing_even_if_it_is_made_again(seals: Seals, settings: Settings) -> None:
    alone = seals.seal_text("acme", "input", TEXT, (DOCUMENT,))
    joint = seals.seal_text("acme", "input", TEXT, (DOCUMENT, OTHER))
    apart = seals.seal_text("acme", "input", TEXT, (OTHER,))
    # Another process of the installation destroys it; this one has it in memory.
    assert keys_of(Seals.of(settings)).destroy("acme", DOCUMENT)
    with pytest.raises(Erased):
        seals.seal_text("acme", "input", TEXT, (DOCUMENT,))
    for _ in range(2):
        for stored in (alone, joint):
            with pytest.raises(Erased):
                seals.open_text("acme", "input", stored)
        assert seals.open_text("acme", "input", apart) == TEXT
        keys_of(seals).create("acme", DOCUMENT)


@given(st.text())
def test_without_a_key_every_text_passes_as_it_is(text: str) -> None:
    plain = Seals(None)
    for given_text in (text, f"sealed:1:{text}", f"sealed:0:{text}", f'{{"name": "sealed:1:{text}"}}'):
        assert plain.open_text("acme", "input", plain.seal_text("acme", "input", given_text)) == given_text


def test_a_blob_is_bound_to_its_name_and_owners(seals: Seals, settings: Settings) -> None:
    blobs = Blobs(settings.data_dir, seals)
    name = blobs.put("acme", "text", TEXT.encode(), owners=(DOCUMENT,))
    again = blobs.put("acme", "text", b"another text", owners=(DOCUMENT,))
    file, other = blobs.path("acme", name), blobs.path("acme", again)
    stored = file.read_bytes()
    assert blobs.get("acme", name) == TEXT.encode()
    assert "Zoë".encode() not in stored
    shutil.copy(other, file)
    with pytest.raises(Erased):
        blobs.get("acme", name)
    file.write_bytes(stored.replace(DOCUMENT.encode(), OTHER.encode(), 1))
    with pytest.raises(Erased):
        blobs.get("acme", name)
    file.write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
    with pytest.raises(Erased):
        blobs.get("acme", name)


def test_blobs_from_before_there_was_a_key_are_read_and_sealed_when_they_are_stored_again(
    settings: Settings, seals: Seals
) -> None:
    plain, sealing = Blobs(settings.data_dir), Blobs(settings.data_dir, seals)
    name = plain.put("acme", "text", TEXT.encode(), owners=(DOCUMENT,))
    assert sealing.get("acme", name) == TEXT.encode()
    assert sealing.put("acme", "text", TEXT.encode(), owners=(DOCUMENT,)) == name
    assert "Zoë".encode() not in sealing.path("acme", name).read_bytes()
    sealing.path("acme", name).write_bytes(b"of an early version, without a first line\n")
    assert sealing.get("acme", name).startswith(b"of an early version")


def test_documents_from_before_there_was_a_key_get_theirs_once(settings: Settings) -> None:
    document = Blobs(settings.data_dir).put_document("acme", b"an old lease")
    assert Seals.make_master_key(settings)
    sealing = Blobs(settings.data_dir, Seals.of(settings))
    text = sealing.put("acme", "text", TEXT.encode(), owners=(document,))
    assert sealing.get("acme", text) == TEXT.encode()
    assert "Zoë".encode() not in sealing.path("acme", text).read_bytes()
    assert keys_of(sealing.seals).destroy("acme", document)
    with pytest.raises(Erased):
        Blobs(settings.data_dir, Seals.of(settings)).put("acme", "text", b"late", owners=(document,))


def test_erasing_finds_every_file_of_an_owner_half_written_ones_too(settings: Settings) -> None:
    blobs = Blobs(settings.data_dir)
    mine = [blobs.put("acme", "text", b"one", owners=names) for names in ((DOCUMENT,), (OTHER, DOCUMENT))]
    theirs = blobs.put("acme", "text", b"one", owners=(OTHER,))
    half = blobs.path("acme", mine[0]).with_name(".half-written")
    half.write_bytes(blobs.path("acme", mine[0]).read_bytes()[:-1])
    assert blobs.erase("acme", [DOCUMENT]) == 3
    assert not half.exists()
    assert not any(blobs.exists("acme", name) for name in mine)
    assert blobs.get("acme", theirs) == b"one"


def test_a_rotation_opens_what_was_sealed_before_and_reaches_processes_that_run(
    seals: Seals, settings: Settings
) -> None:
    sealed = seals.seal_text("acme", "input", TEXT, (DOCUMENT,))
    path = settings.master_key_path
    assert path
    before = path.read_bytes()
    assert keys_of(Seals.of(settings)).rotate_master() >= 2
    assert path.read_bytes() != before
    keys_of(seals).create("acme", "doc_" + 64 * "c")
    assert Seals.of(settings).open_text("acme", "input", sealed) == TEXT
    assert Seals.of(settings).fingerprint("acme", ["doc_" + 64 * "c"])
    path.write_bytes(before)
    with pytest.raises(Permanent) as refused:
        Seals.of(settings)
    assert refused.value.code == "master_key_other"


def test_a_rotation_that_was_interrupted_goes_on(seals: Seals, settings: Settings) -> None:
    path = settings.master_key_path
    assert path
    sealed = seals.seal_text("acme", "input", TEXT, (DOCUMENT,))
    new = new_line()
    path.write_bytes(new + line_of(read_master_keys(path)[0]))
    keys_of(Seals.of(settings)).rewrap()
    keys_of(Seals.of(settings)).rotate_master()
    assert path.read_bytes() == new
    assert Seals.of(settings).open_text("acme", "input", sealed) == TEXT


def test_a_sealed_folder_without_its_key_says_so_and_gets_no_new_one(seals: Seals, settings: Settings) -> None:
    path = settings.master_key_path
    assert path
    path.unlink()
    assert Seals.make_master_key(settings) is None
    for changed in (settings, settings.model_copy(update={"master_key_file": "none"})):
        with pytest.raises(Permanent) as refused:
            Seals.of(changed)
        assert refused.value.code == "master_key_missing"
    make_master_key(path)
    with pytest.raises(Permanent) as refused:
        Seals.of(settings)
    assert refused.value.code == "master_key_other"


@pytest.mark.skipif(sys.platform == "win32", reason="modes of files")
def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    make_master_key(path)
    assert path.stat().st_mode & 0o077 == 0
    path.chmod(0o644)
    with pytest.raises(Permanent) as refused:
        read_master_keys(path)
    assert refused.value.code == "master_key_open"
    path.chmod(0o600)
    for content in ("", "short", "z" * 64, os.urandom(31).hex()):
        path.write_text(content)
        with pytest.raises(Permanent) as refused:
            read_master_keys(path)
        assert refused.value.code == "master_key_invalid"
    path.write_text(os.urandom(32).hex() + "\n")
    assert read_master_keys(path)[0].id


@given(st.integers(0, 3), st.integers(-2, 2), st.integers(0, 900_000), st.none() | st.integers(0, 600_000))
def test_a_file_that_is_read_in_parts_opens_at_any_place(
    blocks: int, more: int, start: int, length: int | None
) -> None:
    data = os.urandom(max(0, blocks * BLOCK_BYTES + more))
    cipher = AESGCM(os.urandom(32))
    pieces = [data[at : at + 100_000] for at in range(0, len(data), 100_000)]
    stored = b"".join(seal_blocks(cipher, pieces, b"bound"))
    opened = b"".join(open_blocks(cipher, io.BytesIO(stored), b"bound", start=start, length=length))
    assert opened == (data[start:] if length is None else data[start : start + length])


def test_a_file_in_parts_is_whole_or_refused(seals: Seals, settings: Settings) -> None:
    blobs = Blobs(settings.data_dir, seals)
    name, other = blobs.name("acme", "file", "one"), blobs.name("acme", "file", "two")
    data = os.urandom(2 * BLOCK_BYTES + 10)
    blobs.put_blocks("acme", name, [TEXT.encode(), data])
    path = blobs.path("acme", name)
    stored = path.read_bytes()
    assert blobs.get("acme", name) == TEXT.encode() + data
    assert b"".join(blobs.blocks("acme", name, start=3, length=9)) == (TEXT.encode() + data)[3:12]
    assert TEXT.encode() not in stored
    head = len(stored) - len(data) - len(TEXT.encode()) - 3 * 16
    cut, first, second = stored[: head + 2 * (BLOCK_BYTES + 16)], head, head + BLOCK_BYTES + 16
    swapped = stored[:head] + stored[second : second + BLOCK_BYTES + 16] + stored[first:second] + stored[-26:]
    for damaged in (cut, swapped, stored[:-1]):
        path.write_bytes(damaged)
        with pytest.raises(Erased):
            blobs.get("acme", name)
    blobs.path("acme", other).parent.mkdir(parents=True, exist_ok=True)
    blobs.path("acme", other).write_bytes(stored)
    with pytest.raises(Erased):
        blobs.get("acme", other)
    small = blobs.put("acme", "text", TEXT.encode())
    assert b"".join(blobs.blocks("acme", small, start=4, length=4)) == TEXT.encode()[4:8]
    plain = Blobs(settings.data_dir / "plain")
    plain.put_blocks("acme", name, [TEXT.encode()])
    assert b"".join(plain.blocks("acme", name, start=4, length=4)) == TEXT.encode()[4:8]
