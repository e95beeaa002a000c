"""The training steps of a run, and their callbacks."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from plaudit import loading
from plaudit.backbone.base import FORWARD_AND_BACKWARD, cross_load
from plaudit.errors import RecipeError
from plaudit.generate.clips import ClipRequest, generate_clips
from plaudit.generate.model import TextToMusic
from plaudit.generate.settings import Execution
from plaudit.models.inspecting import require_fit
from plaudit.pipeline.candidates import encode_clips, make_candidates, training_captions, training_rows
from plaudit.pipeline.data import labels, shards
from plaudit.pipeline.runner import Context
from plaudit.pipeline.stage_models import load_stage, save_stage, starting_model
from plaudit.stages.crpo import CrpoObjective
from plaudit.stages.expert_iteration import keep_best
from plaudit.stages.nft import NftObjective, scored_source
from plaudit.stages.preference_data import pair_sources
from plaudit.stages.sft import SftObjective
from plaudit.storage import write_json
from plaudit.training.data import Source, TrainingSet, validation_losses
from plaudit.training.loop import Callback, Objective, train
from plaudit.training.lora import add_adapters, merge_adapters, without_adapters
from plaudit.training.settings import ExpertIterationSettings, TrainSettings

VALIDATION, SAMPLES = "validation", "samples"


def training_callbacks(context: Context, model: TextToMusic, settings: TrainSettings, work: Path) -> list[Callback]:
    """The events that the recipe's `loop` asks for; rows go to `validation.jsonl`, clips to `samples/<step>/`.

    model: the one in training, adapters included where it has some.
    """
    loop, events = context.recipe.training_loop, []
    if loop.validate_every:
        found = shards(context)
        rows = found.rows("validation")
        if not len(rows):
            raise RecipeError("training_loop.validate_every needs held-out clips; raise corpus.validation_fraction")
        held_out = Source(found, rows, labels(context)[rows])

        def validate(step: int) -> dict[str, float]:
            with context.accelerator.autocast():
                return validation_losses(model.backbone, held_out, loop.validation_clips, settings.batch)

        events.append(Callback(VALIDATION, loop.validate_every, validate))
    if loop.sample_every:
        requests = [ClipRequest(f"{i:02d}", prompt, i) for i, prompt in enumerate(loop.sample_prompts)]

        def sample(step: int) -> dict[str, float]:
            folder = work / SAMPLES / f"{step:08d}"
            whole = model if settings.lora is None else replace(model, backbone=without_adapters(model.backbone))
            generate_clips(whole, requests, context.recipe.sampling, folder, Execution(batch=len(requests)))
            return {}

        events.append(Callback(SAMPLES, loop.sample_every, sample))
    return events


ADAPTERS = "adapters"


def sft(context: Context, folder: Path) -> None:
    """Train on the labelled corpus."""
    data = training_rows(context)
    fit_flow(context, starting_model(context, data), [data], context.recipe.stages.sft.train, folder)


def expert_iteration(context: Context, folder: Path) -> None:
    """Rounds of: make candidates, rank them, train on corpus + kept or on the kept alone, then on the kept alone."""
    settings = context.recipe.stages.expert_iteration
    assert settings is not None
    model = load_stage(context, context.recipe.stages.before("expert_iteration"))
    for number in range(settings.rounds):
        place = folder / f"round-{number + 1}"
        with context.processes.main_process_first():
            kept = _keep(context, model, settings, place, settings.seed + number * settings.candidates)
        sources = (
            [training_rows(context), replace(kept, weight=settings.oversample)] if settings.include_corpus else [kept]
        )
        fit_flow(context, model, sources, settings.train, place / "mixed")
        if settings.fine_tune is not None:
            fit_flow(context, model, [kept], settings.fine_tune, place / "fine_tune")
    save_stage(context, model, folder)


def _keep(context: Context, model: TextToMusic, settings: ExpertIterationSettings, folder: Path, seed: int) -> Source:
    """One round's candidates, the best of them, and these as a training source: their rewards are their conditions."""
    captions = training_captions(context, settings.candidates, seed)
    made = make_candidates(context, model, captions, seed, settings.score, folder / "candidates")
    chosen = keep_best(made.reward, made.clap, settings.keep).tolist()
    kept = [{"clip": made.paths[i].name, "reward": made.reward[i], "clap": made.clap[i]} for i in chosen]
    write_json(folder / "kept.json", kept)
    found = encode_clips(context, {f"{i:05d}": (captions[i], made.paths[i]) for i in chosen}, folder / "kept")
    row_of = {int(id): row for row, id in enumerate(found.ids)}
    usable = [i for i in chosen if i in row_of]
    return Source(found, np.array([row_of[i] for i in usable]), made.reward[usable])


