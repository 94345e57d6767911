"""A line of a batch: one request of an OpenAI endpoint, answered as the endpoint would have answered it alone."""

from __future__ import annotations

from typing import Any, Final

from services import openai_answers
from services.batch_lines import read_line
from services.errors import InvalidRequest
from services.job_inputs import EmbedInput, GenerateInput, checked_input
from services.openai_answers import Chat, Completion
from services.openai_requests import ChatRequest, CompletionRequest, EmbeddingsRequest, parsed
from workers.execution import Execution
from workers.tasks.generate import vectors_of, write
from workers.toolbox import Toolbox

_FORMS: Final = {
    "/v1/chat/completions": (Chat(), ChatRequest),
    "/v1/completions": (Completion(), CompletionRequest),
}


def answer_line(toolbox: Toolbox, execution: Execution) -> dict[str, Any]:
    """The ``body`` that the endpoint would have answered."""
    claim = execution.claim
    start, _, length = str(claim.input["line"]).partition(":")
    blocks = toolbox.files.blocks(claim.tenant, claim.input["file"], start=int(start), length=int(length))
    body = read_line(b"".join(blocks))["body"]
    endpoint = claim.input["endpoint"]
    if endpoint not in _FORMS:
        wanted = parsed(EmbeddingsRequest, body)
        result = vectors_of(toolbox, execution, checked_input(EmbedInput, wanted.job_input()))
        return {"body": openai_answers.embeddings(wanted, result)}
    form, kind = _FORMS[endpoint]
    asked = parsed(kind, body)
    if asked.stream:
        raise InvalidRequest("a batch streams nothing; leave `stream` out", code="stream_unsupported")
    inputs = [checked_input(GenerateInput, given) for given in asked.job_inputs()]
    head = openai_answers.head(form, asked, claim.id, claim.priority)
    found = [write(toolbox, execution, given, f"{claim.id}.{index}") for index, given in enumerate(inputs)]
    return {"body": openai_answers.completion(form, head, found, asked.n)}
