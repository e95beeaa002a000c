"""TuneJury: waveforms and prompts -> scores, and its model folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from plaudit.assets import load_module, read_json, save_module
from plaudit.backbone.config import MOST_WIDTH
from plaudit.errors import ModelError, PromptError, RecipeError
from plaudit.reward.features import RewardFeatures
from plaudit.reward.head import TuneJuryHead
from plaudit.reward.identity import identity_of, told_apart_by
from plaudit.reward.kinds import Sources
from plaudit.reward.recording import Recording, View, Waves, waveform
from plaudit.settings import Settings, shortened, validated

KIND = "tunejury"
Width = Annotated[int, Field(ge=1, le=MOST_WIDTH)]


class TuneJury:
    """A trained head over frozen encoders; implements plaudit.types.Reward.

    `facts` is kept in the model folder beside what rebuilds it: figures on held-out votes, the mean and standard
    deviation of training clips' scores, where the votes came from.
    """

    def __init__(self, head: TuneJuryHead, features: RewardFeatures, facts: dict[str, Any] | None = None) -> None:
        if head.input_dim != features.dim:
            raise ModelError(f"the reward's head takes {head.input_dim} features, its encoders give {features.dim}")
        self.head, self.features, self.facts = head.eval(), features, facts or {}

    def score(self, waves: Waves, rate: int, prompts: Sequence[str], batch_size: int = 16) -> Tensor:
        """One score per clip [B]; a clip's score does not depend on what else is in the call.

        waves: tensors or NumPy arrays [T]. AudioError for a clip that is empty, silent or not finite. For gradients in
        the waveforms, use `score_tensors`.
        """
        _check_counts(len(waves), len(prompts))
        tensors = [waveform(wave, f"clip {index}") for index, wave in enumerate(waves)]
        with torch.inference_mode():
            scores = [
                self.score_features(
                    self.features.clip_features(tensors[i : i + batch_size], rate), prompts[i : i + batch_size]
                )
                for i in range(0, len(tensors), batch_size)
            ]
        return torch.cat(scores).clone() if scores else torch.zeros(0)

    @property
    def views(self) -> tuple[View, ...]:
        """The forms in which the encoders hear a recording."""
        return self.features.views

    def score_recordings(self, recordings: Sequence[Recording], prompts: Sequence[str]) -> Tensor:
        """One score per recording [B], whatever their rates; they are heard in one batch per length."""
        _check_counts(len(recordings), len(prompts))
        with torch.inference_mode():
            return self.score_features(self.features.recording_features(recordings), prompts).clone()

    @cached_property
    def identity(self) -> str:
        """A digest of head, blocks and encoders: rewards that share it give the same scores."""
        encoders = (told_apart_by(self.features.clap), told_apart_by(self.features.listener))
        return identity_of("tunejury", self.features.blocks, told_apart_by(self.head), *encoders)

    def score_tensors(self, waves: Tensor, rate: int, prompts: Sequence[str]) -> Tensor:
        """waves [B, T] and their prompts -> scores [B], with gradients to the waves."""
        _check_counts(len(waves), len(prompts))
        return self.score_features(self.features.clip_features(list(waves), rate), prompts)

    def score_features(self, clip_features: Tensor, prompts: Sequence[str]) -> Tensor:
        """clip_features [B, clip_dim] and their prompts -> scores [B]; differentiable in the features."""
        _check_counts(len(clip_features), len(prompts))
        scores: Tensor = self.head(self.features.with_prompts(clip_features, prompts))
        return scores


def _check_counts(clips: int, prompts: int) -> None:
    if clips != prompts:
        raise PromptError(f"{clips} clips and {prompts} prompts; give one prompt per clip (\"\" for none)")


def save_reward(jury: TuneJury, folder: Path) -> None:
    """Write `config.json` and `model.safetensors`: the head, and the names of the encoders it goes with."""
    encoders = {"clap": jury.features.clap.name, "audio": jury.features.listener.name}
    save_head(folder, jury.head, jury.features.blocks, encoders, jury.facts)


def save_head(
    folder: Path, head: TuneJuryHead, blocks: Sequence[str], encoders: dict[str, str], facts: dict[str, Any]
) -> None:
    """Write a reward folder of a head and the names of its encoders, `clap` and `audio`, which need not be here."""
    shape = {"input_dim": head.input_dim, "hidden": list(head.hidden), "dropout": head.dropout}
    save_module(folder, head, {"kind": KIND, "head": shape, "blocks": list(blocks), "encoders": encoders, **facts})


def load_tunejury(folder: Path, sources: Sources) -> TuneJury:
    """Read a reward with the encoders it was trained on. ModelError where it is damaged."""
    head, config = _read(folder)
    encoders, blocks = config.pop("encoders"), config.pop("blocks")
    features = RewardFeatures(sources.clap(encoders.clap), sources.audio(encoders.audio), blocks)
    return TuneJury(head, features, config)


def read_head(folder: Path) -> tuple[TuneJuryHead, tuple[str, ...]]:
    """The head in a reward folder and the blocks that it hears, without its encoders; ModelError where damaged."""
    head, config = _read(folder)
    return head, tuple(config["blocks"])


def _read(folder: Path) -> tuple[TuneJuryHead, dict[str, Any]]:
    """The head and the rest of the configuration."""
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise ModelError(f"{folder}/config.json does not describe a reward; check the folder")
    if config.get("kind") != KIND:
        raise ModelError(f"{folder} is of kind {shortened(repr(config.get('kind')))}, not a reward; check the folder")
    known = {name: config[name] for name in _RewardFile.model_fields if name in config}
    try:
        told = validated(_RewardFile, known, f"{folder}/config.json does not describe a reward")
    except RecipeError as error:
        raise ModelError(str(error)) from None
    with torch.device("meta"):
        head = TuneJuryHead(told.head.input_dim, told.head.hidden, told.head.dropout)
    load_module(folder, head)
    rest = {name: value for name, value in config.items() if name not in ("kind", "head")}
    return head, rest | {"encoders": told.encoders, "blocks": told.blocks}


class _HeadFile(Settings):
    """The sizes of a head."""

    input_dim: Width
    hidden: Annotated[tuple[Width, ...], Field(max_length=64)]
    dropout: Annotated[float, Field(ge=0, lt=1)]


class _EncodersFile(Settings):
    """The names of a reward's encoders."""

    clap: Annotated[str, Field(min_length=1)]
    audio: Annotated[str, Field(min_length=1)]


class _RewardFile(Settings):
    """What config.json must say of a reward; it may say more."""

    head: _HeadFile
    encoders: _EncodersFile
    blocks: Annotated[tuple[str, ...], Field(min_length=1)]
