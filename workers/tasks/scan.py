"""Step ``scan``: where the playbook's terms stand in the text."""

from __future__ import annotations

import json
from typing import Any

from services.findings import Finding
from services.jobs import Claim
from workers.analysis.scan import Device, scan
from workers.execution import Execution
from workers.toolbox import Toolbox

# Raise when the same text and playbook give other findings.
VERSION = "1"


def scan_document(toolbox: Toolbox, execution: Execution) -> dict[str, Any]:
    """Scan the text of the extract step; the output is a list of findings."""
    execution.check()
    claim = execution.claim
    playbook = toolbox.playbook(claim)
    document = toolbox.text(claim)

    def run() -> bytes:
        adapter = toolbox.settings.adapter
        result = scan(document.text, playbook, device=_device(toolbox), adapter=adapter, check=execution.check)
        return json.dumps(
            {"engine": result.engine, "findings": [finding.to_json() for finding in result.findings]}
        ).encode()

    version = f"{VERSION}:{playbook.version}"
    step = toolbox.derive(claim, "scan", version, run)
    engine = json.loads(toolbox.blobs.get(claim.tenant, step["output"]))["engine"]
    return step | {"engine": engine, "playbook": playbook.name, "playbook_version": playbook.version}


def findings_of(toolbox: Toolbox, claim: Claim) -> list[Finding]:
    """The findings of the scan step of the same parent."""
    return [Finding.from_json(raw) for raw in json.loads(toolbox.step_output(claim, "scan"))["findings"]]


def _device(toolbox: Toolbox) -> Device:
    """A single text is too small for a GPU to pay, unless the operator named an adapter."""
    return "gpu" if toolbox.settings.adapter else "any"
