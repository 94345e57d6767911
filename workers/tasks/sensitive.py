"""Step ``sensitive``: personal data and signs of privilege in the text (``workers/analysis/sensitive``)."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from services.jobs import Claim
from workers.analysis.sensitive.personal import find_personal_data
from workers.analysis.sensitive.privilege import find_privilege
from workers.analysis.stretches import watched
from workers.execution import Execution
from workers.toolbox import Toolbox

# Raise when the same text gives other findings.
VERSION = "1"


def find_sensitive(toolbox: Toolbox, execution: Execution) -> dict[str, Any]:
    """Look through the text of the extract step; the output has ``personal`` data and signs of ``privilege``."""
    execution.check()
    claim = execution.claim
    document = toolbox.text(claim)

    def run() -> bytes:
        check = execution.check
        personal = [asdict(datum) for datum in watched(find_personal_data(document.text, check=check), check)]
        privilege = [asdict(sign) for sign in watched(find_privilege(document.text, check), check)]
        return json.dumps({"personal": personal, "privilege": privilege}).encode()

    return toolbox.derive(claim, "sensitive", VERSION, run)


def sensitive_of(toolbox: Toolbox, claim: Claim) -> dict[str, list[dict[str, Any]]]:
    """What the step of the same parent found, by ``personal`` and ``privilege``, each in order of place."""
    return json.loads(toolbox.step_output(claim, "sensitive"))
