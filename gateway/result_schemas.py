"""What the results of jobs look like, by type of job: the workers write them, this describes them to clients.

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


class Hit(Span):
    """A clause that fits a query."""

    document: str
    name: str
    score: float
    cosine: float
    bm25: float
    clause: str | None = Field(default=None, description="its id, in a clause bank")


class QueryHits(BaseModel):
    """What was found for one query, best first."""

    query: str
    hits: list[Hit]


class Searched(BaseModel):
    """How much was searched."""

    documents: int
    clauses: int


class LeftOut(BaseModel):
    """A document that could not be read, and why."""

    document: str
    code: str
    detail: str


class SearchResult(BaseModel):
    """The result of `search`."""

    queries: list[QueryHits]
    mode: Literal["hybrid", "similar"]
    documents: list[str] = Field(description="those that are quoted")
    searched: Searched
    skipped: list[LeftOut]
    computed: int = Field(description="vectors that were not known before")
    engine: str
    model: ModelStamp
    seconds: float
    notice: str


class ComparedVersion(BaseModel):
    """One side of a comparison."""

    id: str
    name: str
    pages: int


class WordChange(BaseModel):
    """Words that differ, as ``[start, end]`` in both texts."""

    kind: str
    before: list[int]
    after: list[int]


class ClauseChange(BaseModel):
    """A clause that is not as it was; ``likeness`` and ``words`` are of clauses that are in both versions."""

    kind: Literal["changed", "moved", "added", "removed"]
    before: Span | None
    after: Span | None
    likeness: float | None = None
    words: list[WordChange] | None = None


class CompareResult(BaseModel):
    """The result of `compare`, in the order of the later version."""

    before: ComparedVersion
    after: ComparedVersion
    documents: list[str]
    counts: dict[str, int] = Field(description="clauses unchanged, changed, moved, added, removed")
    changes: list[ClauseChange]
    seconds: float
    notice: str


class NamedDocument(BaseModel):
    """The name of a document."""

    name: str


class AlikeDocument(BaseModel):
    """A member of a cluster, and how like its representative it is."""

    document: str
    jaccard: float


class Cluster(BaseModel):
    """Documents that are alike."""

    representative: str
    documents: list[AlikeDocument]


class Pair(BaseModel):
    """Two documents that are alike, and how much."""

    a: str
    b: str
    jaccard: float


class DuplicatesMethod(BaseModel):
    """How candidates were found; each pair was then compared exactly."""

    permutations: int
    bands: int
    rows: int
    verified_pairs: int


class DuplicatesSeconds(BaseModel):
    """How long it took."""

    documents: float
    comparison: float


class DuplicatesResult(BaseModel):
    """The result of `duplicates`."""

    matter: str | None
    threshold: float
    ignore_numbers: bool
    documents: dict[str, NamedDocument] = Field(description="the names of those that the result shows")
    compared: int
    computed: int = Field(description="documents that were not known from before")
    clusters: list[Cluster]
    pairs: list[Pair]
    all_pairs: bool = Field(description="whether all pairs are listed; past 50,000 those that join clusters are")
    too_short: list[str]
    unread: list[LeftOut]
    method: DuplicatesMethod
    engine: str
    seconds: DuplicatesSeconds
    reused: bool
    notice: str


JobResult = (
    ReviewResult | ExtractResult | GenerateResult | EmbedResult | SearchResult | CompareResult | DuplicatesResult
)
