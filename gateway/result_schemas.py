"""What the results of jobs on prompts and single documents look like: the workers write them, this describes them.

Offsets count Unicode code points of the document's text from 0, ``end`` exclusive, as ``GET …/text`` gives it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class ModelStamp(BaseModel):
    """The model that made something."""

    name: str
    sha256: str
    licence: str


class Span(BaseModel):
    """A place in a document, with what stands there."""

    start: int
    end: int
    page: int
    text: str


class Finding(Span):
    """A term of the playbook that was found."""

    term: str
    category: str


class PersonalDatum(Span):
    """Personal data: what the finders saw has a ``score``, what the playbook names has its ``term``."""

    type: str = Field(examples=["email"])
    why: str
    score: float | None = None
    term: str | None = None


class PrivilegeSign(Span):
    """A sign that the document is privileged."""

    score: float
    why: str


class Clause(Span):
    """A clause of a category; ``score`` says how sure that is, ``risk`` how much it weighs."""

    category: str
    score: float
    risk: float
    sources: list[Literal["heads", "scan", "similarity"]] = Field(description="what found it")


class Rule(BaseModel):
    """What became of a rule of the playbook."""

    id: str
    title: str
    outcome: Literal["breached", "unknown", "met"]
    severity: str
    reason: str = Field(description="why a breach matters, as the playbook says")
    found: str = Field(description="what decided")
    spans: list[Span]


class Reason(BaseModel):
    """A part of the risk; the shares of all add up to the score."""

    of: Literal["rule", "category", "missing"]
    id: str
    title: str
    share: float
    why: str
    spans: list[Span]


class Risk(BaseModel):
    """How risky the document is by its playbook, 0 to 1, and why."""

    score: float
    by_category: dict[str, float]
    reasons: list[Reason] = Field(description="largest first")


class Missing(BaseModel):
    """A category that the playbook wants and the document lacks."""

    category: str
    why: str


class Term(BaseModel):
    """An answer of the generation model, with the quote that it rests on."""

    term: str = Field(examples=["governing_law"])
    quote: str
    supported: bool = Field(description="the quote stands in the document word for word")
    start: int | None
    end: int | None
    page: int | None
    by: str = Field(description="model that was asked")


class PlaybookStamp(BaseModel):
    """The playbook that was applied."""

    name: str
    sha256: str


class Provenance(BaseModel):
    """What made the result: versions, models, and the seconds of each step."""

    casemill: str
    playbook: PlaybookStamp
    scan_engine: str
    models: dict[str, ModelStamp]
    clause_heads: str | None
    steps: list[str]
    without: list[str] = Field(description="what other models would have added")
    seconds: dict[str, float]
    reused: list[str] = Field(description="steps that were done before, for the same text and versions")


class ReviewedDocument(BaseModel):
    """The document of a review."""

    id: str
    name: str | None


class ReviewResult(BaseModel):
    """The result of `review` and of `analyze`; `terms` are there where a generation model was asked."""

    document: ReviewedDocument
    kind: str = Field(examples=["pdf"])
    pages: int
    notes: list[str] = Field(description="what the reader saw and could not take along")
    risk: Risk
    rules: list[Rule]
    findings: list[Finding]
    pii: list[PersonalDatum]
    privilege: list[PrivilegeSign]
    missing: list[Missing]
    clauses: list[Clause]
    presence: dict[str, float] = Field(description="how likely the document has a clause of the category")
    reused: bool = Field(description="nothing had to be computed")
    provenance: Provenance
    notice: str
    terms: list[Term] | None = None
    unsupported_terms: list[Term] | None = Field(
        default=None, description="answers whose quote does not stand in the document"
    )


class ExtractResult(BaseModel):
    """The result of `extract`; the text itself is at ``GET /v1/documents/{document_id}/text``."""

    document: str
    kind: str
    pages: int
    chars: int
    notes: list[str]
    output: str
    reused: bool
    seconds: float


class ToolCallMade(BaseModel):
    """A function that the model asks to be called; ``arguments`` is JSON."""

    id: str
    name: str
    arguments: str


class TokenLikelihood(BaseModel):
    """A token, how likely it was, and its bytes, as a token may be a part of a character."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TokenLikelihood] | None = None


class GenerateResult(BaseModel):
    """The result of `generate`."""

    text: str
    tokens_in: int
    tokens_out: int
    finish_reason: str = Field(description="stop, length or tool_calls")
    model: ModelStamp
    seconds: float
    tool_calls: list[ToolCallMade] | None = None
    logprobs: list[TokenLikelihood] | None = None


class EmbedResult(BaseModel):
    """The result of `embed`: base64 of little-endian float32 for each text, of length 1."""

    dimensions: int
    vectors: list[str]
    tokens: list[int]
    model: ModelStamp
    seconds: float
