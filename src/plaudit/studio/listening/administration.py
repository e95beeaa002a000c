"""Tests as those see them who run them: made, opened and closed, and their results while they run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from plaudit.studio.app_state import Studio
from plaudit.studio.auth import Authority
from plaudit.studio.database import (
    Clip,
    Invitation,
    Job,
    Listener,
    Look,
    Pair,
    Prompt,
    System,
    Test,
    by_id,
    now,
)
from plaudit.studio.errors import Conflict, Unprocessable
from plaudit.studio.events import publish
from plaudit.studio.jobs import enqueue
from plaudit.studio.listening.records import count_answers, screened_out, systems_of
from plaudit.studio.listening.results import Computed, Version
from plaudit.studio.listening.schemas import (
    CONSENT,
    INSTRUCTIONS,
    QUESTION,
    InvitationInfo,
    ListenerInfo,
    LookInfo,
    SystemInfo,
    TestChange,
    TestInfo,
    TestRequest,
    TestResults,
    TestSettings,
)
from plaudit.studio.listening.sessions import counts_of, settings_of
from plaudit.studio.settings import StudioSettings

FIXED = ("question", "instructions", "consent")
"""Texts that are fixed once a test was opened, as its settings are."""


# Making and changing tests


def create(session: Session, request: TestRequest) -> tuple[Test, Job]:
    """A test and the job that prepares it."""
    settings = TestSettings.model_validate(request.model_dump(include=set(TestSettings.model_fields)))
    test = Test(
        name=request.name,
        kind=request.kind,
        status="preparing",
        question=request.question or QUESTION[request.kind],
        instructions=INSTRUCTIONS[request.kind] if request.instructions is None else request.instructions,
        consent=CONSENT if request.consent is None else request.consent,
        settings={
            "settings": settings.model_dump(mode="json"), "prompts": request.prompts, "notes": [], "registered": None,
        },
    )  # fmt: skip
    session.add(test)
    session.flush()
    for system in request.systems:
        session.add(System(test_id=test.id, name=system.name, source=system.source.model_dump(exclude_none=True)))
        session.flush()
    job = enqueue(session, "prepare-test", {"test": test.id})
    test.settings = {**test.settings, "job": job.id}
    session.flush()
    publish(session, "test", test.id, {"status": test.status})
    return test, job


def change(session: Session, test: Test, change: TestChange) -> None:
    """Change a test; Conflict for what is fixed, or where it is not prepared."""
    values = change.model_dump(exclude_unset=True, exclude={"status", "name"}, mode="json")
    if values and test.settings["registered"] is not None:
        raise Conflict(f"{next(iter(values))} is fixed, since the test was opened; make a new test instead")
    for name in FIXED:
        if values.get(name) is not None:
            setattr(test, name, values[name])
    settings = {name: value for name, value in values.items() if name not in FIXED and value is not None}
    if settings:
        changed = TestSettings.model_validate({**test.settings["settings"], **settings})
        if changed.pairing == "active" and test.kind == "rating":
            raise Unprocessable("active pairing is for preference tests; a rating page has all systems")
        test.settings = {**test.settings, "settings": changed.model_dump(mode="json")}
    if change.name is not None:
        test.name = change.name
    if change.status is not None and change.status != test.status:
        if not _is_prepared(session, test):
            why = _because(session, test)
            raise Conflict(f"the test is not prepared yet{why}; it can be opened when its job is done")
        if change.status == "open" and test.settings["registered"] is None:
            test.settings = {**test.settings, "registered": {"at": now(), "digest": digest_of(session, test)}}
        test.status = change.status
    session.flush()
    publish(session, "test", test.id, {"status": test.status})


def digest_of(session: Session, test: Test) -> str:
    """SHA-256 of all that is fixed when a test is opened: settings with the exclusion rules, texts, systems, pairs."""
    pairs = session.execute(select(Pair.kind, func.count()).where(Pair.test_id == test.id).group_by(Pair.kind))
    fixed = {
        "kind": test.kind,
        "settings": test.settings["settings"],
        **{name: getattr(test, name) for name in FIXED},
        "systems": [row.name for row in systems_of(session, test.id)],
        "pairs": {kind: count for kind, count in sorted(pairs)},
    }
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def _is_prepared(session: Session, test: Test) -> bool:
    return session.scalar(select(Pair.id).where(Pair.test_id == test.id).limit(1)) is not None


def _because(session: Session, test: Test) -> str:
    problem = _job_problem(session, test)
    return f" ({problem})" if problem else ""


def _job_problem(session: Session, test: Test) -> str | None:
    job = session.scalar(select(Job).where(Job.id == test.settings.get("job")))
    if job is None or job.status not in ("failed", "cancelled"):
        return None
    return job.error or "its job was cancelled"


# What the API shows


def counts(session: Session, test_id: str) -> dict[str, Any]:
    """Numbers of listeners who consented and who are done, and of answers."""
    listeners, completed = session.execute(
        select(
            func.coalesce(func.sum(case((Listener.consented_at.is_not(None), 1), else_=0)), 0),
            func.coalesce(func.sum(case((Listener.completed_at.is_not(None), 1), else_=0)), 0),
        ).where(Listener.test_id == test_id)
    ).one()
    return {"listeners": int(listeners), "completed": int(completed), "votes": count_answers(session, test_id)}


def info(session: Session, test: Test, root: Path) -> TestInfo:
    """A test as the API shows it."""
    prepared = _is_prepared(session, test)
    problem = None if prepared else _job_problem(session, test)
    compared = (Pair.test_id == test.id) & Pair.kind.in_(("regular", "page"))
    return TestInfo(
        id=test.id,
        name=test.name,
        kind=test.kind,  # type: ignore[arg-type]
        status="draft" if problem and test.status == "preparing" else test.status,  # type: ignore[arg-type]
        question=test.question,
        instructions=test.instructions,
        consent=test.consent,
        settings=settings_of(test),
        systems=[SystemInfo(id=row.id, name=row.name, source=row.source) for row in systems_of(session, test.id)],
        prompts=session.scalar(select(func.count()).select_from(Prompt).where(Prompt.test_id == test.id)) or 0,
        pairs=session.scalar(select(func.count()).select_from(Pair).where(compared)) or 0,
        **counts(session, test.id),
        prepared=prepared,
        job=test.settings.get("job"),
        problem=problem or _missing_clips(session, test, root),
        notes=test.settings["notes"],
        registered=test.settings["registered"],
        created_at=test.created_at,
    )


def _missing_clips(session: Session, test: Test, root: Path) -> str | None:
    rows = session.execute(select(Clip.path, Clip.prompt).where(Clip.test_id == test.id))
    missing = [(path, prompt) for path, prompt in rows if not (root / path).is_file()]
    if not missing:
        return None
    path, prompt = missing[0]
    return (
        f"{len(missing)} clips of the test are gone, the first {path} ({prompt[:60]}); put them back: until then their "
        "pairs are passed over, and votes are kept"
    )


def invitation_info(session: Session, row: Invitation, authority: Authority) -> InvitationInfo:
    """An invitation as the API shows it."""
    token = authority.invitation_token(row.id)
    taken = select(func.count()).select_from(Listener).where(
        Listener.invitation_id == row.id, Listener.consented_at.is_not(None)
    )  # fmt: skip
    return InvitationInfo(
        id=row.id,
        label=row.label,
        max_listeners=row.max_listeners,
        listeners=session.scalar(taken) or 0,
        revoked=row.revoked,
        token=token,
        url=f"/listen/{token}",
        created_at=row.created_at,
    )


def listener_info(session: Session, row: Listener) -> ListenerInfo:
    """A listener as the API shows it to those who run the test; without the seed of the screening."""
    answered, total = counts_of(session, row)
    screening = None if row.screening is None else {k: v for k, v in row.screening.items() if k != "seed"}
    return ListenerInfo(
        id=row.id,
        invitation=row.invitation_id,
        consented_at=row.consented_at,
        completed_at=row.completed_at,
        completion_code=row.completion_code,
        answered=answered,
        total=total,
        screening=screening,
        excluded=[] if row.excluded is None else list(row.excluded["reasons"]),
    )


# Results while a test runs

LOOKS_SHOWN = 200


def current_results(studio: Studio, test_id: str, exact: bool = False) -> TestResults:
    """The results of a test. While it is open they may be a little older than its last answers, as `LiveResults` says,
    unless they have to be exact. New ones are recorded as a look."""
    with studio.database.reading() as session:
        test = by_id(session, Test, test_id)
        version = Version.of(session, test)
    served = studio.results.of(test_id, version, exact or test.status != "open")
    if served.is_new:
        with studio.database.transaction() as session:
            _record_look(session, test, served.computed)
    with studio.database.reading() as session:
        test = by_id(session, Test, test_id)
        return assembled(session, test, served.computed, served.refresh_after)


def assembled(session: Session, test: Test, computed: Computed, refresh_after: float | None = None) -> TestResults:
    """The results of a test as the API shows them."""
    numbers = counts(session, test.id)
    of_test = Look.test_id == test.id
    looks = session.scalars(select(Look).where(of_test).order_by(Look.sequence.desc()).limit(LOOKS_SHOWN)).all()
    return TestResults(
        test=test.id,
        kind=test.kind,  # type: ignore[arg-type]
        at_votes=computed.version.answers,
        votes=numbers["votes"],
        computed_at=computed.computed_at,
        refresh_after=refresh_after,
        listeners=numbers["listeners"],
        completed=numbers["completed"],
        registered=test.settings["registered"],
        rules=settings_of(test).exclusion_rules,
        screened_out=screened_out(session, test.id),
        looks=[LookInfo(at_votes=row.at_votes, created_at=row.created_at, verdicts=row.result) for row in looks[::-1]],
        number_of_looks=session.scalar(select(func.count()).select_from(Look).where(of_test)) or 0,
        true_utilities=test.settings.get("true_utilities"),
        **{test.kind: computed.figures},  # type: ignore[arg-type]
    )


def _record_look(session: Session, test: Test, computed: Computed) -> None:
    at = computed.version.answers
    last = session.scalar(select(func.max(Look.at_votes)).where(Look.test_id == test.id))
    if at == 0 or (last is not None and at <= last):
        return
    decisions = computed.figures.get("decisions", [])
    verdicts = {f"{one['first']} against {one['second']}": one["verdict"] for one in decisions}
    session.add(Look(test_id=test.id, at_votes=at, result=verdicts))


def report_archive(settings: StudioSettings, test_id: str) -> Path:
    """The zip of a test's report."""
    return settings.layout.tests / f"{test_id}-report.zip"
