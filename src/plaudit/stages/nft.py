"""Negative-aware fine-tuning of flows, offline: learning from good and bad clips at once.

After DiffusionNFT (Zheng et al., arXiv 2509.16117), from which are the two implicit velocities, the loss, and the
optimality probability from an advantage. There the sampling model is a running average of the trained one, and samples
repeatedly. Here, as in the paper's released variant, candidates are sampled once, and the old model is a frozen copy of
the one that sampled them, with `temperature` in place of their normalizer Z_c and the plain mean squared error of the
velocity. Their code divides the loss by beta, weighs it by the error of the predicted data, and adds a KL term:
`divide_by_beta`, `adaptive_weights` and `kl` are these.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from plaudit.backbone.base import Backbone
from plaudit.corpus.shard_set import ShardSet
from plaudit.errors import CorpusError
from plaudit.flow import flow_loss, interpolate, logit_normal_time, velocity
from plaudit.generate.model import TextToMusic
from plaudit.settings import NotNegative, Positive
from plaudit.stages import Costs, Stage, StageSettings, StepCost
from plaudit.stages.inputs import StageInputs
from plaudit.stages.pairs import SHARDS, Candidate, read_candidates, read_pairs
from plaudit.stages.sft import PreferenceTrainSettings, conditions_of, draw_conditions
from plaudit.training.data import Source, TrainingSet, draw_latents, generator_for
from plaudit.training.loop import Inputs


class NftSettings(StageSettings):
    """Negative-aware tuning on all candidates by how much better they are than their caption's others.

    criterion: the score that counts. advantage: "binary" is the side of the mean of its caption's candidates, "reward"
    the distance from it in units of `temperature`. max_advantage: advantages are clamped to it. divide_by_beta: the
    loss is multiplied by max_advantage / beta. adaptive_weights: each velocity's loss is that of the predicted data,
    divided by its mean absolute error. kl: weight of the squared distance to the frozen model's velocity.
    """

    beta: Positive = 0.2
    criterion: Literal["reward", "clap"] = "reward"
    advantage: Literal["binary", "reward"] = "reward"
    temperature: Positive = 0.1
    max_advantage: Positive = 1.0
    divide_by_beta: bool = False
    adaptive_weights: bool = False
    kl: NotNegative = 0.0
    train: PreferenceTrainSettings


def nft_loss(
    predicted: Tensor, old: Tensor, target: Tensor, t: Tensor, optimality: Tensor, settings: NftSettings
) -> dict[str, Tensor]:
    """The loss from velocities [B, N, C] of the trained and of the old model, the target's, times [B], and r =
    `optimality` [B].

    loss = r |v+ - v|^2 + (1 - r) |v- - v|^2 with v+ = (1 - beta) v_old + beta v_new and v- = (1 + beta) v_old
    - beta v_new, mean over the batch: a clip with r = 1 pulls the new velocity towards its velocity, one with r = 0
    pushes it as far to the other side. With `adaptive_weights` either loss is |x - x_0|^2 / mean |x - x_0| of the data
    x = x_t - t v+ that it predicts; x - x_0 = -t (v+ - v). Beside it: both losses, and the distance between the new and
    the old velocity.
    """
    moved = settings.beta * (predicted.float() - old.float())
    error = partial(_adaptive_loss, t=t) if settings.adaptive_weights else flow_loss
    positive, negative = error(old + moved, target), error(old - moved, target)
    scale = settings.max_advantage / settings.beta if settings.divide_by_beta else 1.0
    preference = scale * (optimality * positive + (1 - optimality) * negative).mean()
    drift = flow_loss(predicted, old).mean()
    return {
        "loss": preference + settings.kl * drift,
        "positive_loss": positive.mean(),
        "negative_loss": negative.mean(),
        "drift": drift,
    }


MIN_ERROR = 1e-5
"""Bound of the mean absolute error that adaptive weights divide by, as in DiffusionNFT's code."""


def _adaptive_loss(predicted: Tensor, target: Tensor, t: Tensor) -> Tensor:
    """DiffusionNFT's: the squared error of the predicted data over its mean absolute error, which gets no gradient."""
    error = t.view(-1, 1, 1) * (predicted.float() - target.float())
    return error.square().flatten(1).mean(1) / error.detach().abs().flatten(1).mean(1).clamp(min=MIN_ERROR)


