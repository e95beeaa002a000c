"""Answers of listeners: votes and ratings, each stored once.

An answer is one transaction, and is acknowledged only after it; the same answer again changes nothing. Every function
works in the caller's transaction.
"""

from __future__ import annotations

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import Session

from plaudit.studio.database import Assignment, Listener, Rating, Test, Vote
from plaudit.studio.errors import Conflict, NotFound, Unprocessable
from plaudit.studio.events import publish
from plaudit.studio.listening.audio import ClipFile, clips_of, content_of
from plaudit.studio.listening.schemas import Acknowledgement, RatingsRequest, Side, TestSettings, VoteRequest
from plaudit.studio.listening.sessions import check_listening, complete, counts_of, settings_of

# Made once: making a statement takes SQLAlchemy longer than carrying it out.

_ASSIGNED = (
    select(Assignment, Listener, Test)
    .join(Listener, Listener.id == Assignment.listener_id)
    .join(Test, Test.id == Listener.test_id)
    .where(Assignment.id == bindparam("assignment"), Assignment.listener_id == bindparam("listener"))
    # Two equal requests at once come one after the other (SQLite has one writer anyway).
    .with_for_update(of=Assignment)
)
_NEW_VOTE = insert(Vote.__table__)  # type: ignore[arg-type]
_SET_ANSWERED = (
    update(Assignment.__table__)  # type: ignore[arg-type]
    .where(Assignment.__table__.c.id == bindparam("assignment"))
    .values(answered=True)
)


def record_vote(session: Session, listener_id: str, vote: VoteRequest) -> Acknowledgement:
    """Store an answer about a pair. The same answer again is acknowledged again; another one is a Conflict."""
    assignment, listener, test = _assigned(session, listener_id, vote.assignment)
    content = content_of(session, assignment.pair_id)
    if content.kind == "page":
        raise Unprocessable("this is a rating page; send its values to /listen/ratings")
    winner = winner_of(vote.choice, assignment.swapped)
    if assignment.answered:
        stored = session.scalars(select(Vote).where(Vote.assignment_id == assignment.id)).one()
        if (stored.winner, stored.strength, stored.comment) != (winner, vote.strength, vote.comment or None):
            raise Conflict("this pair was answered already; reload the page to go on with the next")
        return _acknowledgement(session, assignment, listener)
    settings = settings_of(test)
    check_listening(listener, test, settings)
    _check_allowed(vote, settings)
    listened = {"left": vote.listened_left, "right": vote.listened_right}
    _check_listened(clips_of(content, assignment), listened, settings)
    sides: tuple[Side, Side] = ("right", "left") if assignment.swapped else ("left", "right")
    row = {
        "assignment_id": assignment.id,
        "winner": winner,
        "strength": vote.strength,
        "comment": vote.comment or None,
        "listened_a": listened[sides[0]],
        "listened_b": listened[sides[1]],
        "response_ms": vote.response_ms,
    }
    session.execute(_NEW_VOTE, row)
    return _answered(session, assignment, listener)


def record_ratings(session: Session, listener_id: str, ratings: RatingsRequest) -> Acknowledgement:
    """Store the values of a rating page. The same values again are acknowledged again; others are a Conflict."""
    assignment, listener, test = _assigned(session, listener_id, ratings.assignment)
    content = content_of(session, assignment.pair_id)
    if content.kind != "page":
        raise Unprocessable("this is a pair; send the choice to /listen/votes")
    clips = {name: clip for name, clip in clips_of(content, assignment).items() if name != "reference"}
    if set(ratings.values) != set(clips):
        raise Unprocessable(f"give each of the {len(clips)} clips a value")
    values = {clips[name].stimulus: float(value) for name, value in ratings.values.items()}
    if assignment.answered:
        query = select(Rating.stimulus_id, Rating.value).where(Rating.assignment_id == assignment.id)
        if dict(session.execute(query).all()) != values:  # type: ignore[arg-type]
            raise Conflict("this page was answered already; reload the page to go on with the next")
        return _acknowledgement(session, assignment, listener)
    settings = settings_of(test)
    check_listening(listener, test, settings)
    _check_listened(clips, {name: ratings.listened.get(name, 0.0) for name in clips}, settings)
    rows = [
        {"assignment_id": assignment.id, "stimulus_id": stimulus, "value": value} for stimulus, value in values.items()
    ]
    session.execute(insert(Rating), rows)
    return _answered(session, assignment, listener)


def winner_of(choice: str, swapped: bool) -> str:
    """The winner among a pair's a and b, by the side that was chosen."""
    if choice in ("left", "right"):
        return "a" if (choice == "left") != swapped else "b"
    return choice


def _assigned(session: Session, listener_id: str, assignment_id: str) -> tuple[Assignment, Listener, Test]:
    row = session.execute(_ASSIGNED, {"assignment": assignment_id, "listener": listener_id}).one_or_none()
    if row is None:
        raise NotFound("this pair is not yours to answer; reload the page")
    return row[0], row[1], row[2]


def _check_allowed(vote: VoteRequest, settings: TestSettings) -> None:
    if vote.choice == "tie" and not settings.ties:
        raise Unprocessable("this test has no ties; choose the clip that you like a little better")
    if vote.choice == "both_bad" and not settings.both_bad:
        raise Unprocessable("this test does not offer 'both bad'; choose the clip that you like a little better")
    if vote.strength is not None and not settings.strength:
        raise Unprocessable("this test does not ask for a strength; leave it out")
    if vote.comment and not settings.comment:
        raise Unprocessable("this test takes no comments; leave it out")


def _check_listened(clips: dict[str, ClipFile], listened: dict[str, float], settings: TestSettings) -> None:
    for side, seconds in listened.items():
        least = min(settings.minimum_listening, clips[side].seconds)
        # Players report in steps of some milliseconds.
        if seconds < least - 0.05:
            what = f"the {side} clip" if side in ("left", "right") else f"clip {int(side) + 1}"
            raise Unprocessable(f"listen to {what} for at least {least:g} s before you answer")


def _answered(session: Session, assignment: Assignment, listener: Listener) -> Acknowledgement:
    session.execute(_SET_ANSWERED, {"assignment": assignment.id})
    publish(session, "vote", listener.test_id, {"listener": listener.id})
    acknowledgement = _acknowledgement(session, assignment, listener)
    if acknowledgement.answered == acknowledgement.total:
        complete(session, listener)
        acknowledgement.completed = True
    return acknowledgement


def _acknowledgement(session: Session, assignment: Assignment, listener: Listener) -> Acknowledgement:
    answered, total = counts_of(session, listener)
    return Acknowledgement(
        assignment=assignment.id, answered=answered, total=total, completed=listener.completed_at is not None
    )
