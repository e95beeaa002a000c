"""Logging in, and tokens."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from sqlalchemy import select

from plaudit import __version__
from plaudit.studio.app_state import StudioOf
from plaudit.studio.auth import COOKIE, SESSION_SECONDS, Editor, Owner
from plaudit.studio.database import Token, by_id
from plaudit.studio.errors import Conflict, Forbidden
from plaudit.studio.pages import Cursor, Limit, part_of
from plaudit.studio.schemas import Health, NewToken, Page, SessionInfo, SessionRequest, TokenInfo, TokenRequest

router = APIRouter(tags=["session"])


@router.get("/health")
def health(studio: StudioOf) -> Health:
    """Whether the studio works; needs no token."""
    return Health(status="ok", version=__version__, worker=studio.worker_is_up)


@router.post("/session")
def log_in(body: SessionRequest, request: Request, response: Response, studio: StudioOf) -> SessionInfo:
    """Exchange a token for a cookie. Requests with the cookie that change something need its CSRF token too."""
    with studio.database.reading() as session:
        principal = studio.authority.from_token(session, body.token)
    if principal.role == "listener":
        raise Forbidden("listeners open their invitation's link")
    cookie, csrf = studio.authority.session_cookie(principal.id)
    response.set_cookie(
        COOKIE, cookie, max_age=SESSION_SECONDS, httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )
    return SessionInfo(role=principal.role, name=principal.name, csrf=csrf)


@router.get("/session")
def who_am_i(principal: Editor) -> SessionInfo:
    """Who is logged in."""
    return SessionInfo(role=principal.role, name=principal.name, csrf=principal.csrf)


@router.delete("/session", status_code=204)
def log_out(principal: Editor, response: Response) -> None:
    """Remove the cookie."""
    response.delete_cookie(COOKIE)


def _info(row: Token) -> dict[str, object]:
    return {
        "id": row.id, "name": row.name, "role": row.role, "created_at": row.created_at, "revoked": row.revoked
    }  # fmt: skip


@router.get("/tokens")
def list_tokens(principal: Owner, studio: StudioOf, limit: Limit = 50, cursor: Cursor = None) -> Page[TokenInfo]:
    """All tokens, without their secrets."""
    with studio.database.reading() as session:
        rows, following = part_of(session, select(Token), Token, limit, cursor)
    return Page(items=[TokenInfo.model_validate(_info(row)) for row in rows], next=following)


@router.post("/tokens", status_code=201)
def make_token(body: TokenRequest, principal: Owner, studio: StudioOf) -> NewToken:
    """Make a token; its text is shown this once."""
    with studio.database.transaction() as session:
        row, text = studio.authority.new_token(session, body.name, body.role)
        answer = NewToken.model_validate({**_info(row), "token": text})
    return answer


@router.delete("/tokens/{token_id}")
def revoke_token(token_id: str, principal: Owner, studio: StudioOf) -> TokenInfo:
    """Revoke a token, with all sessions that began with it. The last owner's token stays."""
    with studio.database.transaction() as session:
        row = by_id(session, Token, token_id)
        owners = list(session.scalars(select(Token).where(Token.role == "owner", Token.revoked.is_(False))))
        if owners == [row]:
            raise Conflict("this is the only owner's token; make another before revoking it")
        row.revoked = True
    return TokenInfo.model_validate(_info(row))
