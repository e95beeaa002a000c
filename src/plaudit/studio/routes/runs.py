"""Runs and their reports, scores, comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse

from plaudit.studio import jobs, runs
from plaudit.studio.app_state import Studio, StudioOf
from plaudit.studio.auth import Editor
from plaudit.studio.catalogue import resolve_reward
from plaudit.studio.files import resolve_folder
from plaudit.studio.idempotency import keep
from plaudit.studio.middleware import REPORT_CSP
from plaudit.studio.schemas import ComparisonRequest, JobInfo, RunInfo, Runs, ScoreRequest

router = APIRouter(tags=["runs"])

FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", "content": {"*/*": {}}},
    206: {"description": "The part that Range asks for.", "content": {"*/*": {}}},
    416: {"description": "The range is outside the file.", "content": {"text/plain": {}}},
}


@router.get("/runs")
def list_runs(principal: Editor, studio: StudioOf) -> Runs:
    """Runs, those changed last first."""
    return Runs(items=runs.list_runs(studio.settings))


@router.get("/runs/{name}")
def get_run(name: str, principal: Editor, studio: StudioOf) -> RunInfo:
    """A run."""
    return runs.get_run(studio.settings, name)


@router.get("/runs/{name}/report/{path:path}", response_class=FileResponse, responses=FILE)
def run_report(name: str, path: str, principal: Editor, studio: StudioOf) -> FileResponse:
    """A file of a run's report; index.html is its page. Its scripts do not run."""
    return _page_file(runs.report_file(studio.settings, name, path))


@router.post("/comparisons", status_code=202)
def create_comparison(body: ComparisonRequest, principal: Editor, studio: StudioOf) -> JobInfo:
    """Compare two systems: a job of kind `compare`, whose result has the numbers and the address of a page."""
    for name in (body.a, body.b):
        runs.resolve_system(studio.settings, name)
    return _enqueued(studio, "compare", body.model_dump(mode="json"))


@router.get("/comparisons/{job_id}/{path:path}", response_class=FileResponse, responses=FILE)
def comparison_page(job_id: str, path: str, principal: Editor, studio: StudioOf) -> FileResponse:
    """A file of a comparison's page."""
    return _page_file(runs.comparison_file(studio.settings, job_id, path))


@router.post("/scores", status_code=202)
def create_scores(body: ScoreRequest, principal: Editor, studio: StudioOf) -> JobInfo:
    """Score and rank clips: a job of kind `score`, whose result has a row for each."""
    resolve_reward(studio.settings, studio.database, body.reward)
    if body.folder is not None:
        resolve_folder(studio.settings, body.folder)
    return _enqueued(studio, "score", body.model_dump(mode="json"))


def _enqueued(studio: Studio, kind: str, request: dict[str, Any]) -> JobInfo:
    with studio.database.transaction() as session:
        answer = jobs.info(jobs.enqueue(session, kind, request))
        keep(session, answer, 202)
        return answer


def _page_file(path: Path) -> FileResponse:
    return FileResponse(path, headers={"content-security-policy": REPORT_CSP, "x-frame-options": "SAMEORIGIN"})
