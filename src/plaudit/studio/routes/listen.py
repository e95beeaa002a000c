"""What listeners reach: one test, by an invitation's link, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar
from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import FileResponse
from sqlalchemy.orm import Session

from plaudit.studio.app_state import Studio, StudioOf
from plaudit.studio.auth import LISTENER_COOKIE, ListenerOnly
from plaudit.studio.database import Listener, by_id
from plaudit.studio.errors import Unauthorized
from plaudit.studio.idempotency import keep
from plaudit.studio.listening import answers, audio, enrolment, headphone_check, next_pair, sessions
from plaudit.studio.listening.schemas import (
    Acknowledgement,
    Completed,
    CompletionInfo,
    Enrolment,
    ListenerSession,
    NextPage,
    NextPair,
    RatingsRequest,
    ScreeningAnswers,
    ScreeningState,
    VoteRequest,
)

router = APIRouter(prefix="/listen", tags=["listen"])

COOKIE_SECONDS = 90 * 24 * 3600

READ_WHOLE = 4 << 20
"""Bytes of audio that are read at once; a larger file is sent in parts, each of which takes a turn of a thread."""

READERS, WRITERS = 8, 32
"""Threads of listeners' requests. They are not those of others' requests, which may take long; and answers, which wait
for the disk, have other ones than what only reads, which is limited by Python's lock: more threads would take turns."""

_readers: RunVar[CapacityLimiter] = RunVar("plaudit.studio.listeners.readers")
_writers: RunVar[CapacityLimiter] = RunVar("plaudit.studio.listeners.writers")

T = TypeVar("T")


async def _in_thread(work: Callable[[], T], writes: bool = False) -> T:
    """Do a listener's work in one of the threads for it. (FastAPI would take four turns of a thread for a request.)"""
    kind, threads = (_writers, WRITERS) if writes else (_readers, READERS)
    limiter = kind.get(None)
    if limiter is None:
        kind.set(limiter := CapacityLimiter(threads))
    return await to_thread.run_sync(work, limiter=limiter)


AUDIO = {200: {"description": "A wav file; ranges are served.", "content": {"audio/wav": {}}}}


@router.get("/next")
async def next_assignment(listener: ListenerOnly, studio: StudioOf) -> NextPair | NextPage | Completed:
    """The next pair or rating page, or the completion code. It stays the same until it is answered."""
    root = studio.settings.layout.root

    def look() -> NextPair | NextPage | Completed | None:
        with studio.database.reading() as session:
            return next_pair.next_item(session, listener.id, root)

    item = await _in_thread(look)
    if item is None:
        item = await _in_thread(lambda: next_pair.advance(studio.database, listener.id, root), writes=True)
    return item


@router.post("/votes")
async def vote(vote: VoteRequest, listener: ListenerOnly, studio: StudioOf) -> Acknowledgement:
    """Answer a pair. The answer of this request means that the vote is on the disk; sent again, nothing changes."""
    return await _record(studio, lambda session: answers.record_vote(session, listener.id, vote))


@router.post("/ratings")
async def rate(ratings: RatingsRequest, listener: ListenerOnly, studio: StudioOf) -> Acknowledgement:
    """Answer a rating page: all its values at once."""
    return await _record(studio, lambda session: answers.record_ratings(session, listener.id, ratings))


async def _record(studio: Studio, record: Callable[[Session], Acknowledgement]) -> Acknowledgement:
    """Record an answer in a transaction of its own, with the answer to its idempotency key."""

    def work() -> Acknowledgement:
        with studio.database.transaction() as session:
            acknowledgement = record(session)
            keep(session, acknowledgement)
        return acknowledgement

    return await _in_thread(work, writes=True)


@router.get("/audio/{name}", response_class=FileResponse, responses=AUDIO)  # type: ignore[arg-type]
async def listener_audio(
    name: Annotated[str, Path(max_length=60)], listener: ListenerOnly, studio: StudioOf, request: Request
) -> Response:
    """Audio of an assignment or of the screening, by the address that was given."""
    whole = "range" not in request.headers

    def work() -> Response:
        with studio.database.reading() as session:
            sound = audio.audio_of(session, listener.id, name, studio.settings.layout.root)
        if isinstance(sound, bytes):
            return Response(sound, media_type="audio/wav", headers={"cache-control": "no-store"})
        headers = {"cache-control": "private, max-age=3600", "accept-ranges": "bytes"}
        stat = os.stat(sound)
        if whole and stat.st_size <= READ_WHOLE:
            return Response(sound.read_bytes(), media_type="audio/wav", headers=headers)
        response = FileResponse(sound, media_type="audio/wav", headers=headers, stat_result=stat)
        # Two sides with one time or tag would be known to be of one system.
        for header in ("etag", "last-modified"):
            del response.headers[header]
        return response

    return await _in_thread(work)


@router.get("/session")
def listener_session(listener: ListenerOnly, studio: StudioOf) -> ListenerSession:
    """Where this listener is, and what the test asks."""
    with studio.database.reading() as session:
        return sessions.session_state(session, listener.id)


@router.post("/consent")
def give_consent(listener: ListenerOnly, studio: StudioOf) -> ListenerSession:
    """Agree to the consent text. Again, it changes nothing."""
    with studio.database.transaction() as session:
        enrolment.consent(session, listener.id)
        answer = sessions.session_state(session, listener.id)
        keep(session, answer)
        return answer


@router.get("/screening")
def get_screening(listener: ListenerOnly, studio: StudioOf) -> ScreeningState:
    """The trials of the headphone screening."""
    with studio.database.reading() as session:
        return headphone_check.screening_state(session, listener.id)


@router.post("/screening")
def answer_screening(answers: ScreeningAnswers, listener: ListenerOnly, studio: StudioOf) -> ScreeningState:
    """Answer the six trials; where it says attempts are left, there are new ones."""
    with studio.database.transaction() as session:
        headphone_check.answer_screening(session, listener.id, answers.answers)
        answer = headphone_check.screening_state(session, listener.id)
        keep(session, answer)
        return answer


@router.get("/completion")
def completion(listener: ListenerOnly, studio: StudioOf) -> CompletionInfo:
    """The completion code."""
    with studio.database.reading() as session:
        return CompletionInfo(completion_code=sessions.completion_code(session, listener.id))


@router.post("/{invitation}", status_code=200)
def open_invitation(
    invitation: Annotated[str, Path(max_length=200)], request: Request, response: Response, studio: StudioOf
) -> Enrolment:
    """Open an invitation's link. A browser that opened it before continues where it was."""
    known = request.cookies.get(LISTENER_COOKIE)
    with studio.database.transaction() as session:
        invited = studio.authority.invitation(session, invitation)
        listener = None
        if known is not None:
            try:
                listener = by_id(session, Listener, studio.authority.from_listener_cookie(session, known).id)
            except Unauthorized:
                pass
        if listener is None or listener.test_id != invited.test_id:
            listener = enrolment.enrol(session, invited, request.headers.get("user-agent"))
        token = studio.authority.listener_token(listener.id)
        answer = Enrolment(
            listener=listener.id,
            token=token,
            csrf=studio.authority.listener_csrf(token),
            session=sessions.session_state(session, listener.id),
        )
        keep(session, answer)
    response.set_cookie(
        LISTENER_COOKIE, token, max_age=COOKIE_SECONDS, path="/api/v1/listen", httponly=True, samesite="strict",
        secure=request.url.scheme == "https",
    )  # fmt: skip
    return answer
