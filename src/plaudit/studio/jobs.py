"""Jobs: the queue, kinds of work, and what a job's function is given.

The table of jobs is the queue itself. A queue beside it (huey's SQLite store was tried) takes a task out when it
begins, so a worker that is killed loses it, and the table would have to put it back anyway: two places that must agree
where one does. Claiming is one UPDATE, the same on SQLite and PostgreSQL.

    @job("generate")
    def generate(context: JobContext, request: dict) -> dict: ...

A function may be killed anywhere and is then called again with the same request: it must find what it has made.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from plaudit.reporting import Progress
from plaudit.studio.database import Database, Job, by_id, now
from plaudit.studio.errors import Conflict
from plaudit.studio.events import prune, publish
from plaudit.studio.schemas import JobInfo, JobProgress
from plaudit.studio.settings import StudioSettings

MODULES = (
    *("files", "generation", "scoring", "runs", "listening.preparation", "listening.report", "tuning", "simulation"),
)
"""Modules of this package that register kinds of jobs; the worker imports those that exist."""

MOST_ATTEMPTS = 3
"""Times that a job is begun, if the worker dies each time."""

PROGRESS_EVERY = 0.25
"""Seconds between two records of a job's progress."""

Lane = Literal["main", "files"]
"""Jobs of one lane run one after another; those of `files` are short and don't wait for a training."""

