"""What the results of jobs over several documents look like, and :data:`JobResult`, which are those of all jobs."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from gateway.result_schemas import (
    EmbedResult,
    ExtractResult,
    GenerateResult,
    ModelStamp,
    PlaybookStamp,
    ReviewResult,
    Span,
)


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


class CountedCategory(BaseModel):
    """How often a category was found, and in how many documents."""

    category: str
    title: str
    findings: int
    documents: int


class CountedDocument(BaseModel):
    """How many findings a document has."""

    document: str
    name: str
    findings: int = Field(description="of all categories")
    counts: dict[str, int] = Field(
        description="by category, in the playbook's order; those that were not found are left out"
    )
    notes: list[str] | None = Field(default=None, description="what the reader saw and could not take along")


class Uncounted(LeftOut):
    """A document that has no text, such as one that needs text recognition, and why."""

    name: str | None = Field(description="null for one that is not there any more")


class CountSeconds(BaseModel):
    """How long it took: until each document's text was there, and counting, with the loading of texts."""

    documents: float
    counting: float


class CountResult(BaseModel):
    """The result of `count`; it holds no text of a document."""

    matter: str | None
    playbook: PlaybookStamp
    categories: list[CountedCategory] = Field(description="all of the playbook, in its order")
    counted: int = Field(description="documents that were counted in")
    documents: list[CountedDocument] = Field(description="all that were counted in, those with most findings first")
    unread: list[Uncounted] = Field(description="the others: nothing is known of them")
    resident: bool = Field(description="the texts were on the worker from an earlier count")
    engine: str
    seconds: CountSeconds
    notice: str


JobResult = (
    ReviewResult
    | ExtractResult
    | GenerateResult
    | EmbedResult
    | SearchResult
    | CompareResult
    | DuplicatesResult
    | CountResult
)