def optimality(values: np.ndarray, captions: list[str], settings: NftSettings) -> np.ndarray:
    """Optimality probability r in [0, 1] of each candidate: 1/2 + A / (2 max_advantage), A its clamped advantage.

    values [n]: the reward or CLAP score of each. Of "reward" A is the distance to the mean of the caption's candidates
    in units of `temperature`, of "binary" its sign at full size. The only candidate of a caption has r = 1/2.
    """
    groups = np.unique(np.array(captions), return_inverse=True)[1]
    means = np.bincount(groups, weights=values) / np.bincount(groups)
    distance = values - means[groups]
    distance[np.bincount(groups)[groups] == 1] = 0.0  # the mean of one value equals it, but for rounding
    most = settings.max_advantage
    advantages = most * np.sign(distance) if settings.advantage == "binary" else distance / settings.temperature
    return 0.5 + np.clip(advantages, -most, most) / (2 * most)


def scored_source(folder: Path, settings: NftSettings) -> tuple[Source, np.ndarray]:
    """The clips of a pairs folder, and r of each.

    Of pairs from elsewhere winners have r = 1 and losers r = 0; CorpusError where the settings need more.
    """
    shards = ShardSet(folder / SHARDS, verify=False)
    row_of = {id: row for row, id in enumerate(shards.ids)}
    candidates = read_candidates(folder)
    if candidates:
        values = np.array([getattr(candidate, settings.criterion) for candidate in candidates])
        good = optimality(values, [candidate.caption for candidate in candidates], settings)
    else:
        if settings.advantage != "binary":
            raise CorpusError("pairs from elsewhere say which clip is better, not by how much; set advantage=binary")
        pairs = read_pairs(folder)
        candidates = [
            Candidate(clip, pair.caption, 0.0, 0.0, pair.score) for pair in pairs for clip in (pair.winner, pair.loser)
        ]
        good = np.tile([1.0, 0.0], len(pairs))
    usable = [place for place, candidate in enumerate(candidates) if candidate.clip in row_of]
    if not usable:
        raise CorpusError(f"no clip in {folder} can be used; see {folder / SHARDS}/quarantine.jsonl")
    rows = np.array([row_of[candidates[place].clip] for place in usable])
    scores = [candidates[place].score for place in usable]
    return Source(shards, rows, np.array([np.nan if score is None else score for score in scores])), good[usable]


@dataclass(frozen=True)
class NftObjective:
    """Negative-aware tuning against the frozen `old` model on `clips`, whose probabilities of being good are `good`.

    Old and new model see the same noise, t and condition: the caption and the score that the clip was sampled with, or
    neither where it is dropped.
    """

    model: Backbone
    old: Backbone
    clips: Source
    good: np.ndarray
    settings: NftSettings

    def draw(self, index: int, part: slice) -> Inputs:
        """Clips, noise and times."""
        train, generator = self.settings.train, generator_for(self.settings.train.seed, index)
        data = TrainingSet([self.clips], train.seed)
        members = data.members(index, train.batch)[part]
        batch = data.take(members)
        shape = (train.batch, *batch.posterior.mean.shape[1:])  # [B, N, C]
        drawn = {
            "posterior_noise": torch.randn(shape, generator=generator)[part],
            "noise": torch.randn(shape, generator=generator)[part],
            "t": logit_normal_time(train.batch, generator)[part],
            "mean": batch.posterior.mean,
            "std": batch.posterior.std,
            "good": torch.from_numpy(self.good[members[:, 1]]).float(),
        }
        return drawn | draw_conditions(batch, train, generator, part)

    def loss(self, network: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        """`nft_loss` of the clips."""
        noise, t = inputs["noise"], inputs["t"]
        latents = draw_latents(self.model, inputs["mean"], inputs["std"], inputs["posterior_noise"])
        text, scores = conditions_of(self.model, inputs)
        point = interpolate(latents, noise, t)
        with torch.no_grad():
            old = self.old(point, text, t, scores)
        predicted = network(point, text, t, scores)
        return nft_loss(predicted, old, velocity(latents, noise), t, inputs["good"], self.settings)


class NFT(Stage):
    """Tuning on the candidates of the last pairs stage, against a frozen copy of the model before."""

    Settings = NftSettings
    uses = ("pairs", "training")

    def run(self, settings: NftSettings, inputs: StageInputs, folder: Path) -> TextToMusic:
        """Train the model against its copy."""
        model, old = inputs.model(), inputs.model().backbone.requires_grad_(False)
        clips, optimality = scored_source(inputs.pairs(), settings)
        objective = NftObjective(model.backbone, old, clips, optimality, settings)
        inputs.train(model, objective, settings.train, folder, trained=1, frozen=1)
        return model

    def cost(self, settings: NftSettings, costs: Costs) -> StepCost:
        """Each clip passes the model and its frozen copy."""
        return costs.training(settings.train, frozen=1)
