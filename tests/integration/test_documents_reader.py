"""The reading process: it answers, is killed when late or cancelled, is bound, and its crash is a clear error."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from fpdf import FPDF

from services.errors import CasemillError
from services.settings import Settings
from workers.documents import reader
from workers.documents.limits import Limits
from workers.documents.reader import child_command, read_document
from workers.documents.sandbox import run_process

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="rlimits are POSIX")


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "upload"
    path.write_text("The Supplier shall deliver the Goods – at once. 😀\n", encoding="utf-8")
    return path


def settings(tmp_path: Path, **values: object) -> Settings:
    return Settings(data_dir=tmp_path, **values)  # pyright: ignore[reportArgumentType]


def replaced(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let ``code`` run in place of the reading process."""
    monkeypatch.setattr(reader, "child_command", lambda limits: [sys.executable, "-I", "-c", code])


def refused(path: Path, given: Settings, cancelled: Callable[[], bool] = reader.never_cancelled) -> CasemillError:
    with pytest.raises(CasemillError) as caught:
        read_document(path, given, cancelled=cancelled)
    return caught.value


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def test_a_document_comes_back_whole(document: Path, tmp_path: Path) -> None:
    result = read_document(document, settings(tmp_path), name="supply.txt")
    assert result.kind == "txt"
    assert result.text == document.read_text(encoding="utf-8")
    assert result.notes == ()


def test_a_name_that_contradicts_the_content_decides_nothing_and_is_noted(document: Path, tmp_path: Path) -> None:
    result = read_document(document, settings(tmp_path), name="supply.PDF")
    assert result.kind == "txt"
    assert ".pdf" in result.notes[0]


