"""Answers of a test as plain records, in the order in which they were given: for results, exports and training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from plaudit.studio.database import (
    Assignment,
    Clip,
    Listener,
    Pair,
    Prompt,
    Rating,
    Stimulus,
    System,
    Test,
    Vote,
)


@dataclass(frozen=True)
class VoteRecord:
    """One vote with all that is known about it. a, b: ids of clips; their files are called by them.

    winner: among a and b, whichever side they were on. swapped: a was on the right.
    """

    id: str
    sequence: int
    created_at: str
    listener: str
    pair: str
    kind: str
    position: int
    prompt: str
    a: str
    b: str
    system_a: str
    system_b: str
    reward_a: float | None
    reward_b: float | None
    winner: str
    swapped: bool
    strength: int | None
    comment: str | None
    listened_a: float
    listened_b: float
    response_ms: int

    @property
    def expected(self) -> str | None:
        """The right answer of an attention check: the clip that is not degraded."""
        return "a" if self.kind == "obvious" else None


@dataclass(frozen=True)
class RatingRecord:
    """One value that a listener gave to a clip on a page."""

    id: str
    sequence: int
    created_at: str
    listener: str
    page: str
    position: int
    prompt: str
    clip: str
    system: str
    value: float


def votes_of(session: Session, test_id: str) -> list[VoteRecord]:
    """All votes of a test."""
    a, b = aliased(Stimulus), aliased(Stimulus)
    system_a, system_b = aliased(System), aliased(System)
    clip_a, clip_b = aliased(Clip), aliased(Clip)
    query = (
        select(
            Vote.id, Vote.sequence, Vote.created_at, Assignment.listener_id, Pair.id, Pair.kind, Assignment.position,
            Prompt.text, clip_a.id, clip_b.id, system_a.name, system_b.name, clip_a.reward, clip_b.reward, Vote.winner,
            Assignment.swapped, Vote.strength, Vote.comment, Vote.listened_a, Vote.listened_b, Vote.response_ms,
        )
        .join(Assignment, Assignment.id == Vote.assignment_id)
        .join(Pair, Pair.id == Assignment.pair_id)
        .join(Prompt, Prompt.id == Pair.prompt_id)
        .join(a, a.id == Pair.stimulus_a)
        .join(b, b.id == Pair.stimulus_b)
        .join(system_a, system_a.id == a.system_id)
        .join(system_b, system_b.id == b.system_id)
        .join(clip_a, clip_a.id == a.clip_id)
        .join(clip_b, clip_b.id == b.clip_id)
        .where(Pair.test_id == test_id)
        .order_by(Vote.sequence)
    )  # fmt: skip
    return [VoteRecord(*tuple(row)) for row in session.execute(query)]


def ratings_of(session: Session, test_id: str) -> list[RatingRecord]:
    """All values of a rating test."""
    query = (
        select(
            Rating.id, Rating.sequence, Rating.created_at, Assignment.listener_id, Pair.id, Assignment.position,
            Prompt.text, Clip.id, System.name, Rating.value,
        )
        .join(Assignment, Assignment.id == Rating.assignment_id)
        .join(Pair, Pair.id == Assignment.pair_id)
        .join(Prompt, Prompt.id == Pair.prompt_id)
        .join(Stimulus, Stimulus.id == Rating.stimulus_id)
        .join(System, System.id == Stimulus.system_id)
        .join(Clip, Clip.id == Stimulus.clip_id)
        .where(Pair.test_id == test_id)
        .order_by(Rating.sequence)
    )  # fmt: skip
    return [RatingRecord(*tuple(row)) for row in session.execute(query)]


def count_answers(session: Session, test_id: str) -> int:
    """The number of a test's answers: votes, or rating pages."""
    query = (
        select(func.count())
        .select_from(Assignment)
        .join(Listener, Listener.id == Assignment.listener_id)
        .where(Listener.test_id == test_id, Assignment.answered.is_(True))
    )
    return session.scalar(query) or 0


def preference_record(vote: VoteRecord, test: Test) -> dict[str, Any]:
    """A vote in the package's vote schema, `plaudit.types.Vote`."""
    return {
        "id": vote.id,
        "prompt": vote.prompt,
        "a": vote.a,
        "b": vote.b,
        "winner": vote.winner,
        "system_a": vote.system_a,
        "system_b": vote.system_b,
        "source": f"studio:{test.id}",
        "listener": vote.listener,
    }


def screened_out(session: Session, test_id: str) -> dict[str, list[str]]:
    """Listeners who may not take part, with the reasons."""
    query = select(Listener.id, Listener.excluded).where(Listener.test_id == test_id, Listener.excluded.is_not(None))
    return {id: list(excluded["reasons"]) for id, excluded in session.execute(query) if excluded}


def systems_of(session: Session, test_id: str) -> list[System]:
    """The systems that a test compares, without those of checks."""
    rows = session.scalars(select(System).where(System.test_id == test_id).order_by(System.sequence))
    return [row for row in rows if "check" not in row.source]
