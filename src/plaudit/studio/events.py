"""Events: rows that a change's transaction writes, and server-sent events of them.

An event's id is its sequence, so a client that comes back with `Last-Event-ID` misses nothing. The worker and the
server write to the same table; each stream looks for new rows a few times a second.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.orm import Session
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from plaudit.studio.database import Database, Event
from plaudit.studio.errors import Unprocessable

EVERY = 0.25
"""Seconds between two looks for new events."""

KEPT = 20_000
"""Events that are kept."""

BATCH = 500
_POSTGRES_LOCK = 0x504C4155
_NEW_EVENT = insert(Event.__table__)  # type: ignore[arg-type]


def publish(session: Session, kind: str, subject: str, data: dict[str, Any]) -> None:
    """Record an event in the transaction of the change that it reports.

    kind: "job", "clip", "vote", "test", ...; subject: the id of the job or test whose stream it belongs to.
    """
    if session.get_bind().dialect.name == "postgresql":
        # Numbers would become visible out of order, and a stream would miss those that come late.
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRES_LOCK})
    session.execute(_NEW_EVENT, {"kind": kind, "subject": subject, "data": data})


def prune(session: Session) -> None:
    """Delete all but the newest events."""
    newest = session.scalar(select(func.max(Event.sequence))) or 0
    session.execute(delete(Event).where(Event.sequence <= newest - KEPT))


def last_event_id(request: Request) -> int | None:
    """The event that the client saw last, by header or query."""
    value = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
    if value is None or value == "":
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise Unprocessable("Last-Event-ID is no id of an event; leave it out")
    return int(value)


def event_stream(
    request: Request,
    database: Database,
    subjects: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
    first: Callable[[Session], tuple[str, dict[str, Any]]] | None = None,
    last: Callable[[dict[str, Any]], bool] = lambda data: False,
    allowed: Callable[[Session], bool] = lambda session: True,
) -> EventSourceResponse:
    """Events of some subjects and kinds (None: all) from now on, or after the client's Last-Event-ID.

    first: an event with the present state, sent to clients without a Last-Event-ID. The stream ends with an event
    whose data `last` accepts, and where `allowed` is no longer so.
    """
    after = last_event_id(request)

    def begin() -> tuple[int, tuple[str, dict[str, Any]] | None]:
        with database.reading() as session:
            newest = session.scalar(select(func.max(Event.sequence))) or 0
            if after is not None:
                return min(after, newest), None  # an id of another database is no reason to wait for ever
            return newest, None if first is None else first(session)

    def following(cursor: int) -> list[tuple[int, str, dict[str, Any]]] | None:
        query = select(Event).where(Event.sequence > cursor)
        if subjects is not None:
            query = query.where(Event.subject.in_(subjects))
        if kinds is not None:
            query = query.where(Event.kind.in_(kinds))
        with database.reading() as session:
            if not allowed(session):
                return None
            rows = session.scalars(query.order_by(Event.sequence).limit(BATCH))
            return [(row.sequence, row.kind, {**row.data, "subject": row.subject}) for row in rows]

    async def events() -> AsyncIterator[ServerSentEvent]:
        cursor, state = await run_in_threadpool(begin)
        if state is not None:
            kind, data = state
            yield _message(cursor, kind, data)
            if last(data):
                return
        while True:
            rows = await run_in_threadpool(following, cursor)
            if rows is None:
                return
            for cursor, kind, data in rows:
                yield _message(cursor, kind, data)
                if last(data):
                    return
            if len(rows) < BATCH:
                await asyncio.sleep(EVERY)

    return EventSourceResponse(events(), ping=15)


def _message(sequence: int, kind: str, data: dict[str, Any]) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(data, allow_nan=False), event=kind, id=str(sequence))
