"""Listening tests: made, prepared, opened and closed; their invitations, listeners, results and exports."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse
from sqlalchemy import select
from sqlalchemy.orm import Session
from sse_starlette import EventSourceResponse

from plaudit.studio.app_state import StudioOf
from plaudit.studio.auth import Editor
from plaudit.studio.database import Invitation, Listener, Test, by_id
from plaudit.studio.errors import NotFound, Unprocessable
from plaudit.studio.events import event_stream
from plaudit.studio.idempotency import keep
from plaudit.studio.jobs import enqueue
from plaudit.studio.jobs import info as job_info
from plaudit.studio.listening import administration
from plaudit.studio.listening.exports import rating_table, vote_lines, vote_table
from plaudit.studio.listening.schemas import (
    InvitationInfo,
    InvitationRequest,
    ListenerInfo,
    TestChange,
    TestInfo,
    TestJob,
    TestRequest,
    TestResults,
    TestStatus,
)
from plaudit.studio.pages import Cursor, Limit, part_of
from plaudit.studio.routes.jobs import STREAM
from plaudit.studio.schemas import JobInfo, Page

router = APIRouter(prefix="/tests", tags=["tests"])

DOWNLOAD: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "votes: a line of JSON a vote; csv: everything; report: a zip of a folder that opens from disk.",
        "content": {"application/x-ndjson": {}, "text/csv": {}, "application/zip": {}},
    }
}


@router.post("", status_code=202)
def create_test(request: TestRequest, principal: Editor, studio: StudioOf) -> TestJob:
    """Make a listening test; a job prepares its clips. It can be opened when that is done."""
    with studio.database.transaction() as session:
        test, job = administration.create(session, request)
        answer = TestJob(test=administration.info(session, test, studio.settings.layout.root), job=job.id)
        keep(session, answer, 202)
        return answer


@router.get("")
def list_tests(
    principal: Editor, studio: StudioOf, status: TestStatus | None = None, limit: Limit = 50, cursor: Cursor = None
) -> Page[TestInfo]:
    """Listening tests, newest first."""
    query = select(Test)
    if status is not None:
        query = query.where(Test.status == status)
    with studio.database.reading() as session:
        rows, following = part_of(session, query, Test, limit, cursor)
        root = studio.settings.layout.root
        return Page(items=[administration.info(session, row, root) for row in rows], next=following)


@router.get("/{test_id}")
def get_test(test_id: str, principal: Editor, studio: StudioOf) -> TestInfo:
    """A listening test."""
    with studio.database.reading() as session:
        return administration.info(session, by_id(session, Test, test_id), studio.settings.layout.root)


@router.patch("/{test_id}")
def change_test(test_id: str, change: TestChange, principal: Editor, studio: StudioOf) -> TestInfo:
    """Open or close a test, or change it. What listeners see and the rules are fixed once it was opened."""
    with studio.database.transaction() as session:
        test = by_id(session, Test, test_id)
        administration.change(session, test, change)
        return administration.info(session, test, studio.settings.layout.root)


@router.post("/{test_id}/invitations", status_code=201)
def invite(test_id: str, request: InvitationRequest, principal: Editor, studio: StudioOf) -> InvitationInfo:
    """A link to a test."""
    with studio.database.transaction() as session:
        test = by_id(session, Test, test_id)
        row = Invitation(test_id=test.id, label=request.label, max_listeners=request.max_listeners)
        session.add(row)
        session.flush()
        answer = administration.invitation_info(session, row, studio.authority)
        keep(session, answer, 201)
        return answer


@router.get("/{test_id}/invitations")
def list_invitations(
    test_id: str, principal: Editor, studio: StudioOf, limit: Limit = 50, cursor: Cursor = None
) -> Page[InvitationInfo]:
    """The links to a test, newest first."""
    with studio.database.reading() as session:
        query = select(Invitation).where(Invitation.test_id == by_id(session, Test, test_id).id)
        rows, following = part_of(session, query, Invitation, limit, cursor)
        items = [administration.invitation_info(session, row, studio.authority) for row in rows]
        return Page(items=items, next=following)


@router.delete("/{test_id}/invitations/{invitation_id}")
def withdraw_invitation(test_id: str, invitation_id: str, principal: Editor, studio: StudioOf) -> InvitationInfo:
    """Withdraw a link: nobody can begin with it any more; who has begun can go on."""
    with studio.database.transaction() as session:
        row = by_id(session, Invitation, invitation_id)
        if row.test_id != test_id:
            raise NotFound(f"the test has no invitation {invitation_id[:40]!r}")
        row.revoked = True
        return administration.invitation_info(session, row, studio.authority)


@router.get("/{test_id}/listeners")
def list_listeners(
    test_id: str, principal: Editor, studio: StudioOf, limit: Limit = 50, cursor: Cursor = None
) -> Page[ListenerInfo]:
    """Those who opened a link of a test, newest first."""
    with studio.database.reading() as session:
        query = select(Listener).where(Listener.test_id == by_id(session, Test, test_id).id)
        rows, following = part_of(session, query, Listener, limit, cursor)
        return Page(items=[administration.listener_info(session, row) for row in rows], next=following)


@router.get("/{test_id}/results")
def results(test_id: str, principal: Editor, studio: StudioOf, request: Request) -> TestResults:
    """Results so far; of a test that is closed, or was not opened yet, of every vote.

    They may be looked at as often as wanted: the intervals of `decisions` allow for that, and computing them takes no
    time away from votes. While the test is open, results may be of some seconds ago: `at_votes` of `votes` votes, and
    newer ones can be had in `refresh_after` seconds.
    """
    return administration.current_results(studio, test_id)


@router.get("/{test_id}/results/events", response_class=EventSourceResponse, responses=STREAM)
def result_events(test_id: str, principal: Editor, studio: StudioOf, request: Request) -> EventSourceResponse:
    """An event (`vote`, `listener` or `test`) whenever the results may have changed; the first has the test's
    numbers."""
    with studio.database.reading() as session:
        by_id(session, Test, test_id)

    def state(session: Session) -> tuple[str, dict[str, Any]]:
        return "test", administration.counts(session, test_id)

    return event_stream(request, studio.database, subjects=[test_id], first=state)


@router.post("/{test_id}/reports", status_code=202)
def make_report(test_id: str, principal: Editor, studio: StudioOf) -> JobInfo:
    """Write the report of a test as it is now; a job. Then it can be exported."""
    with studio.database.transaction() as session:
        row = enqueue(session, "test-report", {"test": by_id(session, Test, test_id).id})
        answer = job_info(row)
        keep(session, answer, 202)
        return answer


@router.get("/{test_id}/export", response_class=Response, responses=DOWNLOAD)
def export(
    test_id: str,
    principal: Editor,
    studio: StudioOf,
    format: Annotated[Literal["votes", "csv", "report"], Query(description="What to export.")] = "votes",
) -> Response:
    """Votes that count in the schema of `plaudit reward train`, every answer as CSV, or the report made last as a
    zip."""
    with studio.database.reading() as session:
        test = by_id(session, Test, test_id)
    if format == "report":
        place = administration.report_archive(studio.settings, test_id)
        if not place.is_file():
            raise NotFound(f"there is no report yet; make one with POST /api/v1/tests/{test_id}/reports")
        return FileResponse(place, media_type="application/zip", filename=f"listening-test-{test_id}.zip")
    excluded = administration.current_results(studio, test_id, exact=True).exclusions
    with studio.database.reading() as session:
        if format == "csv":
            table = rating_table if test.kind == "rating" else vote_table
            return _download(table(session, test, excluded), "text/csv", f"listening-test-{test_id}.csv")
        if test.kind == "rating":
            raise Unprocessable("a rating test has no votes; export it as csv")
        return _download(vote_lines(session, test, excluded), "application/x-ndjson", f"listening-test-{test_id}.jsonl")


def _download(text: str, kind: str, name: str) -> Response:
    return PlainTextResponse(
        text, media_type=f"{kind}; charset=utf-8", headers={"content-disposition": f'attachment; filename="{name}"'}
    )
