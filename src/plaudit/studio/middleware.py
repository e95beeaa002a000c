"""Around every request: its size, the answer kept under an Idempotency-Key, and security headers."""

from __future__ import annotations

import secrets

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plaudit.studio.database import Database
from plaudit.studio.errors import TooLarge, Unprocessable
from plaudit.studio.idempotency import KeyedRequest
from plaudit.studio.settings import LOOPBACK

MOST_BODY = 1 << 20
"""Bytes of a JSON body."""

UPLOADS = "/api/v1/uploads"
"""Takes larger bodies, which are counted while they are read."""

MOST_UPLOAD = 1 << 30
"""Bytes of an upload."""

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; connect-src 'self'; font-src 'self'; worker-src 'self' blob:; manifest-src 'self'; "
    "frame-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
REPORT_CSP = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; media-src 'self'; font-src data:; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)
"""Of reports, which come from run folders: they show and play, but no script of theirs runs in the reader's session."""

API_CSP = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class SecurityHeaders:
    """Adds headers, and refuses names of hosts that are not this machine's where only this machine is served."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self.loopback = host in LOOPBACK

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        nonce = secrets.token_urlsafe(12)
        scope.setdefault("state", {})["nonce"] = nonce

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                page = not scope["path"].startswith("/api/")
                headers.setdefault("content-security-policy", CSP.format(nonce=nonce) if page else API_CSP)
                if "/report" not in scope["path"]:
                    headers.setdefault("x-frame-options", "DENY")
                if not page:
                    headers.setdefault("cache-control", "no-store")
            await send(message)

        if self.loopback and not _is_local(Headers(scope=scope).get("host", "")):
            # Another site's name that was pointed to this machine would make its scripts ours (DNS rebinding).
            problem = {"detail": "this studio serves this machine alone; use its address 127.0.0.1", "code": "host"}
            await JSONResponse(problem, 421)(scope, receive, with_headers)
            return
        await self.app(scope, receive, with_headers)


def _is_local(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower() in LOOPBACK


class BodyLimit:
    """Refuses bodies of more than a megabyte, and uploads of more than a gigabyte."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        if scope["path"] == UPLOADS:
            await self.app(scope, _limited(receive, MOST_UPLOAD), send)
            return
        try:
            body = await read_body(receive, MOST_BODY)
        except ClientDisconnect:
            return
        if body is None:
            problem = {"detail": f"the body has over {MOST_BODY:,} bytes", "code": "too-large"}
            await JSONResponse(problem, 413)(scope, receive, send)
            return
        await self.app(scope, replayed(body, receive), send)


async def read_body(receive: Receive, most: int) -> bytes | None:
    """The request's body; None where it is longer than `most`."""
    parts, length, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":  # what came is only part of the body
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        length += len(parts[-1])
        if length > most:
            return None
        more = message.get("more_body", False)
    return b"".join(parts)


def _limited(receive: Receive, most: int) -> Receive:
    """What is received; TooLarge once it has more bytes."""
    length = 0

    async def limited() -> Message:
        nonlocal length
        message = await receive()
        length += len(message.get("body", b""))
        if length > most:
            raise TooLarge(f"the upload has over {most >> 20} MiB; split it")
        return message

    return limited


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read already, then whatever comes."""
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


class IdempotencyKeys:
    """A POST with an Idempotency-Key is carried out once: the same key gets the same answer again.

    Handlers keep the answer in the transaction that does the work (`idempotency.keep`), so that whatever kills the
    server, both are there or neither is. The answers of others are kept after the work. Errors are not kept.
    """

    def __init__(self, app: ASGIApp, database: Database) -> None:
        self.app = app
        self.database = database

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        key = Headers(scope=scope).get("idempotency-key") if scope["type"] == "http" else None
        if key is None or scope["method"] != "POST" or scope["path"] == UPLOADS:
            await self.app(scope, receive, send)
            return
        body = await read_body(receive, MOST_BODY) or b""
        try:
            keyed = KeyedRequest.of(Request(scope), key, body)
        except Unprocessable as error:
            await JSONResponse({"detail": str(error), "code": error.code}, error.status)(scope, receive, send)
            return
        answer = await run_in_threadpool(keyed.kept_answer, self.database)
        if answer is None:
            messages: list[Message] = []

            async def collect(message: Message) -> None:
                messages.append(message)

            with KeyedRequest.activated(keyed):
                await self.app(scope, replayed(body, receive), collect)
            status = next(m["status"] for m in messages if m["type"] == "http.response.start")
            if status < 400 and not keyed.kept:
                content = b"".join(m.get("body", b"") for m in messages)
                await run_in_threadpool(keyed.keep_after, self.database, status, content)
            answer = await run_in_threadpool(keyed.kept_answer, self.database) if keyed.came_second else None
            if answer is None:
                for message in messages:
                    await send(message)
                return
        await answer(scope, receive, send)
