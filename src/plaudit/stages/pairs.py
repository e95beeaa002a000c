"""Preference pairs: candidates with their scores, the pairs chosen among them, and the files that hold both.

A pairs folder has `pairs.jsonl` and the audio that its lines name; docs/recipes.md describes the lines. A file of the
same format from elsewhere can take the place of the run's candidates.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from plaudit.corpus.shard_set import ShardSet
from plaudit.errors import CorpusError
from plaudit.settings import MOST, Count, NotNegative, Seed
from plaudit.stages import Costs, Stage, StageSettings, StepCost
from plaudit.stages.inputs import StageInputs
from plaudit.storage import digest_of, file_digest, to_json, write_atomically, write_json
from plaudit.tables import read_json_lines
from plaudit.training.data import Source

PAIRS, CANDIDATES, SHARDS, AUDIO = "pairs.jsonl", "candidates.jsonl", "shards", "clips"


class PairSettings(StageSettings):
    """Several candidates for each of `captions`, and pairs of those that differ in reward or CLAP score.

    criterion: the score that pairs are chosen by; the paper's is CLAP. pairs: at most so many, those of widest margin.
    per_caption: at most so many of a caption, which share no clip. min_margin: pairs that differ less are left out.
    read_from: a pairs file, or its folder, instead of the run's candidates (docs/recipes.md has the format);
    the filters apply to it where it states margins.
    """

    captions: Count = 64
    candidates: Annotated[int, Field(ge=2, le=MOST)] = 4
    criterion: Literal["clap", "reward"] = "clap"
    pairs: Count = 64
    per_caption: Count = 1
    min_margin: NotNegative = 0.0
    read_from: Path | None = None
    seed: Seed = 5000

    @model_validator(mode="after")
    def _enough_candidates(self) -> PairSettings:
        if self.read_from is not None:
            return self
        if self.per_caption > self.candidates // 2:
            raise ValueError(
                f"{self.candidates} candidates make at most {self.candidates // 2} pairs per caption, not "
                f"per_caption ({self.per_caption})"
            )
        if self.pairs > self.captions * self.per_caption:
            raise ValueError(
                f"pairs ({self.pairs}) must not exceed captions x per_caption ({self.captions * self.per_caption})"
            )
        return self


@dataclass(frozen=True)
class Candidate:
    """One clip sampled for a caption. clip: its file, relative to the folder. score: its conditioning score."""

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

    Pairs that state no margin keep their order behind those that do; CorpusError where `min_margin` excludes them.
    """
    if settings.min_margin and any(pair.margin is None for pair in pairs):
        raise CorpusError("a pair states no margin, so min_margin can't hold for it; state it, or set min_margin=0")
    chosen: list[Pair] = []
    seen: Counter[str] = Counter()
    for pair in sorted(pairs, key=lambda p: math.inf if p.margin is None else -p.margin):
        wide = pair.margin is None or pair.margin >= settings.min_margin
        if wide and seen[pair.caption] < settings.per_caption:
            seen[pair.caption] += 1
            chosen.append(pair)
    return chosen[: settings.pairs]


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
    path, pairs = pairs_file(place), []
    for line, record in read_json_lines(path):
        try:
            pairs.append(_pair(record))
        except ValueError as error:
            raise CorpusError(f"{path} line {line}: {error}") from None
    if not pairs:
        raise CorpusError(f"{path} holds no pairs; add some, one JSON object a line")
    return pairs


def _pair(row: Any) -> Pair:
    """One line as a Pair; ValueError that says what is wrong. Unknown keys are ignored."""
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
    """Winners and losers of a pairs folder, pair by pair, with the conditioning scores they were sampled with.

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


class Pairs(Stage):
    """Sample, score and pair candidates, or read the pairs of `read_from`: both end in one folder of one format."""

    Settings = PairSettings
    uses = ("candidates",)
    makes = "pairs"

    def run(self, settings: PairSettings, inputs: StageInputs, folder: Path) -> None:
        """Write the candidates with their scores, if any, the pairs, and the latents of all clips."""
        if settings.read_from is None:
            candidates = sample_candidates(settings, inputs, folder)
            write_lines(folder / CANDIDATES, candidates)
            pairs, clips = (
                choose_pairs(candidates, settings),
                {c.clip: (c.caption, folder / c.clip) for c in candidates},
            )
        else:
            audio = pairs_file(settings.read_from).parent.resolve()
            pairs = filtered(read_pairs(settings.read_from), settings)
            clips = {clip: (caption, audio / clip) for clip, caption in clips_of(pairs).items()}
        if not pairs:
            raise CorpusError(f"no pair passes stages.{settings.name}.min_margin; lower it")
        encoded = inputs.encode(clips, folder / SHARDS)
        write_lines(folder / PAIRS, pairs)
        margins = [pair.margin for pair in pairs if pair.margin is not None]
        facts = {
            "captions": len({caption for caption, _ in clips.values()}),
            "clips": len(clips),
            "usable_clips": len(encoded),
            "pairs": len(pairs),
            "margin_mean": float(np.mean(margins)) if margins else None,
            "margin_least": min(margins, default=None),
        }
        write_json(folder / "facts.json", facts)

    def cost(self, settings: PairSettings, costs: Costs) -> StepCost:
        """Sampling and scoring of the candidates, or encoding of the clips that are read."""
        if settings.read_from is not None:
            try:
                pairs = min(len(read_pairs(settings.read_from)), settings.pairs)
            except CorpusError:
                return StepCost("pairs read", unknown="the pairs are not here")
            return StepCost(f"{pairs:,} pairs read", to_encode=2 * pairs)
        clips = settings.captions * settings.candidates
        what = f"{clips:,} clips sampled, at most {settings.pairs:,} pairs"
        return StepCost(what, sampling=costs.sampling(clips), to_encode=clips, to_decode=clips, to_embed=clips)

    def files(self, settings: PairSettings) -> dict[str, Callable[[], str]]:
        """The pairs file with the audio that it names."""
        return {} if settings.read_from is None else {"read_from": partial(pairs_digest, settings.read_from)}


def sample_candidates(settings: PairSettings, inputs: StageInputs, folder: Path) -> list[Candidate]:
    """The candidates of each caption, under the recipe's conditioning score, with their rewards and CLAP scores."""
    captions = inputs.captions(settings.captions, settings.seed)
    prompts = [caption for caption in captions for _ in range(settings.candidates)]
    clips = inputs.candidates(inputs.model(), prompts, settings.seed, inputs.sampling.score, folder / AUDIO)
    scores = zip(clips.paths, prompts, clips.reward.tolist(), clips.clap.tolist(), strict=True)
    return [
        Candidate(f"{AUDIO}/{path.name}", prompt, reward, clap, clips.score) for path, prompt, reward, clap in scores
    ]


def pairs_digest(place: Path) -> str:
    """A digest of a pairs file and of the audio that it names; "none" where it is missing or malformed."""
    try:
        file = pairs_file(place)
        clips = sorted({clip for pair in read_pairs(file) for clip in (pair.winner, pair.loser)})
    except CorpusError:
        return "none"
    audio = [path for clip in clips if (path := file.parent / clip).is_file()]
    return digest_of(*map(file_digest, [file, *audio]))
