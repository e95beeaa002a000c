"""Preference pairs: candidates and what they scored, the pairs chosen among them, and the files that hold both.

A pairs folder has `pairs.jsonl` and the audio that its lines name; docs/recipes.md describes the lines. The same file,
written by others, is taken in the place of one's own.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plaudit.corpus.shard_set import ShardSet
from plaudit.errors import CorpusError
from plaudit.storage import to_json, write_atomically
from plaudit.training.data import Source
from plaudit.training.settings import PairSettings

PAIRS, CANDIDATES, SHARDS = "pairs.jsonl", "candidates.jsonl", "shards"


@dataclass(frozen=True)
class Candidate:
    """One clip made for a caption. `clip` is its file, relative to the folder; `score` what it was asked for."""

    clip: str
    caption: str
    reward: float
    clap: float
    score: float | None = None


@dataclass(frozen=True)
class Pair:
    """Two clips of one caption, of which the first is preferred, by `margin` where that was measured."""

    caption: str
    winner: str
    loser: str
    margin: float | None = None
    score: float | None = None


def choose_pairs(candidates: list[Candidate], settings: PairSettings) -> list[Pair]:
    """Best against worst of each caption's candidates, then second best against second worst, and so on, filtered.

    The paper makes one pair of a caption, by CLAP. Captions with one candidate make none.
    """
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.caption, []).append(candidate)
    pairs = []
    for caption, members in groups.items():
        values = {member.clip: float(getattr(member, settings.criterion)) for member in members}
        ranked = sorted(members, key=lambda m: values[m.clip])
        for rank in range(min(settings.per_caption, len(ranked) // 2)):
            worst, best = ranked[rank], ranked[-1 - rank]
            pairs.append(Pair(caption, best.clip, worst.clip, values[best.clip] - values[worst.clip], best.score))
    return filtered(pairs, settings)


def filtered(pairs: list[Pair], settings: PairSettings) -> list[Pair]:
    """The pairs of at least `min_margin`, widest first, at most `per_caption` of a caption and `pairs` in all.

    Pairs that state no margin keep their order behind those that do; CorpusError where a least margin is asked of them.
    """
    if settings.min_margin and any(pair.margin is None for pair in pairs):
        raise CorpusError("a pair states no margin, so min_margin can't hold for it; state it, or set min_margin=0")
    found: list[Pair] = []
    seen: Counter[str] = Counter()
    for pair in sorted(pairs, key=lambda p: math.inf if p.margin is None else -p.margin):
        wide = pair.margin is None or pair.margin >= settings.min_margin
        if wide and seen[pair.caption] < settings.per_caption:
            seen[pair.caption] += 1
            found.append(pair)
    return found[: settings.pairs]


def write_lines(path: Path, rows: list[Pair] | list[Candidate]) -> None:
    """One JSON object a line, whole or not at all."""
    write_atomically(path, "".join(to_json(asdict(row)) + "\n" for row in rows))


def read_candidates(folder: Path) -> list[Candidate]:
    """The candidates of a pairs folder; empty where the pairs came from elsewhere."""
    path = folder / CANDIDATES
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    return [Candidate(**json.loads(line)) for line in lines if line]


def pairs_file(place: Path) -> Path:
    """The file itself, or the one in a folder; CorpusError where there is none."""
    path = place / PAIRS if place.is_dir() else place
    if not path.is_file():
        raise CorpusError(f"{path} does not exist; name a {PAIRS} file or the folder that holds it")
    return path


def read_pairs(place: Path) -> list[Pair]:
    """The pairs of a file or folder; CorpusError naming the line of what is malformed."""
    path, found = pairs_file(place), []
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise CorpusError(f"{path} is not UTF-8; save it as UTF-8") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(_pair(json.loads(line)))
            except ValueError as error:
                told = "it is not JSON" if isinstance(error, json.JSONDecodeError) else error
                raise CorpusError(f"{path} line {number}: {told}") from None
    if not found:
        raise CorpusError(f"{path} holds no pairs; add some, one JSON object a line")
    return found


def _pair(row: Any) -> Pair:
    """One line as a Pair; ValueError that says what is wrong. Keys that are not ours are somebody's notes."""
    if not isinstance(row, dict):
        raise ValueError("a pair is an object with caption, winner and loser")
    texts: dict[str, Any] = {name: row.get(name) for name in ("caption", "winner", "loser")}
    if wrong := [name for name, value in texts.items() if not isinstance(value, str) or not value.strip()]:
        raise ValueError(f"{wrong[0]} must be a text that is not empty")
    if texts["winner"] == texts["loser"]:
        raise ValueError("winner and loser are the same file")
    numbers: dict[str, Any] = {name: row.get(name) for name in ("margin", "score")}
    for name, value in numbers.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value != value):
            raise ValueError(f"{name} must be a number or null, not {value!r}")
    return Pair(**texts, **numbers)


def clips_of(pairs: list[Pair]) -> dict[str, str]:
    """The caption of every clip in `pairs`, in their order; CorpusError where one stands under two captions."""
    captions: dict[str, str] = {}
    for pair in pairs:
        for clip in (pair.winner, pair.loser):
            if captions.setdefault(clip, pair.caption) != pair.caption:
                raise CorpusError(f"clip {clip} stands under two captions in {PAIRS}; a clip has one")
    return captions


def pair_sources(folder: Path) -> tuple[Source, Source]:
    """Winners and losers of a pairs folder, pair by pair, with the score that they were asked for as their condition.

    Pairs of which a clip could not be used as audio are left out; CorpusError where none is left.
    """
    shards = ShardSet(folder / SHARDS, verify=False)
    row_of = {id: row for row, id in enumerate(shards.ids)}
    usable = [pair for pair in read_pairs(folder) if pair.winner in row_of and pair.loser in row_of]
    if not usable:
        raise CorpusError(f"no pair in {folder} has two clips that can be used; see {folder / SHARDS}/quarantine.jsonl")
    scores = np.array([np.nan if pair.score is None else pair.score for pair in usable])
    winners, losers = (
        Source(shards, np.array([row_of[getattr(pair, side)] for pair in usable]), scores)
        for side in ("winner", "loser")
    )
    return winners, losers
