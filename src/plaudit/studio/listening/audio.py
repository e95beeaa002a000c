"""What there is to hear in an assignment. Its audio has the address of the assignment and side, and names no system,
file or clip.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from plaudit.studio.database import Assignment, Clip, Listener, Pair, Prompt, Stimulus, Test, by_id
from plaudit.studio.errors import Gone, NotFound
from plaudit.studio.listening import design, screening
from plaudit.studio.listening.plans import Place, seed_of
from plaudit.studio.listening.sessions import settings_of
from plaudit.studio.lru_cache import LRUCache

_AUDIO = re.compile(r"([A-Za-z0-9_-]{1,32})\.(left|right|reference|[0-9]{1,2})")

_TRIAL = re.compile(r"screening\.([0-9]{1,3})\.([0-5])")


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


def are_there(clips: Iterable[ClipFile], root: Path) -> bool:
    """Whether the files of clips are there."""
    return all((root / clip.path).is_file() for clip in clips)


def audio_address(name: str) -> str:
    """The address of audio for a listener."""
    return f"/api/v1/listen/audio/{name}"


# Made once, as in `sessions`.
_ASSIGNMENT = select(Assignment).where(
    Assignment.id == bindparam("assignment"), Assignment.listener_id == bindparam("listener")
)


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
        return screening.trial_audio(state["kind"], screening.trial_seed(state, attempt), int(trial[2]))
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