Function = Callable[["JobContext", dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class JobKind:
    """A kind of job."""

    name: str
    function: Function
    lane: Lane


KINDS: dict[str, JobKind] = {}


def job(name: str, lane: Lane = "main") -> Callable[[Function], Function]:
    """Register a function as the work of a kind of job."""

    def register(function: Function) -> Function:
        KINDS[name] = JobKind(name, function, lane)
        return function

    return register


def load_kinds() -> None:
    """Import the modules that register kinds."""
    for name in MODULES:
        module = f"plaudit.studio.{name}"
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise


class Cancelled(BaseException):
    """The job was cancelled. Not an Exception, so that no handler in between takes it for an error of a clip."""


def enqueue(session: Session, kind: str, request: dict[str, Any], parent_id: str | None = None) -> Job:
    """A new job in the queue."""
    row = Job(kind=kind, request=request, parent_id=parent_id, status="queued")
    session.add(row)
    session.flush()
    publish_job(session, row)
    return row


def cancel(session: Session, job_id: str) -> Job:
    """Cancel a queued job, or ask a running one to stop at its next step; Conflict for one that has ended."""
    row = by_id(session, Job, job_id)
    if row.status == "queued":
        row.status, row.finished_at, row.cancel_requested = "cancelled", now(), True
    elif row.status == "running":
        row.cancel_requested = True
    elif row.status != "cancelled":
        raise Conflict(f"the job is {row.status} already")
    publish_job(session, row)
    return row


def retry(session: Session, job_id: str) -> Job:
    """Queue a failed or cancelled job again; it goes on with what it has made."""
    row = by_id(session, Job, job_id)
    if row.status not in ("failed", "cancelled"):
        raise Conflict(f"the job is {row.status}; only failed and cancelled jobs are tried again")
    row.status, row.error, row.cancel_requested, row.attempts = "queued", None, False, 0
    row.finished_at = row.started_at = row.worker = None
    publish_job(session, row)
    return row


def info(row: Job) -> JobInfo:
    """A job as the API shows it."""
    return JobInfo.model_validate(row)


def publish_job(session: Session, row: Job) -> None:
    """An event with the job as it is."""
    session.flush()
    publish(session, "job", row.id, info(row).model_dump())


def is_over(data: dict[str, Any]) -> bool:
    """Whether an event's data are of a job that has ended."""
    return data.get("status") in ("done", "failed", "cancelled") and "kind" in data


def claim(database: Database, worker: str, lane: Lane) -> Job | None:
    """Take the oldest queued job of a lane and mark it as running; None where there is none."""
    kinds = [kind.name for kind in KINDS.values() if kind.lane == lane]
    waiting = select(Job).where(Job.status == "queued", Job.kind.in_(kinds)).order_by(Job.sequence).limit(1)
    with database.reading() as session:
        if session.scalar(waiting) is None:
            return None
    with database.transaction() as session:
        row = session.scalar(waiting.with_for_update(skip_locked=True))
        if row is None:
            return None
        row.status, row.worker, row.started_at, row.finished_at = "running", worker, row.started_at or now(), None
        row.attempts += 1
        publish_job(session, row)
        return row


def requeue_interrupted(database: Database) -> int:
    """Queue again what a worker that is gone was running; jobs that ended it too often have failed."""
    with database.transaction() as session:
        rows = list(session.scalars(select(Job).where(Job.status == "running")))
        for row in rows:
            if row.cancel_requested:
                row.status, row.finished_at = "cancelled", now()
            elif row.attempts >= MOST_ATTEMPTS:
                row.status, row.finished_at = "failed", now()
                row.error = (
                    f"the worker ended {row.attempts} times during this job, perhaps for lack of memory; "
                    "ask for less at once, then retry"
                )
            else:
                row.status, row.worker = "queued", None
            publish_job(session, row)
        return len(rows)


def fail_unknown_kinds(database: Database) -> None:
    """Jobs of kinds that this version doesn't have would wait for ever."""
    with database.transaction() as session:
        for row in session.scalars(select(Job).where(Job.status == "queued", Job.kind.not_in(KINDS))):
            row.status, row.finished_at = "failed", now()
            row.error = f"this version of plaudit has no jobs of kind {row.kind}"
            publish_job(session, row)


@dataclass
class JobContext:
    """What a job's function works with."""

    database: Database
    settings: StudioSettings
    job_id: str
    _last: float = 0.0
    _first: tuple[float, float] | None = None
    """Time and share of the first progress: what an earlier attempt did tells nothing of the speed."""

    def progress(
        self, done: int, total: int, step: int | None = None, steps: int | None = None, label: str | None = None,
        at_once: int = 1,
    ) -> None:  # fmt: skip
        """Record that `done` of `total` items are finished, and of the `at_once` present ones `step` of `steps`.

        Raises Cancelled where the job was cancelled. Records are made a few times a second at most.
        """
        self.check_cancelled()
        moment = time.monotonic()
        share = (done + (at_once * step / steps if step and steps else 0)) / total if total else 0.0
        began, already = self._first = self._first or (moment, share)
        left = (moment - began) * (1 - share) / (share - already) if share > already else None
        progress = JobProgress(
            done=done, total=total, step=step, steps=steps, label=label,
            seconds_left=None if left is None else round(left, 1),
        )  # fmt: skip
        if moment - self._last < PROGRESS_EVERY and done < total:
            return
        self._last = moment
        with self.database.transaction() as session:
            row = by_id(session, Job, self.job_id)
            row.progress = progress.model_dump()
            publish_job(session, row)

    def check_cancelled(self) -> None:
        """Raise Cancelled where the job was cancelled."""
        with self.database.reading() as session:
            if session.scalar(select(Job.cancel_requested).where(Job.id == self.job_id)):
                raise Cancelled

    def reporter(self) -> JobReporter:
        """A reporter for functions of the package: their progress is the job's."""
        return JobReporter(self)


class JobReporter:
    """A `Reporter` that records a job's progress. notes: what was reported."""

    def __init__(self, context: JobContext) -> None:
        self.context = context
        self.notes: list[str] = []

    def step(self, name: str, state: str) -> None:
        """The label of the progress."""
        self.context.progress(0, 0, label=name)

    def note(self, line: str) -> None:
        """Kept."""
        self.notes.append(line)

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """The job's progress."""
        self.context.check_cancelled()
        yield lambda done, total: self.context.progress(done, total, label=label)


def finish(database: Database, job_id: str, status: str, **values: Any) -> None:
    """Record how a job ended."""
    with database.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(status=status, finished_at=now(), **values))
        session.expire_all()
        publish_job(session, by_id(session, Job, job_id))
        prune(session)


def run(database: Database, settings: StudioSettings, row: Job) -> None:
    """Run a claimed job, and record how it ended."""
    from plaudit.errors import PlauditError, is_no_memory, is_no_room
    from plaudit.studio.database import is_full

    context = JobContext(database, settings, row.id)
    try:
        result = KINDS[row.kind].function(context, row.request)
    except Cancelled:
        finish(database, row.id, "cancelled")
    except PlauditError as error:
        finish(database, row.id, "failed", error=settings.without_paths(" ".join(str(error).split())))
    except Exception as error:
        if is_no_room(error) or is_full(error):
            message = "the disk is full; free some space, then retry"
        elif is_no_memory(error):
            message = "there is not enough memory; ask for less at once, or for shorter clips, then retry"
        else:
            _log(settings, row)
            message = f"internal error: {type(error).__name__}; logs/worker.log in the studio's folder has the trace"
        finish(database, row.id, "failed", error=message)
    else:
        finish(database, row.id, "done", result=settings.without_paths(result))


def _log(settings: StudioSettings, row: Job) -> None:
    import traceback

    with (settings.layout.logs / "worker.log").open("a") as file:
        file.write(f"{now()} job {row.id} ({row.kind})\n{traceback.format_exc()}\n")


def run_queued(database: Database, settings: StudioSettings, worker: str = "here") -> int:
    """Run all queued jobs in this process, one after another; how many."""
    load_kinds()
    done = 0
    while True:
        row = claim(database, worker, "files") or claim(database, worker, "main")
        if row is None:
            return done
        run(database, settings, row)
        done += 1
