"""Jobs, and events of all kinds."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from sqlalchemy import select
from sqlalchemy.orm import Session
from sse_starlette import EventSourceResponse

from plaudit.studio import jobs
from plaudit.studio.app_state import StudioOf
from plaudit.studio.auth import Editor, still_valid
from plaudit.studio.database import Job, by_id
from plaudit.studio.events import event_stream
from plaudit.studio.idempotency import keep
from plaudit.studio.pages import Cursor, Limit, part_of
from plaudit.studio.schemas import JobInfo, JobStatus, Page

router = APIRouter(tags=["jobs"])

STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "Server-sent events; each has an id for Last-Event-ID.", "content": {"text/event-stream": {}}}
}


@router.get("/jobs")
def list_jobs(
    principal: Editor,
    studio: StudioOf,
    status: JobStatus | None = None,
    kind: Annotated[str | None, Query(max_length=32)] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[JobInfo]:
    """Jobs, newest first."""
    query = select(Job)
    if status is not None:
        query = query.where(Job.status == status)
    if kind is not None:
        query = query.where(Job.kind == kind)
    with studio.database.reading() as session:
        rows, following = part_of(session, query, Job, limit, cursor)
        return Page(items=[jobs.info(row) for row in rows], next=following)


@router.get("/jobs/{job_id}")
def get_job(job_id: str, principal: Editor, studio: StudioOf) -> JobInfo:
    """A job."""
    with studio.database.reading() as session:
        return jobs.info(by_id(session, Job, job_id))


@router.post("/jobs/{job_id}/cancel")
def cancel_job(job_id: str, principal: Editor, studio: StudioOf) -> JobInfo:
    """Cancel a queued job; ask a running one to stop, which it does at its next step."""
    with studio.database.transaction() as session:
        answer = jobs.info(jobs.cancel(session, job_id))
        keep(session, answer)
        return answer


@router.post("/jobs/{job_id}/retry")
def retry_job(job_id: str, principal: Editor, studio: StudioOf) -> JobInfo:
    """Queue a failed or cancelled job again; it goes on with what it has made."""
    with studio.database.transaction() as session:
        answer = jobs.info(jobs.retry(session, job_id))
        keep(session, answer)
        return answer


@router.get("/jobs/{job_id}/events", response_class=EventSourceResponse, responses=STREAM)
def job_events(job_id: str, principal: Editor, studio: StudioOf, request: Request) -> EventSourceResponse:
    """Events of a job (`job`: its state and progress; `clip`: a clip that is done), until it has ended."""
    with studio.database.reading() as session:
        by_id(session, Job, job_id)

    def state(session: Session) -> tuple[str, dict[str, Any]]:
        return "job", jobs.info(by_id(session, Job, job_id)).model_dump()

    return event_stream(
        request, studio.database, subjects=[job_id], first=state, last=jobs.is_over, allowed=still_valid(principal)
    )


@router.get("/events", response_class=EventSourceResponse, responses=STREAM)
def all_events(principal: Editor, studio: StudioOf, request: Request) -> EventSourceResponse:
    """Events of everything: jobs, clips, tests."""
    return event_stream(request, studio.database, allowed=still_valid(principal))