def test_problems_cross_the_process_with_code_status_and_advice(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(b"\xffWPC\0\0\0")
    error = refused(path, settings(tmp_path))
    assert (error.code, error.http_status) == ("document_type_unsupported", 415)
    assert "WordPerfect" in error.detail
    path.write_bytes(b"")
    assert refused(path, settings(tmp_path)).code == "document_empty"
    path.write_bytes(b"x" * 2000)
    assert refused(path, settings(tmp_path, max_upload_bytes=1024)).code == "payload_too_large"
    path.unlink()
    assert refused(path, settings(tmp_path)).code == "document_missing"


def test_settings_reach_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_text("word " * 1000)
    assert refused(path, settings(tmp_path, max_text_chars=1000)).code == "document_text_too_long"
    path.write_text("a\fb\fc")
    assert refused(path, settings(tmp_path, max_pages=2)).code == "document_too_many_pages"


def test_five_thousand_pages_are_refused(tmp_path: Path) -> None:
    pdf = FPDF()
    for _ in range(5000):
        pdf.add_page()
    path = tmp_path / "upload"
    path.write_bytes(bytes(pdf.output()))
    error = refused(path, settings(tmp_path))
    assert error.code == "document_too_many_pages"
    assert "5,000" in error.detail


def test_fifty_megabytes_of_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(b"The parties agree as follows.\n" * 1_750_000)
    assert refused(path, settings(tmp_path)).code == "document_text_too_long"


def test_a_reader_that_hangs_is_killed_and_the_parent_lives(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = children()
    with monkeypatch.context() as patch:
        replaced(patch, "import time\nwhile True: time.sleep(1)")
        assert refused(document, settings(tmp_path, reader_seconds=0.5)).code == "reader_timeout"
        # One that closed its output and hangs all the same.
        replaced(patch, "import os, time\nos.close(1)\nwhile True: time.sleep(1)")
        assert refused(document, settings(tmp_path, reader_seconds=0.5)).code == "reader_timeout"
    assert children() <= before
    assert read_document(document, settings(tmp_path)).kind == "txt"


def test_a_real_document_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(b"<html>" + b"<table><tr><td>" * 60 + b"<p>clause</p>" * 800_000)
    before = children()
    assert refused(path, settings(tmp_path, reader_seconds=0.3)).code == "reader_timeout"
    assert children() <= before


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 8_000_000,
        b"a" + b"\n \n" * 2_000_000 + b"b",
        b"<!-- -->" * 500_000 + b"x",
        b"x%PDF-1.4 " + b"1" * 5_000_000,
        b"Message-ID: x\nFrom: a@x\nTo: " + b"a@b, " * 200_000 + b"\n\nx",
        b"Message-ID: x\nFrom: a@x\nSubject: " + b"=?utf-8?q?a?= " * 100_000 + b"\n\nx",
        b"{\\rtf1 " + b"a{\\footnote x}" * 60_000 + b"}",
        b"{\\rtf1 a" + b" " * 2_000_000 + b"b}",
        b"<pre>a" + b" " * 2_000_000 + b"b</pre>",
    ],
    ids=["one line", "blanks", "comments", "digits", "addresses", "encoded words", "footnotes", "rtf", "pre"],
)
def test_shapes_that_invite_quadratic_work_are_read_within_the_limit(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(data)
    assert read_document(path, settings(tmp_path)).text


def test_cancelling_stops_the_reader(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, "import time\nwhile True: time.sleep(1)")
    cancelled = threading.Event()
    before = children()
    timer = threading.Timer(0.3, cancelled.set)
    timer.start()
    assert refused(document, settings(tmp_path, reader_seconds=600), cancelled.is_set).code == "cancelled"
    timer.join()
    assert children() <= before


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.abort()",
        "raise SystemExit(1)",
        "print('no json')",
        "print('{\"kind\": 1}')",
        "import sys; print('{}'); sys.exit(3)",
        "print('[]')",
        """print('{"kind":"txt","text":"ab","pages":[],"paragraphs":[],"notes":[]}')""",
        """print('{"kind":"txt","text":"ab","pages":[{"number":1,"start":0,"end":9}],"paragraphs":[],"notes":[]}')""",
        """print('{"kind":"txt","text":"\\\\ud800","pages":[{"number":1,"start":0,"end":1}],"paragraphs":[],"notes":[]}')""",
        "import sys\nwhile True: sys.stdout.write('x' * 65536)",
    ],
)
def test_a_crash_or_a_wrong_answer_is_the_documents_error(
    code: str, document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(monkeypatch, code)
    assert refused(document, settings(tmp_path, max_text_chars=1000)).code == "reader_crashed"


def test_a_crash_tells_nothing_of_the_document(
    document: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # The reading process meets an error that nobody foresaw: its traceback would quote the text.
    command = child_command(Limits.of(settings(tmp_path)))
    command[5] = (
        "import workers.documents.readers as r\n"
        "def fail(data, limits): raise KeyError(data)\n"
        "r.read_bytes = fail\n" + command[5]
    ).replace("import workers", "import sys; sys.path.insert(0, sys.argv[1])\nimport workers", 1)
    outcome = run_process(command, document, seconds=30, most_output=10_000, cancelled=reader.never_cancelled)
    assert outcome.ending == "exited"
    assert outcome.status not in (0, 3)
    assert outcome.output == b""
    assert capfd.readouterr() == ("", "")


def confined(code: str, document: Path, limits: Limits) -> int:
    bound = f"import sys; sys.path.insert(0, {str(Path(reader.__file__).parents[2])!r})\n"
    bound += "from workers.documents.confinement import confine\nfrom workers.documents.limits import Limits\n"
    bound += f"confine(Limits.from_argument({limits.to_argument()!r}))\n{code}"
    command = [sys.executable, "-I", "-c", bound]
    return run_process(command, document, seconds=30, most_output=100, cancelled=reader.never_cancelled).status


@POSIX
def test_the_reading_process_is_bound(document: Path, tmp_path: Path) -> None:
    limits = Limits(text_chars=1000, pages=10, unpacked_bytes=1000, memory_bytes=2**28, seconds=0.1)
    assert confined("pass", document, limits) == 0
    target = tmp_path / "written"
    assert confined(f"open({str(target)!r}, 'wb', buffering=0).write(b'x' * 10)", document, limits) != 0
    assert not target.exists() or target.stat().st_size == 0
    if sys.platform != "darwin":
        assert confined("bytearray(2**29)", document, limits) == 1
    assert confined("while True: pass", document, limits) < 0


def test_a_reader_without_memory_says_so(tmp_path: Path) -> None:
    if sys.platform == "darwin":
        pytest.skip("macOS does not enforce the address space")
    path = tmp_path / "upload"
    path.write_bytes(b"<html>" + b"<p>a b</p>" * 1_500_000)
    # Enough memory to begin with, not to finish: no part may pass for the whole.
    assert refused(path, settings(tmp_path, reader_memory_bytes=2**28)).code == "reader_out_of_memory"


def test_the_environment_stays_outside(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASEMILL_KEY", "secret")
    monkeypatch.setenv("LANG", "C")
    code = "import os, sys; sys.stdout.write(repr(sorted(os.environ)))"
    outcome = run_process(
        [sys.executable, "-I", "-c", code], document, seconds=30, most_output=1000, cancelled=reader.never_cancelled
    )
    assert b"CASEMILL" not in outcome.output
    assert b"PATH" not in outcome.output


def test_it_works_from_any_folder(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A folder with modules of our names must not be what the child imports.
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "__init__.py").write_text("raise SystemExit(9)")
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert read_document(document, settings(tmp_path)).kind == "txt"


def test_many_readers_at_once_from_threads(document: Path, tmp_path: Path) -> None:
    given = settings(tmp_path)
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(read_document(document, given).text)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(set(results)) == 1
