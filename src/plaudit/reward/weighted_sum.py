"""Several rewards as one: a weighted sum of their z-scores, which does not depend on their scales (ours)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from plaudit.devices import device_of, placed
from plaudit.errors import ModelError, RecipeError
from plaudit.reward.base import Recording, View, Waves, identity_of
from plaudit.reward.scoring import Clip, identity_of_reward, score_clips, score_recordings
from plaudit.settings import Positive, Settings, validated
from plaudit.storage import read_json, write_json
from plaudit.types import Reward


@dataclass(frozen=True)
class WeightedReward:
    """A reward in a sum: its name or folder, its weight, and the mean and standard deviation of its scores.

    `identity` is that of the reward that was measured; another under the same name is refused.
    """

    reward: str
    weight: float
    mean: float
    std: float
    identity: str


class WeightedSum:
    """A plaudit.types.Reward: the sum over parts of weight * (score - mean) / std."""

    def __init__(self, parts: Sequence[WeightedReward], rewards: Sequence[Reward]) -> None:
        self.parts, self.rewards = tuple(parts), tuple(rewards)

    def to(self, device: torch.device) -> WeightedSum:
        """Its parts on `device`."""
        self.rewards = tuple(placed(reward, device) for reward in self.rewards)
        return self

    @property
    def device(self) -> torch.device:
        """Where its first part computes."""
        return device_of(self.rewards[0])

    @property
    def views(self) -> tuple[View, ...]:
        """The parts of a recording that the rewards take, each once."""
        return tuple(dict.fromkeys(view for reward in self.rewards for view in getattr(reward, "views", ())))

    @cached_property
    def identity(self) -> str:
        """A digest of the parts, whatever their names."""
        return identity_of("sum", [(part.weight, part.mean, part.std, part.identity) for part in self.parts])

    def score(self, waves: Waves, rate: int, prompts: Sequence[str]) -> Tensor:
        """One score per clip [B]; AudioError for a clip that is empty, silent or not finite."""
        return self.score_recordings([Recording(w, rate, f"clip {i}") for i, w in enumerate(waves)], prompts)

    def score_recordings(self, recordings: Sequence[Recording], prompts: Sequence[str]) -> Tensor:
        """The same of recordings [B] at any rates."""
        total = torch.zeros(len(recordings))
        for part, reward in zip(self.parts, self.rewards, strict=True):
            total += part.weight * (score_recordings(reward, recordings, prompts) - part.mean) / part.std
        return total


def combine_rewards(
    folder: Path, weights: Mapping[str, float], clips: Sequence[Clip], load: Callable[[str], Reward]
) -> WeightedSum:
    """Write the reward folder of a weighted sum; mean and standard deviation are measured on `clips`.

    weights: weight by reward name; load(name) gives the reward (plaudit.load_reward). ModelError where a part has no
    identity or hardly differs between clips, or where fewer than two clips can be scored.
    """
    parts, rewards = [], []
    for name, weight in weights.items():
        reward, identity = _part_reward(name, load)
        scores = [row.score for row in score_clips(clips, reward) if row.score is not None]
        std, mean = torch.std_mean(torch.tensor(scores, dtype=torch.float64)) if len(scores) > 1 else (None, None)
        if std is None or mean is None or std <= 1e-9:
            raise ModelError(f"reward {name!r} has no spread on {len(scores)} clips; give more, and varied ones")
        parts.append(WeightedReward(name, float(weight), mean.item(), std.item(), identity))
        rewards.append(reward)
    _check(parts, folder)
    write_json(folder / "config.json", {"kind": "sum", "parts": [asdict(part) for part in parts]})
    return WeightedSum(parts, rewards)


def read_weighted_sum(folder: Path, load: Callable[[str], Reward]) -> WeightedSum:
    """The reward in a folder; load(name) gives its parts.

    ModelError where it is malformed or a part is not the one that was measured.
    """
    try:
        config = read_json(folder / "config.json")
        file = validated(_SumFile, config, f"{folder}/config.json does not describe a sum of rewards; combine again")
    except RecipeError as error:
        raise ModelError(str(error)) from None
    parts = [WeightedReward(**part.model_dump()) for part in file.parts]
    _check(parts, folder)
    rewards = []
    for part in parts:
        if Path(part.reward).resolve() == folder.resolve():
            raise ModelError(f"{folder} is a part of itself; combine again from other rewards")
        reward, identity = _part_reward(part.reward, load)
        if identity != part.identity:
            raise ModelError(f"reward {part.reward!r} is not the one that {folder} was measured with; combine again")
        rewards.append(reward)
    return WeightedSum(parts, rewards)


class _PartFile(Settings):
    """A part in config.json."""

    reward: Annotated[str, Field(min_length=1)]
    weight: float
    mean: float
    std: Positive
    identity: str


class _SumFile(Settings):
    """The values of config.json."""

    kind: str
    parts: tuple[_PartFile, ...]


def _part_reward(name: str, load: Callable[[str], Reward]) -> tuple[Reward, str]:
    """A part and its identity."""
    reward = load(name)
    identity = identity_of_reward(reward)
    if identity is None:
        raise ModelError(f"reward {name!r} cannot be a part: it has no attribute identity")
    return reward, identity


def _check(parts: Sequence[WeightedReward], folder: Path) -> None:
    if not parts:
        raise ModelError(f"{folder}: a sum of rewards needs at least one part")
    for part in parts:
        if not (math.isfinite(part.weight) and math.isfinite(part.mean) and math.isfinite(part.std) and part.std > 0):
            raise ModelError(f"{folder}: part {part.reward!r} needs finite numbers and a std above 0; combine again")
