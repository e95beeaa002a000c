"""TuneJury: the head, published heads, and the reward with its folder."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from plaudit.backbone.config import MOST_WIDTH
from plaudit.devices import device_of, on_device, reduced_precision, rows_at_once
from plaudit.errors import ModelError, PromptError, RecipeError
from plaudit.published import require, require_sizes, unwrap
from plaudit.reward.base import Recording, View, Waves, identity_of, identity_of_model, waveform
from plaudit.reward.features import PUBLISHED_BLOCKS, RewardFeatures
from plaudit.settings import Settings, shortened, validated
from plaudit.storage import load_module, read_json, save_module
from plaudit.types import AudioEmbedder, Embedder

PUBLISHED_HIDDEN = (1024, 512, 256, 128)


class TuneJuryHead(nn.Module):
    """Linear-BatchNorm-ReLU-Dropout per hidden width, then a linear to one score (TuneJury, arXiv 2606.17006).

    Weights start Kaiming normal (fan out), biases at zero. Four buffers around the published network are ours, and
    change nothing at their initial values: inputs are standardized by `input_mean` and `input_std` [D], and the
    network's output becomes (output - offset) * scale, so that scores are centred and their margins calibrated.
    """

    input_mean: Tensor
    input_std: Tensor
    offset: Tensor
    scale: Tensor

    def __init__(
        self,
        input_dim: int,
        hidden: Sequence[int] = PUBLISHED_HIDDEN,
        dropout: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.input_dim, self.hidden, self.dropout = input_dim, tuple(hidden), dropout
        widths = [input_dim, *hidden]
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [nn.Linear(wide, narrow), nn.BatchNorm1d(narrow), nn.ReLU(), nn.Dropout(dropout)]
        layers.append(nn.Linear(widths[-1], 1))
        self.layers = nn.Sequential(*layers)
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
                nn.init.zeros_(layer.bias)
        self.register_buffer("input_mean", torch.zeros(input_dim))
        self.register_buffer("input_std", torch.ones(input_dim))
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        """features [B, D] -> scores [B]."""
        output: Tensor = self.layers((features - self.input_mean) / self.input_std).squeeze(-1)
        return (output - self.offset) * self.scale


HEAD_DESCRIPTION = "a TuneJury head (whose names begin with score. or net.)"
HEAD_PREFIXES = ("score.", "net.")
"""Names begin with `score.` in heads over MuQ-MuLan, with `net.` in those over CLAP and MERT."""


def head_from_published(checkpoint: Mapping[str, Any]) -> TuneJuryHead:
    """The head in the content of a released file, ready for scoring; its widths are read from the weights.

    Layers are numbered as ours are: 0 linear, 1 batch norm, 4 linear and so on. ModelError lists, with shapes, tensors
    that are missing, unknown or do not fit.
    """
    state = unwrap(checkpoint)
    prefix = next((p for p in HEAD_PREFIXES if any(name.startswith(p) for name in state)), HEAD_PREFIXES[0])
    places = [int(match[1]) for name in state if (match := re.match(rf"{re.escape(prefix)}(\d+)\.", name))]
    last = max(places, default=0)
    linears = [f"{prefix}{4 * index}.weight" for index in range(math.ceil(last / 4) + 1)]
    require_sizes(state, HEAD_DESCRIPTION, dict.fromkeys(linears, 2))
    head = TuneJuryHead(state[linears[0]].shape[1], [state[name].shape[0] for name in linears[:-1]])
    initial = head.state_dict()
    theirs = {ours: ours.replace("layers.", prefix, 1) for ours in initial if ours.startswith("layers.")}
    require(state, HEAD_DESCRIPTION, {published: tuple(initial[ours].shape) for ours, published in theirs.items()})
    head.load_state_dict(
        initial | {ours: state[published].to(initial[ours].dtype) for ours, published in theirs.items()}
    )
    return head.eval()


def head_to_published(head: TuneJuryHead, blocks: Sequence[str]) -> dict[str, Tensor]:
    """The head's tensors under the names of heads over CLAP and MERT: scores are the same but for rounding.

    Scaling of inputs and output is folded into the first and last layers. ModelError for blocks, or an order of them,
    that no released head has.
    """
    if tuple(blocks) != tuple(block for block in PUBLISHED_BLOCKS if block in blocks):
        released = ", ".join(PUBLISHED_BLOCKS)
        raise ModelError(f"the reward has the blocks {', '.join(blocks)}; released heads have {released}")
    state = {name: value.detach().clone() for name, value in head.state_dict().items() if name.startswith("layers.")}
    first, last = "layers.0.", f"layers.{4 * len(head.hidden)}."
    state[first + "weight"] /= head.input_std
    state[first + "bias"] -= state[first + "weight"] @ head.input_mean
    state[last + "weight"] *= head.scale
    state[last + "bias"] = (state[last + "bias"] - head.offset) * head.scale
    return {name.replace("layers.", "net.", 1): value for name, value in state.items()}


TUNEJURY_KIND = "tunejury"
Width = Annotated[int, Field(ge=1, le=MOST_WIDTH)]


class TuneJury:
    """A trained head over frozen encoders; implements plaudit.types.Reward.

    `facts` are kept in its config.json: metrics on held-out votes, mean and standard deviation of the training clips'
    scores, the source of the votes.
    """

    def __init__(self, head: TuneJuryHead, features: RewardFeatures, facts: dict[str, Any] | None = None) -> None:
        if head.input_dim != features.dim:
            raise ModelError(f"the reward's head takes {head.input_dim} features, its encoders give {features.dim}")
        self.head, self.features, self.facts = head.eval(), features, facts or {}

    def to(self, device: torch.device) -> TuneJury:
        """Head and encoders on `device`; features and scores stay on the CPU."""
        self.head.to(device)
        self.features.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where its head is."""
        return device_of(self.head)

    def score(self, waves: Waves, rate: int, prompts: Sequence[str], batch_size: int | None = None) -> Tensor:
        """One score per clip [B]; a clip's score does not depend on the other clips.

        waves: tensors or NumPy arrays [T]. batch_size: by default 16, on a GPU more. AudioError for a clip that is
        empty, silent or not finite. For gradients in the waveforms, use `score_tensors`.
        """
        _check_counts(len(waves), len(prompts))
        batch_size = batch_size or rows_at_once(self, 16)
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
        """The parts of a recording that the encoders take."""
        return self.features.views

    def score_recordings(self, recordings: Sequence[Recording], prompts: Sequence[str]) -> Tensor:
        """One score per recording [B], at any rates, encoded in one batch per length."""
        _check_counts(len(recordings), len(prompts))
        with torch.inference_mode():
            return self.score_features(self.features.recording_features(recordings), prompts).clone()

    @cached_property
    def identity(self) -> str:
        """A digest of head, blocks and encoders: rewards that share it give the same scores."""
        encoders = (identity_of_model(self.features.clap), identity_of_model(self.features.audio_encoder))
        through = (self.features.clap_through,) if self.features.clap_through else ()
        return identity_of("tunejury", self.features.blocks, identity_of_model(self.head), *encoders, *through)

    def score_tensors(self, waves: Tensor, rate: int, prompts: Sequence[str]) -> Tensor:
        """waves [B, T] and their prompts -> scores [B], with gradients to the waves."""
        _check_counts(len(waves), len(prompts))
        return self.score_features(self.features.clip_features(list(waves), rate), prompts)

    def score_features(self, clip_features: Tensor, prompts: Sequence[str]) -> Tensor:
        """clip_features [B, clip_dim] and their prompts -> scores [B]; differentiable in the features."""
        _check_counts(len(clip_features), len(prompts))
        inputs = self.features.with_prompts(clip_features, prompts)
        with reduced_precision(self.device, enabled=False):
            scores: Tensor = self.head(on_device(inputs, self.device))
        return scores.cpu()


