"""Parts of lists: newest first, by the rows' sequence."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from sqlalchemy import Select
from sqlalchemy.orm import Session

from plaudit.studio.errors import Unprocessable
from plaudit.studio.schemas import MOST_ITEMS

Limit = Annotated[int, Query(ge=1, le=MOST_ITEMS, description="Items at most.")]
Cursor = Annotated[str | None, Query(max_length=24, description="`next` of the part before.")]


def part_of(
    session: Session, query: Select[Any], kind: Any, limit: int = 50, cursor: str | None = None
) -> tuple[list[Any], str | None]:
    """At most `limit` rows of `kind`, newest first, and the cursor of what follows."""
    if cursor is not None:
        if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
            raise Unprocessable("cursor is no `next` of a list; leave it out to begin at the newest")
        query = query.where(kind.sequence < int(cursor))
    rows = list(session.scalars(query.order_by(kind.sequence.desc()).limit(limit + 1)))
    more = len(rows) > limit
    return rows[:limit], str(rows[limit - 1].sequence) if more else None