def cross_load_stage(context: Context, folder: Path) -> None:
    """Load the weights into the forward of another injection, without training."""
    settings = context.recipe.stages.cross_load
    assert settings is not None
    model = load_stage(context, context.recipe.stages.before("cross_load"))
    config = replace(model.config.backbone, injection=settings.injection)
    backbone, report = cross_load(model.backbone.state_dict(), config)
    write_json(folder / "cross_load.json", asdict(report))
    save_stage(context, TextToMusic(backbone, model.codec, model.text_encoder, model.config), folder)


def crpo(context: Context, folder: Path) -> None:
    """Tune on the pairs against a frozen reference."""
    settings = context.recipe.stages.crpo
    assert settings is not None
    model, reference = (load_stage(context, context.recipe.stages.before("crpo")) for _ in range(2))
    winners, losers = pair_sources(context.path("pairs"))
    reference.backbone.requires_grad_(False)
    objective = CrpoObjective(model.backbone, reference.backbone, winners, losers, settings)
    fit(context, model, objective, settings.train, folder, trained=2, frozen=2)
    save_stage(context, model, folder)


def nft(context: Context, folder: Path) -> None:
    """Tune on all candidates by how good they are, against a frozen copy of the model that made them."""
    settings = context.recipe.stages.nft
    assert settings is not None
    model, old = (load_stage(context, context.recipe.stages.before("nft")) for _ in range(2))
    clips, good = scored_source(context.path("pairs"), settings)
    old.backbone.requires_grad_(False)
    objective = NftObjective(model.backbone, old.backbone, clips, good, settings)
    fit(context, model, objective, settings.train, folder, trained=1, frozen=1)
    save_stage(context, model, folder)


def fit_flow(
    context: Context, model: TextToMusic, sources: list[Source], settings: TrainSettings, folder: Path
) -> None:
    """Flow training on `sources`; leaves a model folder, and takes the model from it where it is there already."""
    if context.processes.broadcast((folder / "config.json").exists()):
        found = loading.load(str(folder))
        model.backbone.load_state_dict(found.backbone.state_dict())
        model.config = found.config
        return
    objective = SftObjective(model.backbone, TrainingSet(sources, settings.seed), settings)
    fit(context, model, objective, settings, folder, trained=1, frozen=0)
    save_stage(context, model, folder)


def fit(
    context: Context,
    model: TextToMusic,
    objective: Objective,
    settings: TrainSettings,
    work: Path,
    trained: int,
    frozen: int,
) -> None:
    """Train the model's backbone, once its parts are seen to fit; its average then takes the place of its weights.

    trained, frozen: how many times one clip's (or pair's) part of an update passes the trained network, forward and
    back, and a frozen one. Adapters, where the settings ask for them, are kept in `work` and merged.
    """
    require_fit(model)
    loop, events = context.recipe.training_loop, training_callbacks(context, model, settings, work)
    adapters = add_adapters(model.backbone, settings.lora, settings.seed) if settings.lora is not None else None
    # The gradients of frozen weights, a third of the products, are not computed.
    passes = trained * (FORWARD_AND_BACKWARD if adapters is None else FORWARD_AND_BACKWARD - 1) + frozen
    flops = passes * model.backbone.forward_flops(model.frames)
    with context.reporter.progress(f"training {work.name}") as advance:
        ema = train(model.backbone, objective, settings, work, context.accelerator, advance, loop, events, flops)
    if settings.steps:
        ema.copy_to(model.backbone)
    if adapters is not None:
        merge_adapters(adapters, model.backbone, work / ADAPTERS)
