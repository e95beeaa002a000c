"""The steps that say what came of it: clips of every stage, the score sweep, evaluation, the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from plaudit import loading
from plaudit.audio import read_audio, write_file
from plaudit.audio_format import AudioFormat
from plaudit.corpus.sources import CorpusSettings, HeldOut, corpus_source
from plaudit.evaluate.embeddings import AudioEncoder, reference_of
from plaudit.evaluate.set_metrics import SET_METRICS
from plaudit.generate.clips import ClipRequest, generate_clips
from plaudit.generate.postprocess import PostProcessor
from plaudit.generate.settings import Execution, PostSettings, SamplingSettings
from plaudit.pipeline.data import encoded_corpus, load_reward, reference_clips
from plaudit.pipeline.evaluators import EvaluatorPanel, coverage_of, embed_clips
from plaudit.pipeline.models import load_stage
from plaudit.pipeline.runner import RunContext, RunFiles
from plaudit.pipeline.sweeps import SweepSetup, sweep_scores
from plaudit.recipe import EvaluateSettings, Recipe, RewardSourceSettings
from plaudit.stages.inputs import FrozenModels

SETS = tuple(name for name in SET_METRICS if name != "frechet")
"""Metrics of a stage's clips as a set, besides the Frechet distance."""


def stages_of(recipe: Recipe) -> list[str]:
    """The rows of the stage table that are generated: the baseline, then each stage of the recipe.

    The baseline is the first stage's model without a conditioning score, so that only the condition differs.
    """
    return ["baseline", *recipe.model_stages]


def held_out(run: RunFiles, corpus: CorpusSettings, count: int) -> HeldOut:
    """Prompts that no stage was trained on."""
    source = corpus_source(corpus)
    return source.held_out(count, None if source.truth_known else encoded_corpus(run, corpus))


def embed_reference(run: RunContext, folder: Path, corpus: CorpusSettings, models: FrozenModels, count: int) -> None:
    """CLAP embeddings of the corpus's reference clips."""
    clips = reference_clips(run, corpus, models, count)
    with run.reporter.progress("reference") as advance:
        np.save(folder / "embeddings.npy", embed_clips(models.clap, *clips, advance))


def evaluators_for(
    run: RunContext, corpus: CorpusSettings, models: FrozenModels, reward: RewardSourceSettings, count: int
) -> EvaluatorPanel:
    """Evaluators of this run's clips of `count` held-out prompts; with true utility where the truth is known."""
    name, source = models.names["clap"], corpus_source(corpus)
    encoder = AudioEncoder(name, loading.CLAPS.identity(name), models.clap)
    embeddings = np.load(run.path("reference") / "embeddings.npy")
    return EvaluatorPanel(
        held_out(run, corpus, count),
        load_reward(run, reward),
        models.clap,
        reference_of(encoder, embeddings, "the run's reference"),
        source.true_utility(),
        coverage_of(source),
    )


def generate_stage(
    run: RunContext,
    folder: Path,
    label: str,
    stage: str,
    corpus: CorpusSettings,
    evaluate: EvaluateSettings,
    sampling: SamplingSettings,
    batch: int,
) -> None:
    """Clips of the held-out prompts by a stage's model, with the same seeds for every stage. label: of the progress."""
    prompts = held_out(run, corpus, evaluate.prompts).prompts
    model = load_stage(run, stage)
    requests = [ClipRequest(f"{i:04d}", prompt, evaluate.seed + i) for i, prompt in enumerate(prompts)]
    with run.reporter.progress(f"clips of {label}") as advance:
        generate_clips(model, requests, sampling, folder, Execution(batch=batch), progress=advance)


def evaluate_stage(
    run: RunContext,
    folder: Path,
    clips: str,
    corpus: CorpusSettings,
    models: FrozenModels,
    reward: RewardSourceSettings,
    prompts: int,
) -> None:
    """Score the clips of the step `clips` against the held-out prompts."""
    panel = evaluators_for(run, corpus, models, reward, prompts)
    panel.evaluate(sorted(run.path(clips).glob("*.wav")), SETS).save(folder)


def sweep(
    run: RunContext,
    folder: Path,
    stage: str,
    corpus: CorpusSettings,
    models: FrozenModels,
    reward: RewardSourceSettings,
    evaluate: EvaluateSettings,
    sampling: SamplingSettings,
    batch: int,
) -> None:
    """Generate and score the held-out prompts at every score of the sweep; the seeds don't change with the score."""
    panel = evaluators_for(run, corpus, models, reward, evaluate.sweep_prompts)
    setup = SweepSetup(panel, evaluate.seed, Execution(batch=batch))
    with run.reporter.progress(f"sweep of {stage}") as advance:
        sweep_scores(
            setup,
            run.path(stage),
            evaluate.sweep_scores,
            folder,
            sampling=sampling,
            device=str(run.accelerator.device),
            progress=advance,
        )


def finish_clips(run: RunContext, folder: Path, clips: str, post: PostSettings) -> None:
    """Post-process the clips of the step `clips`, as they are published."""
    postprocessor = PostProcessor.load(post, AudioFormat())
    for path in sorted(run.path(clips).glob("*.wav")):
        wave, rate = read_audio(path)
        write_file(folder / path.name, postprocessor.encode([wave], rate, [{"clip": path.stem}])[0].content)