def _check_counts(clips: int, prompts: int) -> None:
    if clips != prompts:
        raise PromptError(f'{clips} clips and {prompts} prompts; give one prompt per clip ("" for none)')


def save_reward(reward: TuneJury, folder: Path, clap: str, audio: str) -> None:
    """Write `config.json` and `model.safetensors`: the head, and the names that its encoders are loaded by."""
    encoders = {"clap": clap, "audio": audio}
    through = {"clap_through": reward.features.clap_through} if reward.features.clap_through else {}
    save_head(folder, reward.head, reward.features.blocks, encoders, {**through, **reward.facts})


def save_head(
    folder: Path, head: TuneJuryHead, blocks: Sequence[str], encoders: dict[str, str], facts: dict[str, Any]
) -> None:
    """Write a reward folder of a head and the names of its encoders, `clap` and `audio`, which are not loaded."""
    shape = {"input_dim": head.input_dim, "hidden": list(head.hidden), "dropout": head.dropout}
    save_module(
        folder, head, {"kind": TUNEJURY_KIND, "head": shape, "blocks": list(blocks), "encoders": encoders, **facts}
    )


def read_tunejury(folder: Path, clap: Callable[[str], Embedder], audio: Callable[[str], AudioEmbedder]) -> TuneJury:
    """The reward in a folder; clap and audio load its encoders by name. ModelError where it is damaged."""
    head, config = _read(folder)
    encoders, blocks, through = config.pop("encoders"), config.pop("blocks"), config.pop("clap_through")
    features = RewardFeatures(clap(encoders.clap), audio(encoders.audio), blocks, through)
    return TuneJury(head, features, config)


def read_head(folder: Path) -> tuple[TuneJuryHead, tuple[str, ...]]:
    """The head in a reward folder and its blocks, without the encoders; ModelError where damaged."""
    head, config = _read(folder)
    return head, tuple(config["blocks"])


def _read(folder: Path) -> tuple[TuneJuryHead, dict[str, Any]]:
    """The head and the other values of the configuration."""
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise ModelError(f"{folder}/config.json does not describe a reward; check the folder")
    if config.get("kind") != TUNEJURY_KIND:
        raise ModelError(f"{folder} is of kind {shortened(repr(config.get('kind')))}, not a reward; check the folder")
    values = {name: config[name] for name in _RewardFile.model_fields if name in config}
    try:
        file = validated(_RewardFile, values, f"{folder}/config.json does not describe a reward")
    except RecipeError as error:
        raise ModelError(str(error)) from None
    with torch.device("meta"):
        head = TuneJuryHead(file.head.input_dim, file.head.hidden, file.head.dropout)
    load_module(folder, head)
    others = {name: value for name, value in config.items() if name not in ("kind", "head")}
    return head, others | {"encoders": file.encoders, "blocks": file.blocks, "clap_through": file.clap_through}


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
    """The values of config.json that the reward is built from; there may be others."""

    head: _HeadFile
    encoders: _EncodersFile
    blocks: Annotated[tuple[str, ...], Field(min_length=1)]
    clap_through: Annotated[int, Field(ge=1000, le=10**6)] | None = None
