"""Listeners: from opening an invitation to the completion code. Every function works in the caller's transaction.

    consent -> screening, where the test has one -> listening: practice, pairs with hidden checks -> completed

What a listener gets is drawn when listening begins and stored as assignments. With active pairing, practice pairs and
attention checks are; each other pair is chosen when its turn comes, and stays until it is answered. What a listener
sees names no system, file or clip: audio has the address of its assignment and side. Answers are in `answers`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import bindparam, case, func, insert, select
from sqlalchemy.orm import Session, aliased

from plaudit.studio.database import (
    Assignment,
    Clip,
    Database,
    Invitation,
    Listener,
    Pair,
    Prompt,
    Stimulus,
    Test,
    Vote,
    by_id,
    new_id,
    now,
    stamp,
)
from plaudit.studio.errors import Conflict, Forbidden, Gone, NotFound
from plaudit.studio.events import publish
from plaudit.studio.listening import design, screening
from plaudit.studio.listening.schemas import (
    Completed,
    ListenerSession,
    NextPage,
    NextPair,
    RatedClip,
    ScreeningState,
    TestSettings,
)
from plaudit.studio.lru_cache import LRUCache

ABANDONED = timedelta(hours=2)
"""After this time, pairs that a listener didn't answer count as not given, so that others get them (ours). A clock that
jumps only changes how evenly pairs are spread."""

CODE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Of completion codes: without letters and digits that are mistaken for each other."""

_AUDIO = re.compile(r"([A-Za-z0-9_-]{1,32})\.(left|right|reference|[0-9]{1,2})")
_TRIAL = re.compile(r"screening\.([0-9]{1,3})\.([0-5])")


def settings_of(test: Test) -> TestSettings:
    """The settings of a test."""
    return TestSettings.model_validate(test.settings["settings"])


# Statements of the requests that come often: making one takes SQLAlchemy longer than carrying it out.

_OF_LISTENER = Assignment.listener_id == bindparam("listener")
_LISTENER = select(Listener, Test).join(Test, Test.id == Listener.test_id).where(Listener.id == bindparam("listener"))
_PLACES = select(
    Assignment.id, Assignment.position, Assignment.pair_id, Assignment.swapped, Assignment.answered
).where(_OF_LISTENER)  # fmt: skip
_PROGRESS = select(
    func.coalesce(func.sum(case((Assignment.answered, 1), else_=0)), 0), func.count()
).where(_OF_LISTENER)  # fmt: skip
_ASSIGNMENT = select(Assignment).where(Assignment.id == bindparam("assignment"), _OF_LISTENER)
_NEW_ASSIGNMENT = insert(Assignment.__table__)  # type: ignore[arg-type]


# Enrolment


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
    _check_open(test)
    _check_places(session, invitation)
    row = Listener(test_id=test.id, invitation_id=invitation.id, user_agent=(user_agent or "")[:300] or None)
    session.add(row)
    session.flush()
    return row


def consent(session: Session, listener_id: str) -> None:
    """Record that a listener consented; where there is no screening, listening begins."""
    listener, test = _who(session, listener_id)
    if listener.consented_at is not None:
        return
    _check_open(test)
    invitation = by_id(session, Invitation, listener.invitation_id)
    if invitation.revoked:
        raise Gone("this invitation was withdrawn; ask for another")
    _check_places(session, invitation)
    listener.consented_at = now()
    settings = settings_of(test)
    if settings.screening == "none":
        _begin(session, listener, test, settings)
    else:
        listener.screening = {"kind": settings.screening, "seed": secrets.randbits(48), "attempts": [], "passed": None}
    publish(session, "listener", test.id, {"listener": listener.id})


def _check_open(test: Test) -> None:
    if test.status == "closed":
        raise Gone("this test is closed; thank you for your interest")
    if test.status != "open":
        raise Conflict("this test is not open yet; try again later")


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


def _who(session: Session, listener_id: str) -> tuple[Listener, Test]:
    row = session.execute(_LISTENER, {"listener": listener_id}).one_or_none()
    if row is None:
        raise NotFound(f"there is no listener {listener_id[:40]!r}")
    return row[0], row[1]


# Screening


def screening_state(session: Session, listener_id: str) -> ScreeningState:
    """The screening of a listener; Conflict where the test has none or consent is missing."""
    listener, test = _who(session, listener_id)
    state = _screening(listener)
    kind, number = state["kind"], len(state["attempts"])
    over = state["passed"] is not None
    return ScreeningState(
        kind=kind,
        question=screening.QUESTION[kind],
        sounds=screening.INTERVALS,
        audio=[] if over else [audio_address(f"screening.{number}.{i}") for i in range(screening.TRIALS)],
        attempts_left=0 if over else settings_of(test).screening_attempts - number,
        passed=state["passed"],
    )


