"""What a listener gets: drawn when listening begins, and stored as assignments.

With active pairing, practice pairs and attention checks are drawn; the other pairs are slots of the plan, each chosen
when its turn comes (`next_pair`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from sqlalchemy import bindparam, func, insert, select
from sqlalchemy.orm import Session, aliased

from plaudit.studio.database import Assignment, Listener, Pair, Stimulus, Test, new_id, stamp
from plaudit.studio.listening import design
from plaudit.studio.listening.schemas import TestSettings
from plaudit.studio.lru_cache import LRUCache

ABANDONED = timedelta(hours=2)
"""After this time, pairs that a listener didn't answer count as not given, so that others get them (ours). A clock that
jumps only changes how evenly pairs are spread."""


@dataclass(frozen=True)
class Place:
    """An assignment of a listener: what of it a request needs."""

    id: str
    position: int
    pair_id: str
    swapped: bool
    answered: bool


# Made once: making a statement takes SQLAlchemy longer than carrying it out.

_PLACES = select(
    Assignment.id, Assignment.position, Assignment.pair_id, Assignment.swapped, Assignment.answered
).where(Assignment.listener_id == bindparam("listener"))  # fmt: skip


_NEW_ASSIGNMENT = insert(Assignment.__table__)  # type: ignore[arg-type]


def begin(session: Session, listener: Listener, test: Test, settings: TestSettings) -> None:
    """Draw what the listener gets, and store it as assignments; slots, which are filled later, in the plan."""
    table = design_table(session, test.id)
    exposure = exposure_of(session, test.id)
    rng = np.random.default_rng(seed_of(listener.id))
    counts = settings.pairs_per_listener, settings.repeats, settings.obvious, settings.practice
    plan: Sequence[design.Presentation | design.Slot]
    if test.kind == "rating":
        plan = design.page_plan(table.pairs, settings.pairs_per_listener, exposure, rng)
    elif settings.pairing == "active":
        plan = design.open_plan(table, *counts, exposure, rng)
    else:
        plan = design.listener_plan(table.pairs, *counts, exposure, rng)
    slots: dict[str, int | None] = {}
    given: list[Place] = []
    for position, one in enumerate(plan):
        if isinstance(one, design.Slot):
            slots[str(position)] = one.repeats
        else:
            given.append(Place(new_id(), position, one.pair.id, one.swapped, False))
    if slots:
        listener.plan = {"total": len(plan), "slots": slots}
    assign(session, listener.id, given)


def assign(session: Session, listener_id: str, places: Sequence[Place]) -> None:
    """Store assignments of a listener."""
    if places:
        session.execute(_NEW_ASSIGNMENT, [{"listener_id": listener_id, **vars(place)} for place in places])


def places_of(session: Session, listener_id: str) -> list[Place]:
    """The assignments of a listener."""
    return [Place(*row) for row in session.execute(_PLACES, {"listener": listener_id})]


def seed_of(id: str) -> int:
    """A seed that follows from an id."""
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:8])


_tables: LRUCache[design.PairTable] = LRUCache(16)


def design_table(session: Session, test_id: str) -> design.PairTable:
    """The pairs of a test that is prepared, as the design takes them."""
    return _tables.get_or_compute(test_id, lambda: _read_table(session, test_id))


def _read_table(session: Session, test_id: str) -> design.PairTable:
    a, b = aliased(Stimulus), aliased(Stimulus)
    query = (
        select(Pair.id, Pair.kind, Pair.prompt_id, Pair.stimulus_a, Pair.stimulus_b, a.system_id, b.system_id)
        .join(a, a.id == Pair.stimulus_a)
        .join(b, b.id == Pair.stimulus_b)
        .where(Pair.test_id == test_id)
        .order_by(Pair.sequence)
    )
    return design.PairTable.of([design.Pair(*row) for row in session.execute(query)])  # type: ignore[arg-type]


def exposure_of(session: Session, test_id: str) -> design.Exposure:
    """What the listeners of a test were given, without what those left unanswered who gave up."""
    query = (
        select(Assignment.pair_id, Assignment.swapped, func.count())
        .join(Listener, Listener.id == Assignment.listener_id)
        .where(Listener.test_id == test_id, Assignment.answered | (Listener.created_at > given_up()))
        .group_by(Assignment.pair_id, Assignment.swapped)
    )
    left: dict[str, int] = {}
    right: dict[str, int] = {}
    for pair, swapped, count in session.execute(query):
        (right if swapped else left)[pair] = count
    pairs = {pair: left.get(pair, 0) + right.get(pair, 0) for pair in left.keys() | right.keys()}
    return design.Exposure(pairs, left, right)


def given_up() -> str:
    """Listeners who began before this time, as `created_at` has it, count as having given up."""
    return stamp(datetime.now(UTC) - ABANDONED)
