"""Where a listener is, from consent to the completion code. Every function works in the caller's transaction.

    consent -> screening, where the test has one -> listening: practice, pairs with hidden checks -> completed

The steps are in modules of their own: `enrolment`, `headphone_check`, `plans`, `next_pair` and `answers`.
"""

from __future__ import annotations

import secrets

from sqlalchemy import bindparam, case, func, select
from sqlalchemy.orm import Session

from plaudit.studio.database import Assignment, Listener, Test, by_id, now
from plaudit.studio.errors import Conflict, Forbidden, Gone, NotFound
from plaudit.studio.events import publish
from plaudit.studio.listening.schemas import ListenerSession, TestSettings

CODE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Of completion codes: without letters and digits that are mistaken for each other."""


def settings_of(test: Test) -> TestSettings:
    """The settings of a test."""
    return TestSettings.model_validate(test.settings["settings"])


# Made once: making a statement takes SQLAlchemy longer than carrying it out.

_LISTENER = select(Listener, Test).join(Test, Test.id == Listener.test_id).where(Listener.id == bindparam("listener"))

_PROGRESS = select(
    func.coalesce(func.sum(case((Assignment.answered, 1), else_=0)), 0), func.count()
).where(Assignment.listener_id == bindparam("listener"))  # fmt: skip


def check_open(test: Test) -> None:
    """Gone where a test is closed, Conflict where it was not opened yet."""
    if test.status == "closed":
        raise Gone("this test is closed; thank you for your interest")
    if test.status != "open":
        raise Conflict("this test is not open yet; try again later")


def listener_and_test(session: Session, listener_id: str) -> tuple[Listener, Test]:
    """A listener and their test; NotFound where there is none."""
    row = session.execute(_LISTENER, {"listener": listener_id}).one_or_none()
    if row is None:
        raise NotFound(f"there is no listener {listener_id[:40]!r}")
    return row[0], row[1]


def session_state(session: Session, listener_id: str) -> ListenerSession:
    """Where a listener is, and what the page needs to know about the test."""
    listener, test = listener_and_test(session, listener_id)
    settings = settings_of(test)
    answered, total = counts_of(session, listener)
    return ListenerSession(
        state=_state(listener, test, settings),  # type: ignore[arg-type]
        kind=test.kind,  # type: ignore[arg-type]
        question=test.question,
        instructions=test.instructions,
        consent=test.consent,
        screening=settings.screening,
        minimum_listening=settings.minimum_listening,
        ties=settings.ties,
        both_bad=settings.both_bad,
        strength=settings.strength,
        comment=settings.comment,
        answered=answered,
        total=total,
        completion_code=listener.completion_code,
    )


def _state(listener: Listener, test: Test, settings: TestSettings) -> str:
    if listener.completed_at is not None:
        return "completed"
    if listener.screening is not None and listener.screening["passed"] is False:
        return "screened-out"
    if test.status != "open":
        return "closed"
    if listener.consented_at is None:
        return "consent"
    if listener.screening is not None and listener.screening["passed"] is None:
        return "screening"
    return "listening"


def counts_of(session: Session, listener: Listener) -> tuple[int, int]:
    """How many of a listener's assignments are answered, and how many there are or will be."""
    answered, given = session.execute(_PROGRESS, {"listener": listener.id}).one()
    return int(answered), int(given if listener.plan is None else listener.plan["total"])


def check_listening(listener: Listener, test: Test, settings: TestSettings) -> None:
    """Conflict, Forbidden or Gone, with what to do, where a listener has nothing to answer now."""
    state = _state(listener, test, settings)
    if state == "consent":
        raise Conflict("read the consent text and agree first")
    if state == "screening":
        raise Conflict("finish the headphone screening first")
    if state == "screened-out":
        raise Forbidden("this test needs headphones, and the screening was not passed; thank you for trying")
    if state == "closed":
        raise Gone("this test is closed; all your answers so far are kept, thank you")


def complete(session: Session, listener: Listener) -> None:
    """Give a listener who answered everything a completion code."""
    listener.completed_at = now()
    listener.completion_code = "".join(secrets.choice(CODE_LETTERS) for _ in range(10))
    publish(session, "listener", listener.test_id, {"listener": listener.id})


def completion_code(session: Session, listener_id: str) -> str:
    """The code of a listener who is done; Conflict for others."""
    listener = by_id(session, Listener, listener_id)
    if listener.completion_code is None:
        answered, total = counts_of(session, listener)
        raise Conflict(f"the test is not complete: {answered} of {total} answered")
    return listener.completion_code