def answer_screening(session: Session, listener_id: str, answers: Sequence[int]) -> None:
    """Evaluate the answers of an attempt; who passes goes on, who fails the last attempt is screened out.

    The last attempt's answers again, sent after it was over, change nothing.
    """
    listener, test = _who(session, listener_id)
    state = dict(_screening(listener))
    attempts = list(state["attempts"])
    if state["passed"] is not None:
        if attempts and attempts[-1]["answers"] == list(answers):
            return
        raise Conflict("the screening is over; go on with the test")
    _check_open(test)
    settings = settings_of(test)
    passed, right = screening.passes(state["kind"], trial_seed(state, len(attempts)), answers)
    attempts.append({"answers": list(answers), "right": right})
    final = passed or len(attempts) >= settings.screening_attempts
    listener.screening = {**state, "attempts": attempts, "passed": passed if final else None}
    if passed:
        _begin(session, listener, test, settings)
    elif final:
        listener.excluded = {"reasons": [f"failed the headphone screening ({right} of {screening.TRIALS} right)"]}


def _screening(listener: Listener) -> dict[str, Any]:
    if listener.consented_at is None:
        raise Conflict("read the consent text and agree first")
    if listener.screening is None:
        raise Conflict("this test has no screening; go on with the pairs")
    return listener.screening


def trial_seed(state: dict[str, Any], attempt: int) -> int:
    """The seed of an attempt: each has trials of its own."""
    return int(state["seed"]) * 1_000 + attempt


# The plan of a listener


def _begin(session: Session, listener: Listener, test: Test, settings: TestSettings) -> None:
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
    _assign(session, listener.id, given)


@dataclass(frozen=True)
class Place:
    """An assignment of a listener: what of it a request needs."""

    id: str
    position: int
    pair_id: str
    swapped: bool
    answered: bool


def _assign(session: Session, listener_id: str, places: Sequence[Place]) -> None:
    if places:
        session.execute(_NEW_ASSIGNMENT, [{"listener_id": listener_id, **vars(place)} for place in places])


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
        .where(Listener.test_id == test_id, Assignment.answered | (Listener.created_at > _given_up()))
        .group_by(Assignment.pair_id, Assignment.swapped)
    )
    left: dict[str, int] = {}
    right: dict[str, int] = {}
    for pair, swapped, count in session.execute(query):
        (right if swapped else left)[pair] = count
    pairs = {pair: left.get(pair, 0) + right.get(pair, 0) for pair in left.keys() | right.keys()}
    return design.Exposure(pairs, left, right)


def _given_up() -> str:
    """Listeners who began before this time, as `created_at` has it, count as having given up."""
    return stamp(datetime.now(UTC) - ABANDONED)


# Where a listener is


def session_state(session: Session, listener_id: str) -> ListenerSession:
    """Where a listener is, and what the page needs to know about the test."""
    listener, test = _who(session, listener_id)
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
    """An error, in one line, unless the listener may answer now."""
    state = _state(listener, test, settings)
    if state == "consent":
        raise Conflict("read the consent text and agree first")
    if state == "screening":
        raise Conflict("finish the headphone screening first")
    if state == "screened-out":
        raise Forbidden("this test needs headphones, and the screening was not passed; thank you for trying")
    if state == "closed":
        raise Gone("this test is closed; all your answers so far are kept, thank you")


def next_item(session: Session, listener_id: str, root: Path) -> NextPair | NextPage | Completed | None:
    """What a listener is to answer; None where that has to be determined first, by `advance`.

    It is the first assignment that is not answered and whose clips are there, if no pair before it is to be chosen.
    """
    listener, test = _who(session, listener_id)
    if listener.completed_at is not None:
        return Completed(completion_code=str(listener.completion_code))
    check_listening(listener, test, settings_of(test))
    places, progress = _open_places(session, listener)
    for place in places:
        if isinstance(place, int):
            return None
        content = content_of(session, place.pair_id)
        if _are_there(content.clips, root):
            return _item(place, content, progress[1], settings_of(test))
    return None


def _open_places(session: Session, listener: Listener) -> tuple[list[Place | int], tuple[int, int]]:
    """The assignments of a listener that are not answered, and the positions of slots without one, in order; and how
    many are answered, of how many."""
    places: dict[int, Place | int] = {place.position: place for place in _places(session, listener.id)}
    for slot in () if listener.plan is None else listener.plan["slots"]:
        places.setdefault(int(slot), int(slot))
    waiting = [place for _, place in sorted(places.items()) if isinstance(place, int) or not place.answered]
    return waiting, (len(places) - len(waiting), len(places))


def _places(session: Session, listener_id: str) -> list[Place]:
    return [Place(*row) for row in session.execute(_PLACES, {"listener": listener_id})]


def _are_there(clips: Iterable[ClipFile], root: Path) -> bool:
    return all((root / clip.path).is_file() for clip in clips)


