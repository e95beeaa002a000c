"""Simulated listeners: a fixed taste, and noisy votes sampled from it.

A clip's utility follows from the taste, the probes' predictions for the clip, and the caption it was generated for.
Listeners choose between two clips by a Bradley-Terry model of their utilities, with ties and a few contrarians. A
reward is trained on the votes only, so how well it learned the taste, and where it is exploited, can be measured. Ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from plaudit.corpus.sources import Rendering
from plaudit.errors import VoteError
from plaudit.synthetic.corpus import SyntheticClip
from plaudit.synthetic.flaws import FLAWS
from plaudit.synthetic.probes import TEMPI, Measurement
from plaudit.synthetic.truth import GENRES, INSTRUMENTS, KEYS, MODES, MOODS, Truth
from plaudit.types import Vote


@dataclass(frozen=True)
class Taste:
    """Weights of preferences, in units of Bradley-Terry utility (1 unit: chosen 73 % of the time).

    A match adds its weight times the probability that the clip has what the caption says; `instruments` is divided
    among those named. A flaw costs its weight times its severity. With these weights and the shipped probes, on pairs
    from the corpus flaws explain about 60 % and matches about 40 % of the difference in utility, utilities have a
    standard deviation of about 1.3, and the better clip wins 77 % of votes. A wrong genre is worse
    than a wrong key, and being out of tune or cut up is worse than hiss.
    """

    genre: float = 0.55
    mood: float = 0.45
    instruments: float = 0.6
    tempo: float = 0.3
    key: float = 0.2
    noise: float = 2.0
    detuned: float = 2.6
    clipped: float = 2.0
    out_of_time: float = 2.4
    bad_mix: float = 2.0
    dropouts: float = 2.6

    tempo_tolerance: float = 0.06
    """A tempo within this fraction of the caption's is right."""
    octave_credit: float = 0.5
    """Credit for half or double the caption's tempo; the tempo itself has 1."""
    relative_credit: float = 0.3
    """Credit for the relative key (A minor for C major); the key itself has 1."""


class Identified(Protocol):
    """A clip of the corpus or of a system."""

    @property
    def id(self) -> str:
        """Of the clip in votes."""


@dataclass(frozen=True)
class VotePair:
    """Two clips to be compared as renderings of `prompt`, which describes `truth`. systems: that made `a` and `b`.

    kind: of two clips of the corpus, one of which the prompt was written for, "near" where the other shares its genre
    or mood, else "any"; "systems" for two renderings of the prompt.
    """

    id: str
    prompt: str
    truth: Truth
    a: Identified
    b: Identified
    kind: str
    systems: tuple[str, str] = ("corpus", "corpus")


@dataclass(frozen=True)
class ListenerPopulation:
    """The voters. `tie_band`: a perceived difference in utility below this, noise included, is a tie.

    With logistic noise that is the tie model of Rao and Kupper (1967): P(a) = sigmoid(d - band),
    P(b) = sigmoid(-d - band) for a utility difference d. Contrarians perceive the opposite difference.
    """

    listeners: int = 60
    contrarian_fraction: float = 0.05
    tie_band: float = 0.15


def matches(measurement: Measurement, truths: Sequence[Truth], taste: Taste) -> dict[str, Tensor]:
    """How well each clip matches its truth, 0..1 by attribute, each [B]."""
    if len(truths) != len(measurement):
        raise VoteError(f"{len(measurement)} clips need as many captions, not {len(truths)}; give one for each")
    rows = torch.arange(len(truths))
    named = torch.tensor([[float(name in t.instruments) for name in INSTRUMENTS] for t in truths])
    tempo = torch.stack([tempo_credit(t.tempo, taste) for t in truths])
    key = torch.stack([key_credit(t.key, t.mode, taste) for t in truths])
    return {
        "genre": measurement.genre[rows, [GENRES.index(t.genre) for t in truths]],
        "mood": measurement.mood[rows, [MOODS.index(t.mood) for t in truths]],
        "instruments": (measurement.instruments * named).sum(1) / named.sum(1),
        "tempo": (measurement.tempo * tempo).sum(1),
        "key": (measurement.key * key).sum((1, 2)),
    }


def utility(measurement: Measurement, truths: Sequence[Truth], taste: Taste | None = None) -> Tensor:
    """Utility of each clip as a rendering of `truths[i]`: [B]. A flawless clip that matches nothing has 0."""
    taste = taste or Taste()
    matched = sum(getattr(taste, name) * value for name, value in matches(measurement, truths, taste).items())
    weights = torch.tensor([getattr(taste, name) for name in FLAWS])
    return matched - measurement.flaws @ weights


def tempo_credit(tempo: float, taste: Taste) -> Tensor:
    """Credit of each candidate of TEMPI for a caption with `tempo` bpm: [len(TEMPI)]."""
    off = torch.tensor([[abs(c / (tempo * factor) - 1) for factor in (1.0, 0.5, 2.0)] for c in TEMPI])
    credit = torch.tensor([1.0, taste.octave_credit, taste.octave_credit])
    return ((off < taste.tempo_tolerance) * credit).amax(1)


