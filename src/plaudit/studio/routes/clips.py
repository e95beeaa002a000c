"""Clips: list, listen, keep, download."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse
from sqlalchemy import select

from plaudit.studio.app_state import StudioOf
from plaudit.studio.auth import Editor
from plaudit.studio.database import Clip, by_id
from plaudit.studio.events import publish
from plaudit.studio.files import MEDIA_TYPES, clip_file, clip_info, drawing
from plaudit.studio.pages import Cursor, Limit, part_of
from plaudit.studio.schemas import ClipChange, ClipInfo, ClipStatus, Page, Peaks

router = APIRouter(tags=["clips"])

Filter = Annotated[str | None, Query(max_length=32)]
UNCHANGING = {"cache-control": "private, max-age=86400"}
"""A clip's file is never replaced under its id."""

AUDIO: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", "content": {"audio/*": {"schema": {"type": "string", "format": "binary"}}}},
    206: {"description": "The part that Range asks for.", "content": {"audio/*": {}}},
    416: {"description": "The range is outside the file.", "content": {"text/plain": {}}},
}


@router.get("/clips")
def list_clips(
    principal: Editor,
    studio: StudioOf,
    status: ClipStatus | None = None,
    job: Filter = None,
    test: Filter = None,
    prompt: Annotated[str | None, Query(max_length=2000, description="Exactly this prompt.")] = None,
    q: Annotated[str | None, Query(max_length=200, description="Words in the prompt.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[ClipInfo]:
    """Clips, newest first. Discarded ones are listed only by status=discarded, those of tests only by test."""
    query = select(Clip).where(Clip.test_id.is_(None) if test is None else Clip.test_id == test)
    query = query.where(Clip.status != "discarded" if status is None else Clip.status == status)
    if job is not None:
        query = query.where(Clip.job_id == job)
    if prompt is not None:
        query = query.where(Clip.prompt == prompt)
    for word in (q or "").split():
        query = query.where(Clip.prompt.icontains(word, autoescape=True))
    with studio.database.reading() as session:
        rows, following = part_of(session, query, Clip, limit, cursor)
        return Page(items=[clip_info(row) for row in rows], next=following)


@router.get("/clips/{clip_id}")
def get_clip(clip_id: str, principal: Editor, studio: StudioOf) -> ClipInfo:
    """A clip."""
    return clip_info(_clip(studio, clip_id))


@router.patch("/clips/{clip_id}")
def change_clip(clip_id: str, body: ClipChange, principal: Editor, studio: StudioOf) -> ClipInfo:
    """Keep or discard a clip. Its file stays, so that it can be taken back."""
    with studio.database.transaction() as session:
        row = by_id(session, Clip, clip_id)
        row.status = body.status
        answer = clip_info(row)
        publish(session, "clip", row.job_id or row.id, answer.model_dump())
        return answer


@router.get("/clips/{clip_id}/audio", response_class=FileResponse, responses=AUDIO)
def clip_audio(clip_id: str, principal: Editor, studio: StudioOf) -> FileResponse:
    """The audio, whole or the part that Range asks for."""
    path = clip_file(studio.settings.layout, _clip(studio, clip_id))
    return FileResponse(path, media_type=media_type(path), headers=UNCHANGING)


@router.get("/clips/{clip_id}/download", response_class=FileResponse, responses=AUDIO)
def download_clip(clip_id: str, principal: Editor, studio: StudioOf) -> FileResponse:
    """The file as an attachment. A generated clip's tags hold its prompt, seed, model and settings."""
    clip = _clip(studio, clip_id)
    path = clip_file(studio.settings.layout, clip)
    words = re.sub(r"[^\w]+", "-", clip.prompt).strip("-")[:60] or "clip"
    name = "-".join(part for part in (words, clip.seed) if part) + path.suffix
    return FileResponse(path, media_type=media_type(path), filename=name, headers=UNCHANGING)


@router.get("/clips/{clip_id}/peaks")
def clip_peaks(clip_id: str, principal: Editor, studio: StudioOf, response: Response) -> Peaks:
    """The waveform for drawing."""
    clip = _clip(studio, clip_id)
    values = np.frombuffer(drawing(studio.settings.layout, clip, ".peaks"), dtype="<f4")
    response.headers.update(UNCHANGING)
    return Peaks(duration=clip.duration or 0.0, peaks=[round(float(value), 3) for value in values])


@router.get(
    "/clips/{clip_id}/spectrogram.png",
    response_class=Response,
    responses={200: {"description": "An image.", "content": {"image/png": {}}}},
)
def clip_spectrogram(clip_id: str, principal: Editor, studio: StudioOf) -> Response:
    """The spectrogram, on a logarithmic axis from 40 Hz up."""
    image = drawing(studio.settings.layout, _clip(studio, clip_id), ".png")
    return Response(image, media_type="image/png", headers=UNCHANGING)


def media_type(path: Path) -> str:
    """Of an audio file."""
    return MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")


def _clip(studio: StudioOf, clip_id: str) -> Clip:
    with studio.database.reading() as session:
        return by_id(session, Clip, clip_id)
