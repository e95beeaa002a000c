"""The steps that say what came of it: clips of every stage, the score sweep, evaluation, the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from plaudit import loading
from plaudit.audio import read_audio, resample, write_file
from plaudit.audio_format import AudioFormat
from plaudit.errors import CorpusError
from plaudit.evaluate.embeddings import AudioEncoder, reference_of
from plaudit.evaluate.evaluator import embed_audio
from plaudit.evaluate.set_metrics import SET_METRICS
from plaudit.generate.clips import ClipRequest, generate_clips
from plaudit.generate.postprocess import PostProcessor
from plaudit.generate.settings import Execution
from plaudit.pipeline.candidates import sampling_settings
from plaudit.pipeline.data import reference_clips, reward_model
from plaudit.pipeline.evaluators import (
    EvaluatorPanel,
    HeldOut,
    synthetic_coverage,
    synthetic_listeners,
    synthetic_prompts,
    synthetic_reference,
)
from plaudit.pipeline.runner import Context, RunFiles
from plaudit.pipeline.stage_models import load_stage
from plaudit.pipeline.sweeps import SweepSetup, sweep_scores
from plaudit.recipe import Recipe

SETS = tuple(name for name in SET_METRICS if name != "frechet")
"""Metrics of a stage's clips as a set, besides the Frechet distance."""


def stages_of(recipe: Recipe) -> list[str]:
    """The rows of the stage table that are generated: the baseline, then each stage of the recipe.

    The baseline is the SFT model asked for no score; it shares SFT's weights, so that what differs is the condition.
    """
    return ["baseline", *recipe.stages.models]


def held_out(context: RunFiles, count: int) -> HeldOut:
    """Prompts of clean synthetic pieces outside the corpus, or captions of a folder's test split."""
    settings = context.recipe.corpus
    if settings.kind == "synthetic":
        return synthetic_prompts(count, settings.seconds)
    found = context.shards
    rows = [i for i, split in enumerate(found.splits) if split == "test"]
    prompts = list(dict.fromkeys(found.captions[row] for row in rows))
    if len(prompts) < 2:
        raise CorpusError(
            f"the test split has {len(prompts)} captions, evaluation needs 2; raise corpus.test_fraction or add clips"
        )
    return HeldOut(prompts[:count])


def embed_reference(context: Context, folder: Path) -> None:
    """CLAP embeddings of audio as it should sound: clean synthetic clips, or clips of the corpus."""
    settings = context.recipe.corpus
    with context.reporter.progress("reference") as advance:
        if settings.kind == "synthetic":
            count = context.recipe.evaluate.reference_clips
            found = synthetic_reference(context.clap, count, settings.seconds, advance)
        else:
            rate, parts = context.clap.sample_rate, []
            total, clips = reference_clips(context)
            for done, (heard, own_rate) in enumerate(clips, start=1):
                parts.append(embed_audio(context.clap, [torch.from_numpy(resample(heard, own_rate, rate))], rate))
                advance(done, total)
            found = np.concatenate(parts)
    np.save(folder / "embeddings.npy", found)


def evaluators_for(context: Context, count: int) -> EvaluatorPanel:
    """Who judges this run's clips of `count` held-out prompts; in the synthetic world also those who know the truth."""
    name, found = context.recipe.models.clap, held_out(context, count)
    listener = AudioEncoder(name, loading.CLAPS.identity(name), context.clap)
    heard, known = np.load(context.path("reference") / "embeddings.npy"), found.truths is not None
    return EvaluatorPanel(
        found,
        reward_model(context),
        context.clap,
        reference_of(listener, heard, "the run's reference"),
        synthetic_listeners(context.probes) if known else None,
        synthetic_coverage(context.probes) if known else None,
    )


def generate_stage(context: Context, folder: Path, stage: str) -> None:
    """The held-out prompts' clips of one stage, with the same seeds for every stage."""
    recipe = context.recipe
    found = held_out(context, recipe.evaluate.prompts)
    model = load_stage(context, "sft" if stage == "baseline" else stage)
    settings = sampling_settings(context, None if stage == "baseline" else recipe.sampling.score)
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
