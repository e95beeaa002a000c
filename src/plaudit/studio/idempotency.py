"""Answers kept under an Idempotency-Key."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pydantic import BaseModel
from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from plaudit.studio.auth import credentials
from plaudit.studio.database import Database, Idempotency
from plaudit.studio.errors import Conflict, Unprocessable

KEPT = 10_000
"""Answers that are kept."""

_active: ContextVar[KeyedRequest | None] = ContextVar("plaudit.studio.keyed_request", default=None)


class KeyedRequest:
    """A POST with a key, of one caller, to one path."""

    def __init__(self, key: str, caller: str, method_path: str, body: bytes) -> None:
        self.key = key
        self.caller = hashlib.sha256(caller.encode()).hexdigest()
        self.method_path = method_path
        self.digest = hashlib.sha256(body).hexdigest()
        self.kept = False
        self.came_second = False
        """Whether another request with the key was carried out while this one began."""

    @classmethod
    def of(cls, request: Request, key: str, body: bytes) -> KeyedRequest:
        """Of a request; Unprocessable for a malformed key."""
        if not re.fullmatch(r"[\x21-\x7e]{1,128}", key):
            raise Unprocessable("an Idempotency-Key has 1 to 128 visible ASCII characters")
        return cls(key, repr(credentials(request)), f"POST {request.url.path}", body)

    @staticmethod
    @contextmanager
    def activated(request: KeyedRequest | None) -> Iterator[None]:
        """`keep` keeps the answer of a request, where it has a key."""
        token = _active.set(request)
        try:
            yield
        finally:
            _active.reset(token)

    def kept_answer(self, database: Database) -> Response | None:
        """The answer that is kept; 409 where the key was used for another request, None where it is new."""
        with database.reading() as session:
            row = session.scalar(
                select(Idempotency).where(
                    Idempotency.key == self.key,
                    Idempotency.token_id == self.caller,
                    Idempotency.method_path == self.method_path,
                )
            )
        if row is None:
            return None
        database.wait_for_disk()  # it may be another thread's, which waits itself
        if row.request_digest != self.digest:
            problem = {"detail": "this Idempotency-Key was used for another request; take a new one", "code": "key"}
            return JSONResponse(problem, 409)
        return Response(row.body, row.status, {"idempotency-replayed": "true"}, row.content_type)

    def keep(self, session: Session, status: int, body: str) -> None:
        """Write the answer in the transaction of the work; Conflict where another request with the key was first."""
        session.add(
            Idempotency(
                key=self.key, token_id=self.caller, method_path=self.method_path, request_digest=self.digest,
                status=status, body=body,
            )
        )  # fmt: skip
        try:
            session.flush()
        except IntegrityError:
            self.came_second = True
            raise Conflict("another request with this Idempotency-Key was carried out at the same time") from None
        self.kept = True
        newest = session.scalar(select(func.max(Idempotency.sequence))) or 0
        session.execute(delete(Idempotency).where(Idempotency.sequence <= newest - KEPT))

    def keep_after(self, database: Database, status: int, body: bytes) -> None:
        """Keep the answer of a handler that did not keep it."""
        try:
            with database.transaction() as session:
                self.keep(session, status, body.decode())
        except Conflict:
            pass


def keep(session: Session, answer: BaseModel, status: int = 200) -> None:
    """In a request with an Idempotency-Key: keep its answer in the transaction of its work."""
    request = _active.get()
    if request is not None:
        request.keep(session, status, answer.model_dump_json())
