"""The stages of a run: the model that the first one starts from, and the step that runs each."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import plaudit
from plaudit import loading
from plaudit.backbone.base import Backbone, build_backbone, cross_load, initialize
from plaudit.backbone.config import PRESETS, BackboneConfig
from plaudit.corpus.sources import corpus_source
from plaudit.errors import RecipeError
from plaudit.generate.model import ModelConfig, TextToMusic, read_model_config
from plaudit.pipeline.data import labelled_rows, reward_model
from plaudit.pipeline.runner import Context
from plaudit.recipe import Recipe
from plaudit.stages import Stage, StageSettings
from plaudit.stages.inputs import StageInputs
from plaudit.training.data import Source
from plaudit.types import Codec, TextEncoder

FIRST_INJECTION = "global_adaln"
"""Where the conditioning score enters by default, as in the paper."""


def run_stage(
    context: Context,
    folder: Path,
    stage: type[Stage],
    settings: StageSettings,
    start: str | None,
    pairs: str | None,
) -> None:
    """Run a stage and save the model that it returns. start, pairs: the stages whose model and pairs it uses."""
    recipe = context.recipe
    if stage.makes == "model":
        saved = (folder / "config.json").exists()  # by a process that was killed right after
        if context.processes.broadcast(saved) if "training" in stage.uses else saved:
            return
    provenance: dict[str, Any] = {
        "recipe": recipe.name,
        "recipe_hash": recipe.fingerprint(),
        "version": plaudit.__version__,
    }
    if recipe.backbone.start_from is not None:
        provenance["started_from"] = recipe.backbone.start_from
    inputs = StageInputs(
        uses=stage.uses,
        start=partial(starting_model, context) if start is None else partial(load_stage, context, start),
        rows=partial(labelled_rows, context),
        pairs_folder=None if pairs is None else context.path(pairs),
        models=context.models,
        reward=partial(reward_model, context),
        sampling=recipe.sampling,
        sampling_batch=recipe.sampling_batch,
        seconds=recipe.corpus.seconds,
        loop=recipe.training_loop,
        provenance=provenance,
        accelerator=context.accelerator,
        processes=context.processes,
        progress=context.reporter.progress,
    )
    model = stage().run(settings, inputs, folder)
    if model is not None:
        inputs.save(model, folder)


def starting_model(context: Context) -> TextToMusic:
    """What the first stage trains: a new network of the recipe's sizes, or the model of `backbone.start_from`."""
    recipe, models, data = context.recipe, context.models, labelled_rows(context, "train")
    if recipe.backbone.start_from is not None:
        return _started_from(context, recipe.backbone.start_from, data)
    backbone = build_backbone(backbone_config(recipe, models.codec, models.text_encoder))
    initialize(backbone, recipe.backbone.seed)
    backbone.set_statistics(
        torch.as_tensor(data.shards.latent_mean),
        torch.as_tensor(data.shards.latent_std),
        float(data.scores.mean()),
        float(data.scores.std()),
        models.text_encoder.encode([""]),
    )
    return _assembled(context, backbone, _licence(recipe))


def _started_from(context: Context, name: str, data: Source) -> TextToMusic:
    """A model as it is, but for the injection that the recipe names.

    It keeps the statistics that its weights were trained with; one without a score takes those of `data`.
    """
    recipe, config = context.recipe, read_model_config(loading.model_folder(name, loading.MODELS))
    for part in ("codec", "text_encoder"):
        if (trained := getattr(config, part)) != getattr(recipe.models, part):
            raise RecipeError(f"model {name} was trained with {part} {trained!r}; set models.{part}={trained}")
    backbone, native = loading.load(name, str(context.accelerator.device)).backbone, config.backbone.injection
    injection = recipe.backbone.injection or (native if native != "none" else FIRST_INJECTION)
    if injection != backbone.config.injection:
        backbone, _ = cross_load(backbone.state_dict(), replace(backbone.config, injection=injection))
    if native == "none":
        backbone.score_mean.fill_(float(data.scores.mean()))
        backbone.score_std.fill_(float(data.scores.std()))
    return _assembled(context, backbone, config.licence)


def _assembled(context: Context, backbone: Backbone, licence: str) -> TextToMusic:
    recipe = context.recipe
    config = ModelConfig(
        backbone=backbone.config,
        codec=recipe.models.codec,
        text_encoder=recipe.models.text_encoder,
        seconds=recipe.corpus.seconds,
        licence=licence,
        provenance={},
        sampling=recipe.sampling,
    )
    return TextToMusic(backbone, context.models.codec, context.models.text_encoder, config)


def backbone_config(recipe: Recipe, codec: Codec, text: TextEncoder) -> BackboneConfig:
    """The recipe's preset and overrides, with the sizes that codec and text encoder have."""
    inputs = {
        "latent_dim": codec.latent_dim,
        "text_dim": text.token_dim,
        "text_c_dim": text.pooled_dim,
        "text_length": text.length,
    }
    for name, size in inputs.items():
        if recipe.backbone.overrides.get(name, size) != size:
            raise RecipeError(f"backbone.overrides.{name} is {size} with this codec and text encoder; leave it out")
    sizes = {**recipe.backbone.overrides, **inputs}
    return replace(PRESETS[recipe.backbone.preset], injection=recipe.backbone.injection or FIRST_INJECTION, **sizes)


def _licence(recipe: Recipe) -> str:
    """Known where those of the corpus and of the frozen models are; elsewhere the data's owner decides."""
    parts = {recipe.models.codec, recipe.models.text_encoder}
    licence = corpus_source(recipe.corpus).licence if parts <= loading.SHIPPED_LICENCES.keys() else None
    return licence or "not stated; those of the data, the reward and the parts named here apply"


def load_stage(context: Context, stage: str) -> TextToMusic:
    """The model that a stage of this run left."""
    return loading.load(str(context.path(stage)), str(context.accelerator.device))
