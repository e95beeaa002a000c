"""Enrolment of listeners: from an invitation to consent."""

from __future__ import annotations

import secrets

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from plaudit.studio.database import Invitation, Listener, Test, by_id, now
from plaudit.studio.errors import Gone
from plaudit.studio.events import publish
from plaudit.studio.listening.plans import begin
from plaudit.studio.listening.sessions import check_open, listener_and_test, settings_of


def enrol(session: Session, invitation: Invitation, user_agent: str | None) -> Listener:
    """A listener for an invitation. A personal one, for a single listener, continues where it was.

    Conflict where the test is not open, Gone where it is closed or has all its listeners.
    """
    test = by_id(session, Test, invitation.test_id)
    if invitation.max_listeners == 1:
        first = session.scalar(
            select(Listener).where(Listener.invitation_id == invitation.id).order_by(Listener.sequence)
        )
        if first is not None:
            return first
    check_open(test)
    _check_places(session, invitation)
    row = Listener(test_id=test.id, invitation_id=invitation.id, user_agent=(user_agent or "")[:300] or None)
    session.add(row)
    session.flush()
    return row


def consent(session: Session, listener_id: str) -> None:
    """Record that a listener consented; where there is no screening, listening begins."""
    listener, test = listener_and_test(session, listener_id)
    if listener.consented_at is not None:
        return
    check_open(test)
    invitation = by_id(session, Invitation, listener.invitation_id)
    if invitation.revoked:
        raise Gone("this invitation was withdrawn; ask for another")
    _check_places(session, invitation)
    listener.consented_at = now()
    settings = settings_of(test)
    if settings.screening == "none":
        begin(session, listener, test, settings)
    else:
        listener.screening = {"kind": settings.screening, "seed": secrets.randbits(48), "attempts": [], "passed": None}
    publish(session, "listener", test.id, {"listener": listener.id})


def _check_places(session: Session, invitation: Invitation) -> None:
    if invitation.max_listeners is None:
        return
    taken = session.scalar(
        select(func.count())
        .select_from(Listener)
        .where(Listener.invitation_id == invitation.id, Listener.consented_at.is_not(None))
    )
    if (taken or 0) >= invitation.max_listeners:
        raise Gone("this test has all the listeners it needs; thank you for your interest")
