"""Negative-aware fine-tuning of flows, offline: learning from good and bad clips at once.

After DiffusionNFT (Zheng et al., arXiv 2509.16117). Theirs are the two implicit velocities, the loss, and the
probability of being optimal that is made of an advantage. There the model that samples is an average of the one that
is trained, and samples again and again. Here, as in the paper's released variant, the candidates are made once, and the
old model is a frozen copy of the one that made them. Ours: what `temperature` does (it takes the place of their
normalizer Z_c), and the plain mean squared error of the velocity, where their code regresses on data with weights that
normalize themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from plaudit.settings import Positive
from plaudit.stages import Costs, Stage, StageSettings, StepCost
from plaudit.stages.inputs import StageInputs
from plaudit.stages.pairs import SHARDS, Candidate, read_candidates, read_pairs
from plaudit.training.data import Source, TrainingSet, draw_latents, generator_for
from plaudit.training.loop import Inputs
from plaudit.training.settings import TrainSettings
from plaudit.types import TextFeatures


class NftSettings(StageSettings):
    """Negative-aware tuning on all candidates by how much better they are than their caption's others.

    criterion: the score that counts. advantage: "binary" is the side of the mean of its caption's candidates, "reward"
    the distance from it in units of `temperature`. max_advantage: advantages are clamped to it.
    """

    beta: Positive = 0.2
    criterion: Literal["reward", "clap"] = "reward"
    advantage: Literal["binary", "reward"] = "reward"
    temperature: Positive = 0.1
    max_advantage: Positive = 1.0
    train: TrainSettings


def nft_loss(predicted: Tensor, old: Tensor, target: Tensor, optimality: Tensor, beta: float) -> dict[str, Tensor]:
    """The loss from velocities [B, N, C] of the trained and of the old model, the target's, and r = `optimality` [B].

    loss = r |v+ - v|^2 + (1 - r) |v- - v|^2 with v+ = (1 - beta) v_old + beta v_new and v- = (1 + beta) v_old
    - beta v_new, mean over the batch: a clip that is surely good pulls the new velocity towards its own, one that is
    surely bad pushes it as far to the other side. Beside it: both losses, and how far the model went from the old one.
    """
    moved = beta * (predicted.float() - old.float())
    positive, negative = flow_loss(old + moved, target), flow_loss(old - moved, target)
    return {
        "loss": (optimality * positive + (1 - optimality) * negative).mean(),
        "positive_loss": positive.mean(),
        "negative_loss": negative.mean(),
        "drift": flow_loss(predicted, old).mean(),
    }


def optimality(values: np.ndarray, captions: list[str], settings: NftSettings) -> np.ndarray:
    """Optimality probability r in [0, 1] of each candidate: 1/2 + A / (2 max_advantage), A its clamped advantage.

    values [n]: what reward or CLAP says of each. Of "reward" A is the distance to the mean of the caption's candidates
    in units of `temperature`, of "binary" its sign at full size. A caption's only candidate is neither good nor bad.
    """
    groups = np.unique(np.array(captions), return_inverse=True)[1]
    means = np.bincount(groups, weights=values) / np.bincount(groups)
    away = values - means[groups]
    away[np.bincount(groups)[groups] == 1] = 0.0  # a mean of one is itself but for rounding
    advantages = (
        settings.max_advantage * np.sign(away) if settings.advantage == "binary" else away / settings.temperature
    )
    return 0.5 + np.clip(advantages, -settings.max_advantage, settings.max_advantage) / (2 * settings.max_advantage)


def scored_source(folder: Path, settings: NftSettings) -> tuple[Source, np.ndarray]:
    """The clips of a pairs folder, and r of each.

    Of pairs from elsewhere the winners are good and the losers bad; CorpusError where the settings ask how good.
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
    asked = [candidates[place].score for place in usable]
    return Source(shards, rows, np.array([np.nan if score is None else score for score in asked])), good[usable]


@dataclass(frozen=True)
class NftObjective:
    """Negative-aware tuning against the frozen `old` model on `clips`, whose probabilities of being good are `good`.

    Old and new model see the same noise, the same t and the same condition: the score that the clip was asked for.
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
        return {
            "posterior_noise": torch.randn(shape, generator=generator)[part],
            "noise": torch.randn(shape, generator=generator)[part],
            "t": logit_normal_time(train.batch, generator)[part],
            "mean": batch.posterior.mean,
            "std": batch.posterior.std,
            "tokens": batch.text.tokens,
            "pooled": batch.text.pooled,
            "scores": batch.scores,
            "good": torch.from_numpy(self.good[members[:, 1]]).float(),
        }

    def loss(self, network: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        """`nft_loss` of the clips."""
        noise, t, scores = inputs["noise"], inputs["t"], inputs["scores"]
        latents = draw_latents(self.model, inputs["mean"], inputs["std"], inputs["posterior_noise"])
        text = TextFeatures(inputs["tokens"].float(), inputs["pooled"].float())
        point = interpolate(latents, noise, t)
        with torch.no_grad():
            old = self.old(point, text, t, scores)
        predicted = network(point, text, t, scores)
        return nft_loss(predicted, old, velocity(latents, noise), inputs["good"], self.settings.beta)


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