_choosing = threading.Lock()
"""Held from before a pair is chosen until its assignment is stored: who comes next knows of it. A database has one
server, so that a lock of the process is enough."""


def advance(database: Database, listener_id: str, root: Path) -> NextPair | NextPage | Completed:
    """What a listener is to answer: chooses the pair where that is due, and completes the test where nothing is left.

    Gone where clips are missing and the listener could not answer anything.
    """
    with _choosing:
        with database.reading() as session:
            listener, test = _who(session, listener_id)
            following = _following(session, listener, test, root)
        if isinstance(following, (NextPair, NextPage)):
            return following
        with database.transaction() as session:
            listener, test = _who(session, listener_id)
            check_listening(listener, test, settings_of(test))
            if following is not None:
                position, chosen = following
                place = Place(new_id(), position, chosen.pair.id, chosen.swapped, False)
                _assign(session, listener.id, [place])
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
            if _are_there(content.clips, root):
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
        for place in _places(session, listener.id)
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
        return _are_there(content_of(session, pair.id).clips, root)

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
        .where(Assignment.answered | (Listener.created_at > _given_up()))
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


# Audio


def audio_address(name: str) -> str:
    """The address of audio for a listener."""
    return f"/api/v1/listen/audio/{name}"


@dataclass(frozen=True)
class ClipFile:
    """A clip of a test. path: relative to the studio's folder."""

    stimulus: str
    path: str
    seconds: float


@dataclass(frozen=True)
class PairContent:
    """What there is to hear in a pair: clips a and b; of a rating page all, in the order of their rows.

    reference: of a rating page that has one, which of the clips it is.
    """

    kind: str
    prompt: str
    clips: tuple[ClipFile, ...]
    reference: int | None


_contents: LRUCache[PairContent] = LRUCache(50_000)


def content_of(session: Session, pair_id: str) -> PairContent:
    """What there is to hear in a pair."""
    return _contents.get_or_compute(pair_id, lambda: _read_content(session, pair_id))


def _read_content(session: Session, pair_id: str) -> PairContent:
    pair, prompt, test = session.execute(
        select(Pair, Prompt.text, Test)
        .join(Prompt, Prompt.id == Pair.prompt_id)
        .join(Test, Test.id == Pair.test_id)
        .where(Pair.id == pair_id)
    ).one()
    query = select(Stimulus.id, Clip.path, Clip.duration).join(Clip, Clip.id == Stimulus.clip_id)
    page = pair.kind == "page"
    chosen = Stimulus.prompt_id == pair.prompt_id if page else Stimulus.id.in_([pair.stimulus_a, pair.stimulus_b])
    rows = session.execute(query.where(chosen).order_by(Stimulus.sequence)).all()
    clips = {id: ClipFile(id, path, seconds or 0.0) for id, path, seconds in rows}
    order = list(clips) if page else [pair.stimulus_a, pair.stimulus_b]
    has_reference = page and settings_of(test).reference is not None
    reference = order.index(pair.stimulus_a) if has_reference else None
    return PairContent(pair.kind, prompt, tuple(clips[id] for id in order), reference)


def clips_of(content: PairContent, assignment: Assignment | Place) -> dict[str, ClipFile]:
    """The clips of an assignment by the names that its listener knows: left and right; of a rating page 0, 1, 2 and on
    in the listener's order, and `reference` where there is one."""
    if content.kind != "page":
        sides = ("right", "left") if assignment.swapped else ("left", "right")
        return dict(zip(sides, content.clips, strict=True))
    by_stimulus = {clip.stimulus: clip for clip in content.clips}
    order = design.page_order(list(by_stimulus), seed_of(assignment.id))
    clips = {str(place): by_stimulus[stimulus] for place, stimulus in enumerate(order)}
    if content.reference is not None:
        clips["reference"] = content.clips[content.reference]
    return clips


def audio_of(session: Session, listener_id: str, name: str, root: Path) -> Path | bytes:
    """The file of a listener's audio, or the content of a screening's.

    NotFound for what is not this listener's, Gone where the file is missing.
    """
    unknown = NotFound("there is no such audio for you")
    if trial := _TRIAL.fullmatch(name):
        listener = by_id(session, Listener, listener_id)
        state = listener.screening
        attempt = int(trial[1])
        if state is None or state["passed"] is not None or attempt != len(state["attempts"]):
            raise unknown
        return screening.trial_audio(state["kind"], trial_seed(state, attempt), int(trial[2]))
    match = _AUDIO.fullmatch(name)
    if match is None:
        raise unknown
    assignment = session.scalar(_ASSIGNMENT, {"assignment": match[1], "listener": listener_id})
    if assignment is None:
        raise unknown
    clip = clips_of(content_of(session, assignment.pair_id), assignment).get(match[2])
    if clip is None:
        raise unknown
    path = root / clip.path
    if not path.is_file():
        raise Gone("this clip is gone; reload the page to go on with the next")
    return path
