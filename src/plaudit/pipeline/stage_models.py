"""The models of a run: the one that training begins with, and the folder that each stage leaves for the next."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import plaudit
from plaudit import loading
from plaudit.backbone.base import Backbone, build_backbone, cross_load, initialize
from plaudit.backbone.config import PRESETS, BackboneConfig
from plaudit.corpus.sources import corpus_source
from plaudit.errors import RecipeError
from plaudit.generate.model import ModelConfig, TextToMusic, read_model_config, save_model
from plaudit.pipeline.runner import Context
from plaudit.recipe import Recipe
from plaudit.training.data import Source
from plaudit.training.loop import CHECKPOINTS
from plaudit.types import Codec, TextEncoder

FIRST_INJECTION = "global_adaln"
"""Where SFT takes the score unless told otherwise, as in the paper."""


def starting_model(context: Context, data: Source) -> TextToMusic:
    """What SFT trains: a new network of the recipe's sizes, or the model of `backbone.start_from`."""
    if context.recipe.backbone.start_from is not None:
        return _started_from(context, context.recipe.backbone.start_from, data)
    recipe = context.recipe
    config = backbone_config(recipe, context.codec, context.text_encoder)
    backbone = build_backbone(config)
    initialize(backbone, recipe.backbone.seed)
    backbone.set_statistics(
        torch.as_tensor(data.shards.latent_mean),
        torch.as_tensor(data.shards.latent_std),
        float(data.scores.mean()),
        float(data.scores.std()),
        context.text_encoder.encode([""]),
    )
    return _whole(context, backbone, _licence(recipe))


def _started_from(context: Context, name: str, data: Source) -> TextToMusic:
    """A model as it was, but for the injection that the recipe asks for.

    It keeps the statistics that its weights were trained with; one that never knew a score takes those of `data`.
    """
    recipe, known = context.recipe, read_model_config(loading.model_folder(name, loading.MODELS))
    for what in ("codec", "text_encoder"):
        wanted, named = getattr(known, what), getattr(recipe.models, what)
        if wanted != named:
            raise RecipeError(f"model {name} was trained with {what} {wanted!r}; set models.{what}={wanted}")
    backbone, own = loading.load(name, str(context.accelerator.device)).backbone, known.backbone.injection
    injection = recipe.stages.sft.injection or (own if own != "none" else FIRST_INJECTION)
    if injection != backbone.config.injection:
        backbone, _ = cross_load(backbone.state_dict(), replace(backbone.config, injection=injection))
    if own == "none":
        backbone.score_mean.fill_(float(data.scores.mean()))
        backbone.score_std.fill_(float(data.scores.std()))
    return _whole(context, backbone, known.licence)


def _whole(context: Context, backbone: Backbone, licence: str) -> TextToMusic:
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
    return TextToMusic(backbone, context.codec, context.text_encoder, config)


def backbone_config(recipe: Recipe, codec: Codec, text: TextEncoder) -> BackboneConfig:
    """The recipe's preset and overrides; what it takes in has the sizes of the codec and the text encoder."""
    taken = {
        "latent_dim": codec.latent_dim,
        "text_dim": text.token_dim,
        "text_c_dim": text.pooled_dim,
        "text_length": text.length,
    }
    for name, size in taken.items():
        if recipe.backbone.overrides.get(name, size) != size:
            raise RecipeError(f"backbone.overrides.{name} is {size} with this codec and text encoder; leave it out")
    sizes = {**recipe.backbone.overrides, **taken}
    return replace(PRESETS[recipe.backbone.preset], injection=recipe.stages.sft.injection or FIRST_INJECTION, **sizes)


def _licence(recipe: Recipe) -> str:
    """Known where those of the corpus and of the frozen models are; elsewhere the data's owner decides."""
    parts = {recipe.models.codec, recipe.models.text_encoder}
    licence = corpus_source(recipe.corpus).licence if parts <= loading.SHIPPED_LICENCES.keys() else None
    return licence or "not stated; those of the data, the reward and the parts named here apply"


def load_stage(context: Context, stage: str) -> TextToMusic:
    """The model that a stage of this run left."""
    return loading.load(str(context.path(stage)), str(context.accelerator.device))


def save_stage(context: Context, model: TextToMusic, folder: Path) -> None:
    """Leave the model folder of a stage, or of a pass within one, and drop what training would go on from."""
    made: dict[str, Any] = {
        "recipe": context.recipe.name,
        "recipe_hash": context.recipe.fingerprint(),
        "stage": folder.name,
        "version": plaudit.__version__,
    }
    if context.recipe.backbone.start_from is not None:
        made["started_from"] = context.recipe.backbone.start_from
    model.config = replace(model.config, backbone=model.backbone.config, provenance=made)
    if context.processes.is_main:
        save_model(folder, model)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