def key_credit(key: str, mode: str, taste: Taste) -> Tensor:
    """Credit of each key and mode for a caption with this one: [12, modes]."""
    credit = torch.zeros(len(KEYS), len(MODES))
    tonic = KEYS.index(key)
    if mode == "major":
        credit[(tonic + 9) % 12, MODES.index("minor")] = taste.relative_credit
    else:
        credit[(tonic + 3) % 12, MODES.index("major")] = taste.relative_credit
    credit[tonic, MODES.index(mode)] = 1.0
    return credit


def sample_vote_pairs(
    clips: Sequence[SyntheticClip], count: int, seed: int, near_fraction: float = 0.6, group: str = "pair"
) -> list[VotePair]:
    """`count` pairs of different `clips`, with the caption of either.

    A `near_fraction` of partners share genre or mood with the prompt; the rest are any clip. With the clips of one
    split, none leaks into another. VoteError where there are fewer than two clips.
    """
    if len(clips) < 2:
        raise VoteError(f"pairs need at least two clips, not {len(clips)}; use a larger corpus")
    random = np.random.default_rng([seed, 1])
    alike: dict[str, list[int]] = {}
    for index, clip in enumerate(clips):
        alike.setdefault(clip.truth.genre, []).append(index)
        alike.setdefault(clip.truth.mood, []).append(index)
    pairs = []
    for number in range(count):
        prompted = int(random.integers(len(clips)))
        truth = clips[prompted].caption_truth
        near = [i for i in alike.get(random.choice([truth.genre, truth.mood]), []) if i != prompted]
        if near and random.random() < near_fraction:
            other, kind = near[random.integers(len(near))], "near"
        else:
            other, kind = int((prompted + random.integers(1, len(clips))) % len(clips)), "any"
        a, b = (prompted, other) if random.random() < 0.5 else (other, prompted)
        pairs.append(VotePair(f"{group}-{seed}-{number:06d}", clips[prompted].caption, truth, clips[a], clips[b], kind))
    return pairs


def sample_system_pairs(
    renderings: Sequence[Sequence[Rendering]], truths: Sequence[Truth], count: int, seed: int, group: str = "systems"
) -> list[VotePair]:
    """`count` pairs of different renderings of one prompt, prompt and pair drawn evenly.

    renderings: of each prompt; truths: what the prompts describe. VoteError where a prompt has fewer than two.
    """
    if not renderings or min(map(len, renderings)) < 2:
        raise VoteError("pairs of systems need at least two clips of every prompt; name more systems")
    random = np.random.default_rng([seed, 3])
    pairs = []
    for number in range(count):
        prompt = int(random.integers(len(renderings)))
        a, b = (renderings[prompt][i] for i in random.permutation(len(renderings[prompt]))[:2])
        id = f"{group}-{seed}-{number:06d}"
        pairs.append(VotePair(id, a.prompt, truths[prompt], a, b, "systems", (a.system, b.system)))
    return pairs


def sample_votes(
    pairs: Sequence[VotePair],
    utility_a: Tensor,
    utility_b: Tensor,
    seed: int,
    population: ListenerPopulation | None = None,
) -> list[Vote]:
    """One vote per pair, by a listener drawn at random; utility_a, utility_b are of the clips, [len(pairs)] each."""
    population = population or ListenerPopulation()
    if not len(pairs) == len(utility_a) == len(utility_b):
        raise VoteError(f"{len(pairs)} pairs need as many utilities, not {len(utility_a)} and {len(utility_b)}")
    random = np.random.default_rng([seed, 2])
    contrarians = set(
        random.permutation(population.listeners)[: round(population.contrarian_fraction * population.listeners)]
    )
    voters = random.integers(0, population.listeners, len(pairs))
    sign = np.array([-1.0 if voter in contrarians else 1.0 for voter in voters])
    perceived = sign * (utility_a - utility_b).double().numpy() + random.logistic(size=len(pairs))
    winners = np.where(perceived > population.tie_band, "a", np.where(perceived < -population.tie_band, "b", "tie"))
    return [
        Vote(
            id=pair.id,
            prompt=pair.prompt,
            a=pair.a.id,
            b=pair.b.id,
            winner=str(winner),  # type: ignore[arg-type]
            system_a=pair.systems[0],
            system_b=pair.systems[1],
            source="simulated",
            listener=f"listener-{voter:03d}",
        )
        for pair, winner, voter in zip(pairs, winners, voters, strict=True)
    ]


def noise_ceiling(utility_a: Tensor, utility_b: Tensor, votes: Sequence[Vote]) -> float:
    """Accuracy on `votes`, ties left out, of always choosing the clip of higher true utility.

    No reward can be expected to do better: the rest is the listeners' noise and contrarians. NaN where every vote is a
    tie; equal utilities count as half right.
    """
    right = [
        0.5 if ua == ub else float((ua > ub) == (vote.winner == "a"))
        for ua, ub, vote in zip(utility_a.tolist(), utility_b.tolist(), votes, strict=True)
        if vote.winner != "tie"
    ]
    return sum(right) / len(right) if right else math.nan
