"""Stages as steps of a run, and the model that the first one starts from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import plaudit
from plaudit import loading
from plaudit.backbone.base import Backbone, build_backbone, configure, cross_load, initialize
from plaudit.backbone.config import BackboneConfig
from plaudit.corpus.sources import CorpusSettings, corpus_source
from plaudit.errors import RecipeError
from plaudit.generate.model import ModelConfig, TextToMusic, read_model_config
from plaudit.generate.settings import SamplingSettings
from plaudit.pipeline.data import labelled_rows, load_reward
from plaudit.pipeline.runner import RunContext
from plaudit.recipe import BackboneSettings, Recipe, RewardSourceSettings
from plaudit.stages import Stage, StageSettings
from plaudit.stages.inputs import FrozenModels, StageInputs
from plaudit.training.data import Source
from plaudit.training.settings import LoopSettings
from plaudit.types import Codec, TextEncoder

FIRST_INJECTION = "global_adaln"
"""Where the conditioning score enters by default, as in the paper."""


@dataclass(frozen=True)
class StageSetup:
    """The models and settings shared by all stages of a recipe. provenance: of the models that stages save."""

    corpus: CorpusSettings
    models: FrozenModels
    reward: RewardSourceSettings
    backbone: BackboneSettings
    sampling: SamplingSettings
    sampling_batch: int
    seconds: float  # apart from `corpus`, since most stages do not depend on it
    loop: LoopSettings
    provenance: dict[str, Any]

    @classmethod
    def of(cls, recipe: Recipe, models: FrozenModels) -> StageSetup:
        """The setup in a recipe."""
        provenance = {"recipe": recipe.name, "recipe_hash": recipe.fingerprint(), "version": plaudit.__version__}
        if recipe.backbone.start_from is not None:
            provenance["started_from"] = recipe.backbone.start_from
        return cls(
            recipe.corpus,
            models,
            recipe.reward,
            recipe.backbone,
            recipe.sampling,
            recipe.sampling_batch,
            recipe.corpus.seconds,
            recipe.training_loop,
            provenance,
        )


def run_stage(
    run: RunContext,
    folder: Path,
    stage: type[Stage],
    settings: StageSettings,
    start: str | None,
    pairs: str | None,
    setup: StageSetup,
) -> None:
    """Run a stage and save the model that it returns. start, pairs: the stages whose model and pairs it uses."""
    if stage.makes == "model":
        saved = (folder / "config.json").exists()  # by a process that was killed right after
        if run.processes.broadcast(saved) if "training" in stage.uses else saved:
            return
    inputs = StageInputs(
        uses=stage.uses,
        start=partial(starting_model, run, setup) if start is None else partial(load_stage, run, start),
        rows=partial(labelled_rows, run, setup.corpus),
        pairs_folder=None if pairs is None else run.path(pairs),
        models=setup.models,
        reward=partial(load_reward, run, setup.reward),
        sampling=setup.sampling,
        sampling_batch=setup.sampling_batch,
        seconds=setup.seconds,
        loop=setup.loop,
        provenance=setup.provenance,
        accelerator=run.accelerator,
        processes=run.processes,
        progress=run.reporter.progress,
    )
    model = stage().run(settings, inputs, folder)
    if model is not None:
        inputs.save(model, folder)


def starting_model(run: RunContext, setup: StageSetup) -> TextToMusic:
    """The model for the first stage: a new network of the recipe's sizes, or that of `backbone.start_from`."""
    settings, models, data = setup.backbone, setup.models, labelled_rows(run, setup.corpus, "train")
    if settings.start_from is not None:
        return _started_from(run, setup, settings.start_from, data)
    backbone = build_backbone(backbone_config(settings, models.codec, models.text_encoder))
    initialize(backbone, settings.seed)
    backbone.set_statistics(
        torch.as_tensor(data.shards.latent_mean),
        torch.as_tensor(data.shards.latent_std),
        float(data.scores.mean()),
        float(data.scores.std()),
        models.text_encoder.encode([""]).to("cpu"),
    )
    return _assembled(setup, backbone.to(run.accelerator.device), _licence(setup))


def _started_from(run: RunContext, setup: StageSetup, name: str, data: Source) -> TextToMusic:
    """A model as it is, but for the injection that the recipe names.

    It keeps the statistics that its weights were trained with; one without a score takes those of `data`.
    """
    config = read_model_config(loading.model_folder(name, loading.MODELS))
    for part in ("codec", "text_encoder"):
        if (trained := getattr(config, part)) != setup.models.names[part]:
            raise RecipeError(f"model {name} was trained with {part} {trained!r}; set models.{part}={trained}")
    backbone, native = loading.load(name, run.accelerator.device).backbone, config.backbone.injection
    injection = setup.backbone.injection or (native if native != "none" else FIRST_INJECTION)
    if injection != backbone.config.injection:
        backbone, _ = cross_load(backbone.state_dict(), replace(backbone.config, injection=injection))
    if native == "none":
        backbone.score_mean.fill_(float(data.scores.mean()))
        backbone.score_std.fill_(float(data.scores.std()))
    return _assembled(setup, backbone.to(run.accelerator.device), config.licence)


def _assembled(setup: StageSetup, backbone: Backbone, licence: str) -> TextToMusic:
    config = ModelConfig(
        backbone=backbone.config,
        codec=setup.models.names["codec"],
        text_encoder=setup.models.names["text_encoder"],
        seconds=setup.corpus.seconds,
        licence=licence,
        provenance={},
        sampling=setup.sampling,
    )
    return TextToMusic(backbone, setup.models.codec, setup.models.text_encoder, config)


def backbone_config(settings: BackboneSettings, codec: Codec, text: TextEncoder) -> BackboneConfig:
    """The recipe's preset and overrides, with the sizes that codec and text encoder have."""
    inputs = {
        "latent_dim": codec.latent_dim,
        "text_dim": text.token_dim,
        "text_c_dim": text.pooled_dim,
        "text_length": text.length,
    }
    for name, size in inputs.items():
        if settings.overrides.get(name, size) != size:
            raise RecipeError(f"backbone.overrides.{name} is {size} with this codec and text encoder; leave it out")
    sizes = {**settings.overrides, **inputs}
    return configure(settings.kind, settings.preset, settings.injection or FIRST_INJECTION, sizes)


def _licence(setup: StageSetup) -> str:
    """The licence where those of the corpus and of the frozen models are known; otherwise up to the data's owner."""
    parts = {setup.models.names["codec"], setup.models.names["text_encoder"]}
    licence = corpus_source(setup.corpus).licence if parts <= loading.SHIPPED_LICENCES.keys() else None
    return licence or "not stated; those of the data, the reward and the parts named here apply"


def load_stage(run: RunContext, stage: str) -> TextToMusic:
    """The model that a stage of this run left."""
    return loading.load(str(run.path(stage)), run.accelerator.device)


def load_outside(run: RunContext, name: str) -> TextToMusic:
    """A model from outside the run, by its name or folder."""
    return loading.load(name, run.accelerator.device)
