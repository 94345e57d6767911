"""The wire types of a firm's own playbooks."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from gateway.schemas import NextCursor, PriorityName, moment
from services.json_model import JsonModel
from services.playbook_checks import term_count, warnings
from services.playbook_store import StoredVersion
from services.playbooks import Playbook


class PlaybookVersion(BaseModel):
    """One version, by the SHA-256 of its content; what comes along has no time until a job was given it."""

    version: str
    created_at: datetime | None

    @classmethod
    def of(cls, stored: StoredVersion) -> PlaybookVersion:
        """The view of a record."""
        created = moment(stored.created) if stored.created else None
        return cls(version=stored.version, created_at=created)


class PlaybookView(PlaybookVersion):
    """A playbook as its version ``version`` has it."""

    name: str
    title: str

    @classmethod
    def of(cls, stored: StoredVersion) -> PlaybookView:
        """The view of a record."""
        return cls(**PlaybookVersion.of(stored).model_dump(), name=stored.name, title=stored.title)


class PlaybookList(BaseModel):
    """The latest version of each playbook, first those that come along."""

    data: list[PlaybookView]
    next_cursor: NextCursor


class PlaybookText(PlaybookView):
    """A playbook with the text of this version and all its versions, newest first."""

    text: str = Field(description="YAML as it was uploaded")
    versions: list[PlaybookVersion]


class PlaybookCheck(BaseModel):
    """What a playbook that loads holds, and what is odd about it."""

    name: str
    title: str
    version: str
    categories: int
    terms: int = Field(description="literals and patterns")
    rules: int
    warnings: list[str]

    @classmethod
    def of(cls, playbook: Playbook) -> PlaybookCheck:
        """The view of a playbook."""
        return cls(
            name=playbook.name,
            title=playbook.title,
            version=playbook.version,
            categories=len(playbook.categories),
            terms=term_count(playbook),
            rules=len(playbook.rules),
            warnings=warnings(playbook),
        )


class PlaybookUpload(PlaybookCheck):
    """A playbook that is kept; ``created`` says whether its content was new."""

    created: bool


class PlaybookTest(JsonModel):
    """A playbook to run over a document: one that is stored, or ``text``, which is not kept."""

    document: str = Field(description="id from POST /v1/documents; a text is a document too")
    playbook: str | None = Field(default=None, max_length=64, description="name or version")
    text: str | None = Field(default=None, description="YAML of a playbook")
    priority: PriorityName = "normal"


Fields = dict[str, Annotated[list[Any], Field(description="before and after")]]


class ChangedRule(BaseModel):
    """A rule that is in both versions and not the same."""

    id: str
    fields: Fields


class ChangedCategory(ChangedRule):
    """A category that is in both versions and not the same."""

    terms_added: list[str]
    terms_removed: list[str]


class ChangedRules(BaseModel):
    """Rules by id."""

    added: list[str]
    removed: list[str]
    changed: list[ChangedRule]


class ChangedCategories(BaseModel):
    """Categories by id."""

    added: list[str]
    removed: list[str]
    changed: list[ChangedCategory]


class PlaybookDiff(BaseModel):
    """What differs between two versions."""

    model_config = ConfigDict(populate_by_name=True)

    old: PlaybookView = Field(alias="from")
    new: PlaybookView = Field(alias="to")
    title: list[str] | None = Field(description="before and after, where it changed")
    categories: ChangedCategories
    rules: ChangedRules
