"""Who asks: tokens, cookies of a session with CSRF tokens, signed links, and `require(role)`.

A token is `ID.SECRET`; the database has the argon2 hash of the secret. A token that was verified once is remembered
by its SHA-256, because argon2 is slow by design; whether it was revoked is looked up each time. Cookies, the login link
that the command prints, invitations and listeners' tokens are signed by the studio's key (itsdangerous).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from itsdangerous import BadData, SignatureExpired, URLSafeSerializer, URLSafeTimedSerializer
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from plaudit.studio.database import Database, Invitation, Listener, Token
from plaudit.studio.errors import Forbidden, Gone, NotFound, Unauthorized
from plaudit.studio.lru_cache import LRUCache
from plaudit.studio.schemas import Role

COOKIE = "plaudit_session"
LISTENER_COOKIE = "plaudit_listener"
CSRF_HEADER = "X-CSRF-Token"
SAFE = ("GET", "HEAD", "OPTIONS")
RANK = {"editor": 1, "owner": 2}
SESSION_SECONDS = 30 * 24 * 3600
LOGIN_SECONDS = 3600
REMEMBERED = 256
REMEMBERED_LISTENERS = 10_000

Credentials = Literal["bearer", "cookie", "listener-cookie"]

bearer_scheme = HTTPBearer(auto_error=False, description="A token of the studio, or a listener's.")
cookie_scheme = APIKeyCookie(name=COOKIE, auto_error=False, description="The cookie that POST /session sets.")


@dataclass(frozen=True)
class Principal:
    """Who asks. id: the token's, or the listener's. csrf: that of a cookie's session."""

    id: str
    role: Role
    name: str
    csrf: str | None = None
    test_id: str | None = None
    """Of a listener, the only test it may see."""


class Authority:
    """Makes and checks credentials."""

    def __init__(self, database: Database, key: str) -> None:
        self.database = database
        self._key = key
        # The secrets have 256 random bits: the hash protects a database that leaks, not weak passwords.
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._verified: LRUCache[str] = LRUCache(REMEMBERED)
        self._listeners: LRUCache[Principal] = LRUCache(REMEMBERED_LISTENERS)

    def new_token(self, session: Session, name: str, role: Literal["owner", "editor"]) -> tuple[Token, str]:
        """A token's row and its text, which is not stored."""
        secret = secrets.token_urlsafe(32)
        row = Token(name=name, role=role, hash=self._hasher.hash(secret))
        session.add(row)
        session.flush()
        return row, f"{row.id}.{secret}"

    def program_token(self, session: Session, name: str) -> str:
        """The owner's token of a part of the studio, which follows from the studio's key: after a restart it is the
        same. One that was revoked stays so."""
        secret = hmac.new(self._key.encode(), f"token {name}".encode(), hashlib.sha256).hexdigest()
        rows = session.scalars(select(Token).where(Token.name == name, Token.role == "owner").order_by(Token.sequence))
        row = next((row for row in rows if self._is_secret(row, secret)), None)
        if row is None:
            row = Token(name=name, role="owner", hash=self._hasher.hash(secret))
            session.add(row)
            session.flush()
        return f"{row.id}.{secret}"

    def login_token(self, token_id: str) -> str:
        """A token for `POST /session` that is valid for an hour: that of the link which the command prints."""
        return f"login.{self._timed('login').dumps(token_id)}"

    def invitation_token(self, invitation_id: str) -> str:
        """The token of an invitation's link."""
        return str(self._signer("invitation").dumps(invitation_id))

    def listener_token(self, listener_id: str) -> str:
        """The token of a listener's session."""
        return f"listener.{self._signer('listener').dumps(listener_id)}"

    def session_cookie(self, token_id: str) -> tuple[str, str]:
        """A cookie for a token's holder, and its CSRF token."""
        csrf = secrets.token_urlsafe(18)
        return str(self._timed("session").dumps([token_id, csrf])), csrf

    def holder(self, how: Credentials, value: str) -> Principal:
        """Whose token, session's cookie or listener's cookie it is; Unauthorized where it is nobody's."""
        if how == "bearer" and value.startswith("login."):
            raise Unauthorized("a login link's token is for POST /session only")
        read = {"bearer": self.from_token, "cookie": self.from_cookie, "listener-cookie": self.from_listener_cookie}
        with self.database.reading() as session:
            return read[how](session, value)

    def from_token(self, session: Session, token: str) -> Principal:
        """Whose token it is; Unauthorized where it is nobody's."""
        kind, _, rest = token.partition(".")
        if kind == "listener":
            return self._listener(session, rest)
        if kind == "login":
            try:
                return self._holder(session, self._timed("login").loads(rest, max_age=LOGIN_SECONDS))
            except SignatureExpired:
                raise Unauthorized("this login link has expired; start the studio again for a new one") from None
            except BadData:
                raise Unauthorized("this login link is not valid; copy it whole") from None
        row = session.scalar(select(Token).where(Token.id == kind[:32]))
        if row is None or row.revoked or not self._is_secret(row, rest):
            raise Unauthorized("this token is not valid; make one under Settings, or with plaudit studio --new-token")
        return Principal(row.id, row.role, row.name)  # type: ignore[arg-type]

    def from_cookie(self, session: Session, cookie: str) -> Principal:
        """Whose session it is."""
        try:
            token_id, csrf = self._timed("session").loads(cookie, max_age=SESSION_SECONDS)
        except (BadData, TypeError, ValueError):
            raise Unauthorized("this session has ended; log in again") from None
        return self._holder(session, token_id, csrf)

    def from_listener_cookie(self, session: Session, cookie: str) -> Principal:
        """Whose listening session it is. Its CSRF token follows from the cookie."""
        principal = self.from_token(session, cookie if cookie.startswith("listener.") else "listener.")
        return replace(principal, csrf=self.listener_csrf(cookie))

    def listener_csrf(self, token: str) -> str:
        """The CSRF token of a listener's cookie, which holds its token."""
        return hmac.new(self._key.encode(), f"csrf {token}".encode(), hashlib.sha256).hexdigest()[:32]

    def invitation(self, session: Session, token: str) -> Invitation:
        """The invitation of a link's token; NotFound for others, Gone where it was revoked."""
        try:
            invitation_id = self._signer("invitation").loads(token)
        except BadData:
            raise NotFound("this invitation is not valid; copy the whole link") from None
        row = session.scalar(select(Invitation).where(Invitation.id == str(invitation_id)))
        if row is None:
            raise NotFound("this invitation is not valid; copy the whole link")
        if row.revoked:
            raise Gone("this invitation was withdrawn; ask for another")
        return row

    def known_listener(self, token: str) -> Principal | None:
        """Whose listening session a token or cookie is, where it was verified before. Listeners stay for ever."""
        kind, _, signed = token.partition(".")
        return self._listeners.get(signed) if kind == "listener" else None

    def _listener(self, session: Session, signed: str) -> Principal:
        return self._listeners.get_or_compute(signed, lambda: self._read_listener(session, signed))

    def _read_listener(self, session: Session, signed: str) -> Principal:
        try:
            listener_id = self._signer("listener").loads(signed)
        except BadData:
            raise Unauthorized("this listening session is not valid; open the invitation's link again") from None
        row = session.scalar(select(Listener).where(Listener.id == str(listener_id)))
        if row is None:
            raise Unauthorized("this listening session is gone; open the invitation's link again")
        return Principal(row.id, "listener", "listener", None, row.test_id)

    def _holder(self, session: Session, token_id: Any, csrf: str | None = None) -> Principal:
        row = session.scalar(select(Token).where(Token.id == str(token_id)))
        if row is None or row.revoked:
            raise Unauthorized("this session has ended; log in again")
        return Principal(row.id, row.role, row.name, csrf)  # type: ignore[arg-type]

    def _is_secret(self, row: Token, secret: str) -> bool:
        digest = hashlib.sha256(f"{row.id}.{secret}".encode()).hexdigest()
        if self._verified.get(digest) == row.hash:
            return True
        try:
            self._hasher.verify(row.hash, secret)
        except (Argon2Error, InvalidHashError):
            return False
        self._verified.put(digest, row.hash)
        return True

    def _signer(self, purpose: str) -> URLSafeSerializer:
        return URLSafeSerializer(self._key, salt=f"plaudit.studio.{purpose}", signer_kwargs=_SIGNING)

    def _timed(self, purpose: str) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(self._key, salt=f"plaudit.studio.{purpose}", signer_kwargs=_SIGNING)


