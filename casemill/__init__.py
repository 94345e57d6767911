"""A client of Casemill for programs: upload documents, submit jobs, follow them, fetch results, verify webhooks.

    from casemill import Casemill

    with Casemill("http://127.0.0.1:8700", "cm_…") as client:
        review = client.review("contract.pdf", matter="M-2031")
        print(review["risk"]["score"])

:class:`AsyncCasemill` does the same for asyncio. Everything that goes wrong is a :class:`Problem`. For chat,
completions, embeddings and OpenAI's batches take the official ``openai`` client: the gateway answers it as it is.
"""

from casemill import webhooks
from casemill.client import AsyncCasemill, Casemill
from casemill.models import Document, Erasure, Event, Job, Run
from casemill.problems import (
    Conflict,
    Forbidden,
    Invalid,
    JobFailed,
    NotFound,
    Problem,
    Throttled,
    Unauthorized,
    Unavailable,
    Unfinished,
    Unreachable,
)
from casemill.requests import JobOptions, JobRequest, RunOptions
from casemill.retry import RetryPolicy

__all__ = [
    "AsyncCasemill",
    "Casemill",
    "Conflict",
    "Document",
    "Erasure",
    "Event",
    "Forbidden",
    "Invalid",
    "Job",
    "JobFailed",
    "JobOptions",
    "JobRequest",
    "NotFound",
    "Problem",
    "RetryPolicy",
    "Run",
    "RunOptions",
    "Throttled",
    "Unauthorized",
    "Unavailable",
    "Unfinished",
    "Unreachable",
    "webhooks",
]
