"""The catalog: adding by path and URL, checksums, names, removal, and several processes at once."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from services import model_files
from services.errors import Conflict, InvalidRequest, ModelError, NotFound, Unavailable
from services.models import Catalog
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "data")


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def mirror(tiny: Path) -> Iterator[str]:
    body = tiny.read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/none.gguf":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if self.path == "/short.gguf" else body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_adds_by_path_and_reads_back(catalog: Catalog, tiny: Path) -> None:
    assert catalog.list() == []
    model = catalog.add(tiny)
    assert (model.name, model.kind, model.path, model.sha256) == ("tiny-random", "generate", tiny.resolve(), sha(tiny))
    assert (model.bytes, model.licence, model.context_tokens) == (tiny.stat().st_size, "Apache-2.0", 512)
    assert Catalog(catalog.folder).list() == [model]
    assert catalog.add(tiny) == model, "the same again is no error"
    assert catalog.verify("tiny-random") == model


def test_unknown_names_list_the_installed(catalog: Catalog, tiny: Path) -> None:
    with pytest.raises(NotFound, match="none yet") as caught:
        catalog.get("llama")
    assert caught.value.code == "model_unknown"
    catalog.add(tiny, name="one")
    with pytest.raises(NotFound, match="one"):
        catalog.get("llama")


def test_wrong_checksums_and_names_are_refused(catalog: Catalog, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        catalog.add(tiny, sha256="0" * 64)
    assert caught.value.code == "model_checksum_mismatch"
    for name in ("A b", "../x", "fake", "x" * 97):
        with pytest.raises(InvalidRequest) as invalid:
            catalog.add(tiny, name=name)
        assert invalid.value.code == "model_name_invalid"
    with pytest.raises(InvalidRequest, match="64 hexadecimal"):
        catalog.add(tiny, sha256="abc")
    other = write_tiny_model(tmp_path / "other.gguf", seed=8)
    catalog.add(tiny, name="mine")
    with pytest.raises(Conflict) as conflict:
        catalog.add(other, name="mine")
    assert conflict.value.code == "model_exists"
    assert [model.sha256 for model in catalog.list()] == [sha(tiny)]


def test_a_changed_file_is_found(catalog: Catalog, tiny: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    data = bytearray(tiny.read_bytes())
    copy.write_bytes(data)
    catalog.add(copy, name="copy")
    data[-1] ^= 1
    copy.write_bytes(data)
    assert catalog.get("copy")
    with pytest.raises(ModelError) as caught:
        catalog.verify("copy")
    assert caught.value.code == "model_checksum_mismatch"
    copy.write_bytes(data[:-1])
    with pytest.raises(ModelError) as caught:
        catalog.get("copy")
    assert caught.value.code == "model_damaged"
    copy.unlink()
    with pytest.raises(ModelError) as caught:
        catalog.get("copy")
    assert caught.value.code == "model_missing"


def test_downloads_whole_or_not_at_all(catalog: Catalog, tiny: Path, mirror: str) -> None:
    seen: list[tuple[int, int | None]] = []
    model = catalog.add(f"{mirror}/a/tiny.gguf", sha256=sha(tiny).upper(), progress=lambda *now: seen.append(now))
    assert model.path.read_bytes() == tiny.read_bytes()
    assert model.path.parent == catalog.folder.resolve()
    assert seen[-1] == (tiny.stat().st_size, tiny.stat().st_size)
    assert catalog.remove(model.name).name == model.name
    assert not model.path.exists(), "a download goes with its model"
    with pytest.raises(InvalidRequest) as required:
        catalog.add(f"{mirror}/tiny.gguf")
    assert required.value.code == "sha256_required"
    with pytest.raises(ModelError) as wrong:
        catalog.add(f"{mirror}/tiny.gguf", sha256="1" * 64)
    assert wrong.value.code == "model_checksum_mismatch"
    with pytest.raises(ModelError) as missing:
        catalog.add(f"{mirror}/none.gguf", sha256=sha(tiny))
    assert missing.value.code == "model_source_refused"
    with pytest.raises(Unavailable):
        catalog.add(f"{mirror}/short.gguf", sha256=sha(tiny))
    with pytest.raises(InvalidRequest):
        catalog.add(f"{mirror}/tiny.gguf", sha256=sha(tiny), name="No Good Name")
    assert catalog.list() == []
    assert [path.name for path in catalog.folder.iterdir() if "gguf" in path.name] == []


def test_a_full_disk_stops_before_the_download(
    catalog: Catalog, tiny: Path, mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_files, "SPARE_BYTES", 2**62)
    with pytest.raises(ModelError) as caught:
        catalog.add(f"{mirror}/tiny.gguf", sha256=sha(tiny))
    assert caught.value.code == "disk_full"


def test_a_file_outside_stays_when_removed(catalog: Catalog, tiny: Path) -> None:
    catalog.add(tiny, name="outside")
    catalog.remove("outside")
    assert tiny.exists()
    with pytest.raises(NotFound):
        catalog.remove("outside")


def test_a_damaged_catalog_is_named(catalog: Catalog) -> None:
    catalog.folder.mkdir(parents=True)
    (catalog.folder / "catalog.json").write_text("{", "utf-8")
    with pytest.raises(ModelError) as caught:
        catalog.list()
    assert caught.value.code == "catalog_damaged"


def test_the_data_directory_can_be_moved(tmp_path: Path, tiny: Path, mirror: str) -> None:
    Catalog(tmp_path / "old").add(f"{mirror}/tiny.gguf", sha256=sha(tiny), name="tiny")
    (tmp_path / "old").rename(tmp_path / "new")
    assert Catalog(tmp_path / "new").verify("tiny").path.is_relative_to(tmp_path / "new")


def test_many_processes_lose_nothing(catalog: Catalog, tiny: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from services.models import Catalog\n"
        "for n in range(5): Catalog(Path(sys.argv[1])).add(sys.argv[2], name=f'{sys.argv[3]}-{n}')"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(catalog.folder), str(tiny), f"p{number}"])
        for number in range(4)
    ]
    assert [process.wait(60) for process in running] == [0] * 4
    assert {model.name for model in catalog.list()} == {f"p{p}-{n}" for p in range(4) for n in range(5)}


def test_one_model_takes_the_place_of_another_where_asked(catalog: Catalog, tiny: Path, tmp_path: Path) -> None:
    catalog.folder.mkdir(parents=True)
    inside, outside = catalog.folder / "first.gguf", tmp_path / "second.gguf"
    for path, more in ((inside, b"1"), (outside, b"2")):
        path.write_bytes(tiny.read_bytes() + more)
    catalog.add(inside, name="one")
    with pytest.raises(Conflict):
        catalog.add(outside, name="one")
    assert inside.exists()
    assert catalog.add(outside, name="one", overwrite=True) == catalog.get("one")
    assert not inside.exists(), "ours and of no use any more"
    catalog.add(tiny, name="one", overwrite=True)
    assert outside.exists(), "not ours to delete"
    assert [model.path for model in catalog.list()] == [tiny]
