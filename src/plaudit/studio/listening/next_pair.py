"""What a listener is to answer next; with active pairing, chosen by the votes so far."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from plaudit.studio.database import Assignment, Database, Listener, Pair, Stimulus, Test, Vote, new_id
from plaudit.studio.errors import Gone
from plaudit.studio.listening import design
from plaudit.studio.listening.audio import PairContent, are_there, audio_address, clips_of, content_of
from plaudit.studio.listening.plans import Place, assign, design_table, exposure_of, given_up, places_of, seed_of
from plaudit.studio.listening.schemas import Completed, NextPage, NextPair, RatedClip, TestSettings
from plaudit.studio.listening.sessions import check_listening, complete, counts_of, listener_and_test, settings_of


def next_item(session: Session, listener_id: str, root: Path) -> NextPair | NextPage | Completed | None:
    """What a listener is to answer; None where that has to be determined first, by `advance`.

    It is the first assignment that is not answered and whose clips are there, if no pair before it is to be chosen.
    """
    listener, test = listener_and_test(session, listener_id)
    if listener.completed_at is not None:
        return Completed(completion_code=str(listener.completion_code))
    check_listening(listener, test, settings_of(test))
    places, progress = _open_places(session, listener)
    for place in places:
        if isinstance(place, int):
            return None
        content = content_of(session, place.pair_id)
        if are_there(content.clips, root):
            return _item(place, content, progress[1], settings_of(test))
    return None


def _open_places(session: Session, listener: Listener) -> tuple[list[Place | int], tuple[int, int]]:
    """The assignments of a listener that are not answered, and the positions of slots without one, in order; and how
    many are answered, of how many."""
    places: dict[int, Place | int] = {place.position: place for place in places_of(session, listener.id)}
    for slot in () if listener.plan is None else listener.plan["slots"]:
        places.setdefault(int(slot), int(slot))
    waiting = [place for _, place in sorted(places.items()) if isinstance(place, int) or not place.answered]
    return waiting, (len(places) - len(waiting), len(places))


_choosing = threading.Lock()
"""Held from before a pair is chosen until its assignment is stored: who comes next knows of it. A database has one
server, so that a lock of the process is enough."""


def advance(database: Database, listener_id: str, root: Path) -> NextPair | NextPage | Completed:
    """What a listener is to answer: chooses the pair where that is due, and completes the test where nothing is left.

    Gone where clips are missing and the listener could not answer anything.
    """
    with _choosing:
        with database.reading() as session:
            listener, test = listener_and_test(session, listener_id)
            following = _following(session, listener, test, root)
        if isinstance(following, (NextPair, NextPage)):
            return following
        with database.transaction() as session:
            listener, test = listener_and_test(session, listener_id)
            check_listening(listener, test, settings_of(test))
            if following is not None:
                position, chosen = following
                place = Place(new_id(), position, chosen.pair.id, chosen.swapped, False)
                assign(session, listener.id, [place])
                total = counts_of(session, listener)[1]
                return _item(place, content_of(session, place.pair_id), total, settings_of(test))
            if not counts_of(session, listener)[0]:
                raise Gone("the clips of this test are gone; please tell the person who invited you")
            complete(session, listener)
            return Completed(completion_code=str(listener.completion_code))


def _following(
    session: Session, listener: Listener, test: Test, root: Path
) -> NextPair | NextPage | tuple[int, design.Presentation] | None:
    """What a listener is to answer, or the pair to give at a position; None where nothing is left."""
    places, progress = _open_places(session, listener)
    for place in places:
        if isinstance(place, Place):
            content = content_of(session, place.pair_id)
            if are_there(content.clips, root):
                return _item(place, content, progress[1], settings_of(test))
        elif (chosen := _chosen(session, listener, place, root)) is not None:
            return place, chosen
    return None


def _chosen(session: Session, listener: Listener, position: int, root: Path) -> design.Presentation | None:
    """What to give a listener at a slot, by the votes so far; None where no pair is left whose clips are there."""
    from plaudit.studio.listening.active import choose_comparison  # it takes a while to import

    table = design_table(session, listener.test_id)
    by_id = {pair.id: pair for pair in table.pairs}
    before = {
        place.position: design.Presentation(by_id[place.pair_id], place.swapped)
        for place in places_of(session, listener.id)
        if place.position < position
    }
    assert listener.plan is not None  # it has slots
    slot = design.Slot(listener.plan["slots"][str(position)])
    rng = np.random.default_rng([seed_of(listener.id), position])
    systems = sorted({system for pair in table.comparisons for system in pair})
    tallies = None if slot.repeats is not None else _tallies(session, listener.test_id, systems)

    def choose(comparisons: Sequence[tuple[str, str]]) -> int:
        assert tallies is not None  # of a regular pair
        wins, ties, pending = tallies
        places = [[systems.index(system) for system in pair] for pair in comparisons]
        return choose_comparison(wins, ties, pending, places, rng)

    def usable(pair: design.Pair) -> bool:
        return are_there(content_of(session, pair.id).clips, root)

    exposure = exposure_of(session, listener.test_id)
    return design.choose_presentation(slot, table, before, exposure, choose, rng, usable)


def _tallies(session: Session, test_id: str, systems: Sequence[str]) -> np.ndarray:
    """Wins, ties, and questions that are out and not answered, among systems: [3, K, K] as `choose_comparison` takes
    them."""
    a, b = aliased(Stimulus), aliased(Stimulus)
    query = (
        select(a.system_id, b.system_id, Vote.winner, func.count())
        .select_from(Assignment)
        .join(Pair, Pair.id == Assignment.pair_id)
        .join(a, a.id == Pair.stimulus_a)
        .join(b, b.id == Pair.stimulus_b)
        .join(Listener, Listener.id == Assignment.listener_id)
        .outerjoin(Vote, Vote.assignment_id == Assignment.id)
        .where(Listener.test_id == test_id, Pair.kind == "regular")
        .where(Assignment.answered | (Listener.created_at > given_up()))
        .group_by(a.system_id, b.system_id, Vote.winner)
    )
    place = {system: k for k, system in enumerate(systems)}
    wins, ties, pending = tallies = np.zeros((3, len(systems), len(systems)))
    for first, second, winner, count in session.execute(query):
        i, j = place[first], place[second]
        if winner is None:
            pending[i, j] += count
        elif winner == "tie":
            ties[[i, j], [j, i]] += count
        elif winner != "both_bad":
            wins[(i, j) if winner == "a" else (j, i)] += count
    return tallies


def _item(assignment: Place, content: PairContent, total: int, settings: TestSettings) -> NextPair | NextPage:
    clips = clips_of(content, assignment)
    prompt = content.prompt if settings.show_prompt else None
    seconds = min(clip.seconds for clip in clips.values())
    least = min(settings.minimum_listening, seconds)
    if content.kind == "page":
        return NextPage(
            assignment=assignment.id,
            position=assignment.position + 1,
            total=total,
            prompt=prompt,
            reference=audio_address(f"{assignment.id}.reference") if "reference" in clips else None,
            clips=[
                RatedClip(id=name, audio=audio_address(f"{assignment.id}.{name}"))
                for name in clips
                if name != "reference"
            ],
            seconds=seconds,
            minimum_listening=least,
        )
    return NextPair(
        assignment=assignment.id,
        position=assignment.position + 1,
        total=total,
        practice=content.kind == "practice",
        prompt=prompt,
        left=audio_address(f"{assignment.id}.left"),
        right=audio_address(f"{assignment.id}.right"),
        seconds=seconds,
        minimum_listening=least,
    )
