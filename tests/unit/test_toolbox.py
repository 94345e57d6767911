"""Where a job's result is kept: in its record while it is a prompt's and small, else in a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from services.blobs import Blobs
from services.jobs import Claim, Lane, Priority
from workers.toolbox import INLINE_RESULT_BYTES, Toolbox

NOTHING: Any = None
CLAIM = Claim("acme", "job_1", 1, "generate", Lane.GENERATE, Priority.NORMAL, {}, None, None, None, {}, None)


def test_small_results_of_prompts_stand_in_the_record_and_others_in_files(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    toolbox = Toolbox(NOTHING, blobs, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)
    fits = INLINE_RESULT_BYTES - len(json.dumps({"text": ""}))
    small, large = {"text": "x" * fits}, {"text": "x" * (fits + 1)}
    for task in ("generate", "embed"):
        kept = toolbox.keep_result(replace(CLAIM, task=task), small)
        assert json.loads(kept) == small
    assert list(blobs.stored()) == []
    step = replace(CLAIM, parent="job_0", step="terms")
    for claim, result in ((CLAIM, large), (step, small), (replace(CLAIM, task="report"), small)):
        kept = toolbox.keep_result(claim, result)
        assert json.loads(blobs.get("acme", kept)) == result
