"""Uploads, and folders of clips."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.responses import Response

from plaudit.studio import files, jobs
from plaudit.studio.app_state import Studio, StudioOf
from plaudit.studio.auth import Editor
from plaudit.studio.errors import Unprocessable
from plaudit.studio.idempotency import KeyedRequest, keep
from plaudit.studio.schemas import Folders, UploadAccepted

router = APIRouter(tags=["files"])

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            }
        },
    }
}


@router.post("/uploads", status_code=202, response_model=UploadAccepted, openapi_extra=BODY)
async def upload(
    request: Request,
    principal: Editor,
    studio: StudioOf,
    name: Annotated[str, Query(max_length=120, description="A name for the folder.")] = "",
) -> UploadAccepted | Response:
    """Upload audio files, with a table prompts.csv (columns file and prompt) among them if need be.

    A worker decodes them. 1,000 files, 200 MiB and ten minutes each, 1 GiB in all at most.
    """
    keyed = None
    if (key := request.headers.get("idempotency-key")) is not None:
        # The body is not compared: it is not held in memory.
        keyed = KeyedRequest.of(request, key, b"")
        if (kept := await run_in_threadpool(keyed.kept_answer, studio.database)) is not None:
            return kept
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Unprocessable("an upload is multipart/form-data with the files under `files`")
    async with request.form(max_files=files.MOST_FILES, max_fields=10) as form:
        parts = [part for part in form.getlist("files") if isinstance(part, UploadFile)]
        if not parts:
            raise Unprocessable("the upload has no files: send them under the name `files`")
        return await run_in_threadpool(_receive, studio, parts, name, keyed)


def _receive(studio: Studio, parts: list[UploadFile], name: str, keyed: KeyedRequest | None) -> UploadAccepted:
    given = [(part.filename or "", part.file) for part in parts]
    upload_id, names = files.receive(studio.settings.layout, given, name)
    with KeyedRequest.activated(keyed), studio.database.transaction() as session:
        row = jobs.enqueue(session, "upload", {"upload": upload_id, "name": name, "files": names})
        answer = UploadAccepted(folder=f"uploads/{upload_id}", job=jobs.info(row))
        keep(session, answer, 202)
        return answer


@router.get("/folders")
def list_folders(principal: Editor, studio: StudioOf) -> Folders:
    """Folders of clips: uploads, generations, and clips of runs."""
    return Folders(items=files.list_folders(studio.settings, studio.database))
