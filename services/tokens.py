"""How many tokens work may take of a model, prompt and answer, reckoned before it runs; for rates and limits."""

from __future__ import annotations

from typing import Any, Final

from services.jobs import JobType

# Tokens of an answer whose length is not asked for and of a review's questions with their answers; bytes of one.
ANSWER_TOKENS: Final = 256
REVIEW_TOKENS: Final = 1000
TOKEN_BYTES: Final = 4


def tokens_of(job_type: JobType, body: dict[str, Any], size: int, *, generates: bool) -> int:
    """Tokens of a job whose input ``body`` has ``size`` bytes; ``generates``: it has a model."""
    if job_type is JobType.GENERATE:
        return size // TOKEN_BYTES + int(body.get("max_tokens") or ANSWER_TOKENS)
    if job_type is JobType.EMBED:
        return size // TOKEN_BYTES + 1
    return REVIEW_TOKENS if job_type is JobType.REVIEW and generates else 0
