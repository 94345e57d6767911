"""The parameters of lists, for routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from services.paging import MOST_CURSOR

OfMatter = Annotated[str | None, Query(description="of this matter alone")]
Limit = Annotated[int, Query(ge=1, le=200, description="rows of the page")]
Cursor = Annotated[str | None, Query(max_length=MOST_CURSOR, description="`next_cursor` of the page before")]
