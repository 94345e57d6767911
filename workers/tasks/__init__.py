"""The tasks of the workers, by the name that jobs and steps carry."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from services.webhooks import Webhooks
from workers.execution import Execution
from workers.slots import Task
from workers.tasks.batch_check import check_batch
from workers.tasks.batch_line import answer_line
from workers.tasks.batch_output import write_output
from workers.tasks.clauses import find_clauses
from workers.tasks.compare import compare
from workers.tasks.context import embed_context
from workers.tasks.count import count_findings
from workers.tasks.deliver import send_webhook
from workers.tasks.duplicates import find_near_duplicates
from workers.tasks.extract import extract
from workers.tasks.generate import embed, generate
from workers.tasks.report import report
from workers.tasks.scan import scan_document
from workers.tasks.search import search
from workers.tasks.segments import embed_segments
from workers.tasks.sensitive import find_sensitive
from workers.tasks.terms import extract_terms
from workers.toolbox import Toolbox


def tasks(toolbox: Toolbox, webhooks: Webhooks) -> dict[str, Task]:
    """Every task, bound to the process's tools."""
    named = {
        "generate": generate,
        "embed": embed,
        "extract": extract,
        "scan": scan_document,
        "sensitive": find_sensitive,
        "segments": embed_segments,
        "context": embed_context,
        "clauses": find_clauses,
        "terms": extract_terms,
        "report": report,
        "search": search,
        "compare": compare,
        "duplicates": find_near_duplicates,
        "count": count_findings,
        "batch_check": check_batch,
        "batch_line": answer_line,
        "batch_output": write_output,
    }
    bound: dict[str, Task] = {name: partial(_perform, toolbox, task) for name, task in named.items()}
    return bound | {"deliver": partial(send_webhook, webhooks, toolbox.settings)}


def _perform(toolbox: Toolbox, task: Callable[[Toolbox, Execution], dict[str, Any]], execution: Execution) -> Any:
    """Run a task on the opened claim, so that an input in a blob is read once, however often the task looks at it."""
    execution.claim = toolbox.opened(execution.claim)
    return task(toolbox, execution)
