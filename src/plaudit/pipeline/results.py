"""The steps that say what came of it: clips of every stage, the score sweep, evaluation, the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from plaudit import loading
from plaudit.audio import read_audio, write_file
from plaudit.audio_format import AudioFormat
from plaudit.corpus.sources import HeldOut
from plaudit.evaluate.embeddings import AudioEncoder, reference_of
from plaudit.evaluate.set_metrics import SET_METRICS
from plaudit.generate.clips import ClipRequest, generate_clips
from plaudit.generate.postprocess import PostProcessor
from plaudit.generate.settings import Execution
from plaudit.pipeline.data import reference_clips, reward_model
from plaudit.pipeline.evaluators import EvaluatorPanel, coverage_of, embed_clips
from plaudit.pipeline.runner import Context, RunFiles
from plaudit.pipeline.stage_models import load_stage
from plaudit.pipeline.sweeps import SweepSetup, sweep_scores
from plaudit.recipe import Recipe

SETS = tuple(name for name in SET_METRICS if name != "frechet")
"""Metrics of a stage's clips as a set, besides the Frechet distance."""


def stages_of(recipe: Recipe) -> list[str]:
    """The rows of the stage table that are generated: the baseline, then each stage of the recipe.

    The baseline is the first stage's model without a conditioning score, so that only the condition differs.
    """
    return ["baseline", *recipe.model_stages]


def held_out(context: RunFiles, count: int) -> HeldOut:
    """Prompts that no stage was trained on."""
    return context.source.held_out(count, None if context.source.truth_known else context.shards)


def embed_reference(context: Context, folder: Path) -> None:
    """CLAP embeddings of the corpus's reference clips."""
    with context.reporter.progress("reference") as advance:
        np.save(folder / "embeddings.npy", embed_clips(context.models.clap, *reference_clips(context), advance))


def evaluators_for(context: Context, count: int) -> EvaluatorPanel:
    """Evaluators of this run's clips of `count` held-out prompts; with true utility where the truth is known."""
    name, source = context.recipe.models.clap, context.source
    encoder = AudioEncoder(name, loading.CLAPS.identity(name), context.models.clap)
    embeddings = np.load(context.path("reference") / "embeddings.npy")
    return EvaluatorPanel(
        held_out(context, count),
        reward_model(context),
        context.models.clap,
        reference_of(encoder, embeddings, "the run's reference"),
        source.true_utility(),
        coverage_of(source),
    )


def generate_stage(context: Context, folder: Path, stage: str) -> None:
    """The held-out prompts' clips of one stage, with the same seeds for every stage."""
    recipe = context.recipe
    found = held_out(context, recipe.evaluate.prompts)
    model = load_stage(context, recipe.model_stages[0] if stage == "baseline" else stage)
    settings = recipe.sampling.model_copy(update={"score": None} if stage == "baseline" else {})
    requests = [ClipRequest(f"{i:04d}", p, recipe.evaluate.seed + i) for i, p in enumerate(found.prompts)]
    with context.reporter.progress(f"clips of {stage}") as advance:
        generate_clips(model, requests, settings, folder, Execution(batch=recipe.sampling_batch), progress=advance)


def evaluate_stage(context: Context, folder: Path, clips: Path) -> None:
    """Score the clips in `clips` against the held-out prompts."""
    panel = evaluators_for(context, context.recipe.evaluate.prompts)
    panel.evaluate(sorted(clips.glob("*.wav")), SETS).save(folder)


def sweep(context: Context, folder: Path, stage: str) -> None:
    """Generate and score the held-out prompts at every score of the sweep; the seeds don't change with the score."""
    recipe = context.recipe
    trial = SweepSetup(
        evaluators_for(context, recipe.evaluate.sweep_prompts),
        recipe.evaluate.seed,
        Execution(batch=recipe.sampling_batch),
    )
    with context.reporter.progress(f"sweep of {stage}") as advance:
        sweep_scores(
            trial,
            context.path(stage),
            recipe.evaluate.sweep_scores,
            folder,
            sampling=recipe.sampling,
            device=str(context.accelerator.device),
            progress=advance,
        )


def finish_clips(context: Context, folder: Path, clips: Path) -> None:
    """Post-process the last stage's clips: what a listener is given."""
    post = context.recipe.post
    post = post.model_copy(update={"seconds": post.seconds or context.recipe.corpus.seconds})
    postprocessor = PostProcessor.load(post, AudioFormat())
    for path in sorted(clips.glob("*.wav")):
        wave, rate = read_audio(path)
        write_file(folder / path.name, postprocessor.encode([wave], rate, [{"clip": path.stem}])[0].content)
