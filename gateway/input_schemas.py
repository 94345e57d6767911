"""The inputs of jobs: those over several documents, and all of them as one type for the description."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from services.job_inputs import EmbedInput, GenerateInput, Text
from services.json_model import JsonModel

Query = Annotated[str, Field(min_length=1, max_length=8192, pattern=r"\S")]


class SearchInput(JsonModel):
    """Queries, and where they are searched: in documents, clause banks among them, or in all of a matter."""

    queries: list[Query] = Field(min_length=1, max_length=64)
    documents: list[str] | None = Field(default=None, min_length=1, max_length=10_000)
    matter: str | None = None
    k: int = Field(default=10, ge=1, le=1000, description="hits of each query")
    mode: Literal["hybrid", "similar"] = Field(
        default="hybrid", description="similar: by embeddings alone, exactly; hybrid: with the words that they share"
    )

    @model_validator(mode="after")
    def _placed(self) -> SearchInput:
        if (self.documents is None) == (self.matter is None):
            raise ValueError("give either documents or a matter")
        return self


class CompareInput(JsonModel):
    """Two versions of a document, by their ids."""

    before: str
    after: str


class DuplicatesInput(JsonModel):
    """Documents to be compared with each other, at least two; without them, all of the job's matter."""

    model_config = ConfigDict(allow_inf_nan=False)

    documents: list[Text] | None = Field(default=None, min_length=2, max_length=10_000)
    threshold: float = Field(default=0.8, ge=0.5, le=1)
    ignore_numbers: bool = False


class CountInput(JsonModel):
    """Documents in which findings are counted; without them, all of the job's matter."""

    documents: list[Text] | None = Field(default=None, min_length=1, max_length=10_000)


JobInput = GenerateInput | EmbedInput | SearchInput | CompareInput | DuplicatesInput | CountInput
