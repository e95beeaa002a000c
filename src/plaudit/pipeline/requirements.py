"""What a recipe needs that does not come with the package: data, files, models and packages, and whether it is here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from plaudit import loading
from plaudit.corpus.sources import corpus_source
from plaudit.models.releases import RELEASES
from plaudit.recipe import Recipe, stage_of
from plaudit.registry import Registry
from plaudit.stages import StageSettings
from plaudit.training.settings import TrainSettings


@dataclass(frozen=True)
class Requirement:
    """A file, model or package. otherwise: what to do where it is missing."""

    what: str
    name: str
    here: bool
    otherwise: str


def requirements_of(recipe: Recipe) -> list[Requirement]:
    """Data and models of a recipe; those that come with the package are left out."""
    return [*_required_data(recipe), *requirements_beside_data(recipe)]


def requirements_beside_data(recipe: Recipe) -> list[Requirement]:
    """Files, models and packages of a recipe; all but its corpus."""
    files = [file for stage in recipe.stages for file in _required_files(stage)]
    return [*files, *_for_evaluation(recipe), *_required_models(recipe)]


def _for_evaluation(recipe: Recipe) -> list[Requirement]:
    evaluate, requirements = recipe.evaluate, []
    for what, place in (("prompts", evaluate.prompt_file), ("reference", evaluate.reference)):
        if place is not None:
            action = f"plaudit prepare song-describer AUDIO --{what} {place}"
            requirements.append(Requirement(what, str(place), place.exists(), action))
    if evaluate.tags is not None:
        action = "give a table of prompts with genre, instrument and mood"
        requirements.append(Requirement("tags", str(evaluate.tags), evaluate.tags.is_file(), action))
    return requirements


def requirements_of_stage(recipe: Recipe, stage: StageSettings) -> list[Requirement]:
    """The requirements of a recipe that one stage needs directly, not through the stages before it."""
    uses, first = stage_of(stage).uses, recipe.start_of(stage.name) is None
    clips = first or bool({"corpus", "candidates"} & {*uses})
    kinds = {"codec", "text encoder"} | ({"model to start from"} if first else set())
    if "candidates" in uses or (clips and recipe.reward.kind == "load"):
        kinds |= {"CLAP", "audio embedder", "reward"}
    adapters = any(settings.lora is not None for settings in passes_of(stage))
    models = [
        model
        for model in _required_models(recipe)
        if model.what in kinds or (adapters and (model.what, model.name) == ("package", "peft"))
    ]
    return [*(_required_data(recipe) if clips else []), *_required_files(stage), *models]


def _required_data(recipe: Recipe) -> list[Requirement]:
    return [Requirement(*row) for row in corpus_source(recipe.corpus).requirements()]


def _required_files(stage: StageSettings) -> list[Requirement]:
    return [
        Requirement(
            stage.kind,
            str(getattr(stage, name)),
            digest() != "none",
            f"set stages.{stage.name}.{name} to a file that is here",
        )
        for name, digest in stage_of(stage).files(stage).items()
    ]


def _required_models(recipe: Recipe) -> list[Requirement]:
    models = recipe.models
    named: list[tuple[str, str, Registry[Any]]] = [
        ("codec", models.codec, loading.CODECS),
        ("text encoder", models.text_encoder, loading.TEXT_ENCODERS),
        ("CLAP", models.clap, loading.CLAPS),
        ("audio embedder", models.audio_embedder, loading.AUDIO_ENCODERS),
        *([] if recipe.reward.kind == "train" else [("reward", recipe.reward.name, loading.REWARDS)]),
    ]
    requirements = [
        Requirement(what, name, registry.identity(name) != "none", _fetching(name))
        for what, name, registry in named
        if name not in registry.names()
    ]
    start = recipe.backbone.start_from
    if start is not None and start not in loading.MODELS:
        here = loading.start_digest(start) != "none"
        requirements.append(Requirement("model to start from", start, here, _fetching(start)))
    baseline = recipe.evaluate.baseline
    if baseline is not None and baseline.model not in loading.MODELS:
        here = loading.start_digest(baseline.model) != "none"
        action = _fetching(baseline.model) if baseline.model in RELEASES else "train it, or name another model"
        requirements.append(Requirement("baseline", baseline.model, here, action))
    adapters = any(settings.lora is not None for settings in training_passes(recipe))
    for package, extra, needed in (("demucs", "separate", recipe.post.separate.passes), ("peft", "finetune", adapters)):
        if needed:
            here = find_spec(package) is not None
            requirements.append(Requirement("package", package, here, f"pip install 'plaudit[{extra}]'"))
    return requirements


def passes_of(stage: StageSettings) -> list[TrainSettings]:
    """The settings of a stage's training passes."""
    return [value for value in stage.__dict__.values() if isinstance(value, TrainSettings)]


def training_passes(recipe: Recipe) -> list[TrainSettings]:
    """Those of all stages."""
    return [one for stage in recipe.stages for one in passes_of(stage)]


def _fetching(name: str) -> str:
    return f"plaudit models fetch {name}" if name in RELEASES else "give the path of a folder that is here"
