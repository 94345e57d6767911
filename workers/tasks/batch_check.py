"""First step of a batch: looks at every line of its file and adds them, or says what is wrong with them."""

from __future__ import annotations

from typing import Any

from services.batch_lines import Check, lines
from services.batches import ENDPOINTS
from workers.execution import Execution, Stopped
from workers.toolbox import Toolbox


def check_batch(toolbox: Toolbox, execution: Execution) -> dict[str, Any]:
    """How many lines the batch has; raises ``LinesInvalid``."""
    claim = execution.claim
    endpoint = str(claim.input["endpoint"])
    check = Check(endpoint, toolbox.models.names(ENDPOINTS[endpoint]))
    for line in lines(toolbox.files.blocks(claim.tenant, claim.input["file"])):
        execution.check()
        check.take(line)
    if not toolbox.batches.add(claim, check.places, check.finish()):
        raise Stopped
    return {"lines": len(check.places)}