_SIGNING = {"digest_method": hashlib.sha256, "key_derivation": "hmac"}


def credentials(request: Request) -> tuple[Credentials, str] | None:
    """What a request identifies itself with; a bearer token goes before cookies."""
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and value:
        return "bearer", value.strip()
    if cookie := request.cookies.get(COOKIE):
        return "cookie", cookie
    if cookie := request.cookies.get(LISTENER_COOKIE):
        return "listener-cookie", cookie
    return None


async def identify(request: Request, listener: bool = False) -> Principal:
    """Who asks, with the CSRF token checked where a cookie says so and the request changes something.

    listener: the listener's cookie is meant, whatever other cookie the browser sends.
    """
    authority: Authority = request.app.state.studio.authority
    given = credentials(request)
    if listener and (cookie := request.cookies.get(LISTENER_COOKIE)) and (given is None or given[0] != "bearer"):
        given = "listener-cookie", cookie
    if given is None:
        raise Unauthorized("log in first: this needs a token or a session")
    how, value = given
    principal = None if how == "cookie" else authority.known_listener(value)
    if principal is None:
        principal = await run_in_threadpool(authority.holder, how, value)
    elif how == "listener-cookie":
        principal = replace(principal, csrf=authority.listener_csrf(value))
    if how != "bearer" and request.method not in SAFE:
        given_csrf = request.headers.get(CSRF_HEADER, "")
        if principal.csrf is None or not hmac.compare_digest(given_csrf.encode(), principal.csrf.encode()):
            raise Forbidden(f"{CSRF_HEADER} is missing or not that of this session; reload the page")
    return principal


def still_valid(principal: Principal) -> Callable[[Session], bool]:
    """Whether an owner's or editor's token was not revoked meanwhile: for streams, which last."""

    def check(session: Session) -> bool:
        return session.scalar(select(Token.revoked).where(Token.id == principal.id)) is False

    return check


def require(role: Role) -> Callable[..., Awaitable[Principal]]:
    """A dependency that gives who asks: an owner is also an editor; a listener reaches what listeners may, alone."""

    async def dependency(
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(bearer_scheme)] = None,
        cookie: Annotated[str | None, Security(cookie_scheme)] = None,
    ) -> Principal:
        principal = await identify(request, listener=role == "listener")
        if role == "listener":
            if principal.role != "listener":
                raise Forbidden("this is for listeners; open an invitation's link")
        elif RANK.get(principal.role, 0) < RANK[role]:
            raise Forbidden(f"this needs the role {role}; you are {principal.role}")
        return principal

    return dependency


Owner = Annotated[Principal, Depends(require("owner"))]
Editor = Annotated[Principal, Depends(require("editor"))]
ListenerOnly = Annotated[Principal, Depends(require("listener"))]
