"""The reading process: one file from stdin, one JSON answer to stdout, then gone; started by the sandbox only.

With the number of a page it answers that page's picture instead.

Exit status 0: the answer is a document text; 3: a problem (RFC 9457 members). Anything else is a crash.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import TYPE_CHECKING

from services.errors import CasemillError, DocumentError
from workers.documents.confinement import confine
from workers.documents.limits import Limits, damaged

if TYPE_CHECKING:
    from services.texts import DocumentText

PROBLEM_STATUS = 3
_CRASH_STATUS = 4


def main(argument: str, page: str = "") -> None:
    """Read the file on stdin, or draw a page of it, under the limits in ``argument`` and leave the process."""
    limits = Limits.from_argument(argument)
    confine(limits)
    warnings.simplefilter("ignore")
    try:
        status, answer = 0, _draw(int(page)) if page else _read(limits).to_json()
    except CasemillError as error:
        status, answer = PROBLEM_STATUS, _problem(error)
    except RecursionError:
        status, answer = PROBLEM_STATUS, _problem(damaged("The document nests deeper than any real one."))
    except MemoryError:
        error = DocumentError(
            "The document needs more memory than its reader may have. Split it, or raise CASEMILL_READER_MEMORY_BYTES.",
            code="reader_out_of_memory",
        )
        status, answer = PROBLEM_STATUS, _problem(error)
    except Exception:
        # A traceback could quote the document: the parent says that the reader crashed, and no more.
        status, answer = _CRASH_STATUS, b""
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    # Without the interpreter's tidying: a library that fails in it must not turn an answer into a crash.
    os._exit(status)


def _read(limits: Limits) -> DocumentText:
    from workers.documents.readers import read_bytes

    return read_bytes(sys.stdin.buffer.read(), limits)


def _draw(number: int) -> bytes:
    from workers.documents.pdf import draw_page

    return draw_page(sys.stdin.buffer.read(), number)


def _problem(error: CasemillError) -> bytes:
    return json.dumps(error.problem()).encode()
