"""Simulated listeners: a written taste, and noisy votes drawn from it.

A clip's utility is what the taste says of what the probes hear in it, beside the caption it was made for. Listeners
choose between two clips by a Bradley-Terry model of their utilities, with ties and a few contrarians. A reward is
trained on the votes alone, so how well it learned the taste, and where it is exploited, can be measured. All ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from plaudit.errors import VoteError
from plaudit.synthetic.corpus import SyntheticClip
from plaudit.synthetic.flaws import FLAWS
from plaudit.synthetic.probes import TEMPI, Measurement
from plaudit.synthetic.truth import GENRES, INSTRUMENTS, KEYS, MODES, MOODS, Truth
from plaudit.types import Vote


@dataclass(frozen=True)
class Taste:
    """What listeners like, in units of Bradley-Terry utility (1 unit: chosen 73 % of the time).

    Matches are worth their weight times the probability that the clip has what the caption says; `instruments` is
    shared by those named. A flaw costs its weight times its severity. The weights are such that, on pairs from the
    corpus and as the shipped probes hear them, flaws explain about 60 % and matches about 40 % of how far apart the two
    clips are, utilities spread by about 1.3, and knowing them names the winner of 77 % of votes. A wrong genre is worse
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
    """A tempo within this share of the caption's is right."""
    octave_credit: float = 0.5
    """What half or double the caption's tempo is worth, beside 1 for the tempo itself."""
    relative_credit: float = 0.3
    """What the relative key (A minor for C major) is worth, beside 1 for the key itself."""


@dataclass(frozen=True)
class VotePair:
    """Two clips to be compared as renderings of `prompt`, whose `truth` both are judged by.

    One of the two is the clip the prompt was written for. `kind` is "near" where the other shares its genre or mood.
    """

    id: str
    prompt: str
    truth: Truth
    a: SyntheticClip
    b: SyntheticClip
    kind: str


@dataclass(frozen=True)
class ListenerPopulation:
    """Who votes. `tie_band`: two clips closer than this in a listener's ears, noise included, are a tie.

    With logistic noise that is the tie model of Rao and Kupper (1967): P(a) = sigmoid(d - band),
    P(b) = sigmoid(-d - band) for a utility difference d. Contrarians feel the opposite difference.
    """

    listeners: int = 60
    contrarian_fraction: float = 0.05
    tie_band: float = 0.15


def matches(measurement: Measurement, truths: Sequence[Truth], taste: Taste) -> dict[str, Tensor]:
    """How well each clip is what its truth says, 0..1 by attribute, each [B]."""
    if len(truths) != len(measurement):
        raise VoteError(f"{len(measurement)} clips cannot be judged by {len(truths)} captions; give one for each")
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
    """What each clip is worth to a listener who was promised `truths[i]`: [B]. Zero matches nothing, flawlessly."""
    taste = taste or Taste()
    liked = sum(getattr(taste, name) * value for name, value in matches(measurement, truths, taste).items())
    weights = torch.tensor([getattr(taste, name) for name in FLAWS])
    return liked - measurement.flaws @ weights


def tempo_credit(tempo: float, taste: Taste) -> Tensor:
    """What each candidate of TEMPI is worth where the caption says `tempo` bpm: [len(TEMPI)]."""
    off = torch.tensor([[abs(c / (tempo * factor) - 1) for factor in (1.0, 0.5, 2.0)] for c in TEMPI])
    credit = torch.tensor([1.0, taste.octave_credit, taste.octave_credit])
    return ((off < taste.tempo_tolerance) * credit).amax(1)


def key_credit(key: str, mode: str, taste: Taste) -> Tensor:
    """What each key and mode is worth where the caption says this one: [12, modes]."""
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
    """`count` pairs of different `clips`: each has the caption of one, in either place.

    A `near_fraction` of partners shares genre or mood with the prompt; the rest are any clip. Give the clips of one
    split, and no clip leaks into another. VoteError where there are fewer than two clips.
    """
    if len(clips) < 2:
        raise VoteError(f"pairs need at least two clips, not {len(clips)}; use a larger corpus")
    random = np.random.default_rng([seed, 1])
    kin: dict[str, list[int]] = {}
    for index, clip in enumerate(clips):
        kin.setdefault(clip.truth.genre, []).append(index)
        kin.setdefault(clip.truth.mood, []).append(index)
    pairs = []
    for number in range(count):
        own = int(random.integers(len(clips)))
        said = clips[own].caption_truth
        near = [i for i in kin.get(random.choice([said.genre, said.mood]), []) if i != own]
        if near and random.random() < near_fraction:
            other, kind = near[random.integers(len(near))], "near"
        else:
            other, kind = int((own + random.integers(1, len(clips))) % len(clips)), "any"
        a, b = (own, other) if random.random() < 0.5 else (other, own)
        pairs.append(VotePair(f"{group}-{seed}-{number:06d}", clips[own].caption, said, clips[a], clips[b], kind))
    return pairs


def simulate_votes(
    pairs: Sequence[VotePair],
    utility_a: Tensor,
    utility_b: Tensor,
    seed: int,
    population: ListenerPopulation | None = None,
) -> list[Vote]:
    """One vote per pair, by a listener drawn at random; utility_a, utility_b [len(pairs)] say what clips are worth."""
    population = population or ListenerPopulation()
    if not len(pairs) == len(utility_a) == len(utility_b):
        raise VoteError(f"{len(pairs)} pairs need as many utilities, not {len(utility_a)} and {len(utility_b)}")
    random = np.random.default_rng([seed, 2])
    contrarians = set(
        random.permutation(population.listeners)[: round(population.contrarian_fraction * population.listeners)]
    )
    voters = random.integers(0, population.listeners, len(pairs))
    sign = np.array([-1.0 if voter in contrarians else 1.0 for voter in voters])
    felt = sign * (utility_a - utility_b).double().numpy() + random.logistic(size=len(pairs))
    winners = np.where(felt > population.tie_band, "a", np.where(felt < -population.tie_band, "b", "tie"))
    return [
        Vote(
            id=pair.id,
            prompt=pair.prompt,
            a=pair.a.id,
            b=pair.b.id,
            winner=str(winner),  # type: ignore[arg-type]
            system_a="synthetic",
            system_b="synthetic",
            source="simulated",
            listener=f"listener-{voter:03d}",
        )
        for pair, winner, voter in zip(pairs, winners, voters, strict=True)
    ]


def noise_ceiling(utility_a: Tensor, utility_b: Tensor, votes: Sequence[Vote]) -> float:
    """Accuracy on `votes`, ties left out, of always naming the clip of higher true utility.

    No reward can expect to do better: what is missing to 1 is the listeners' own noise and contrarians. NaN where
    every vote is a tie; equal utilities count as half right.
    """
    right = [
        0.5 if ua == ub else float((ua > ub) == (vote.winner == "a"))
        for ua, ub, vote in zip(utility_a.tolist(), utility_b.tolist(), votes, strict=True)
        if vote.winner != "tie"
    ]
    return sum(right) / len(right) if right else math.nan
