"""The steps after training: clips of every stage, their evaluation, and sweeps over the conditioning score."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from plaudit import loading
from plaudit.audio import read_audio, write_file
from plaudit.audio_format import AudioFormat
from plaudit.corpus.sources import CorpusSettings, HeldOut, corpus_source
from plaudit.evaluate.concepts.vocabulary import SHIPPED_VOCABULARY, load_vocabulary
from plaudit.evaluate.embeddings import AudioEncoder, embed_recordings, reference_of
from plaudit.evaluate.evaluation import EvaluationSetup, Evaluators
from plaudit.generate.clips import ClipRequest, generate_clips
from plaudit.generate.postprocess import PostProcessor
from plaudit.generate.settings import Execution, PostSettings, SamplingSettings
from plaudit.pipeline.data import encoded_corpus, load_reward, reference_clips
from plaudit.pipeline.models import load_stage
from plaudit.pipeline.runner import RunContext, RunFiles
from plaudit.pipeline.sweeps import sweep_scores
from plaudit.recipe import EvaluateSettings, Recipe, RewardSourceSettings
from plaudit.stages.inputs import FrozenModels


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
        np.save(folder / "embeddings.npy", embed_recordings(models.clap, *clips, advance))


def evaluation_setup(
    run: RunContext, corpus: CorpusSettings, models: FrozenModels, reward: RewardSourceSettings,
    evaluate: EvaluateSettings, count: int, *, all_sets: bool = False,
) -> EvaluationSetup:  # fmt: skip
    """`count` held-out prompts of this run and their evaluators, with the true utility where the truth is known."""
    name, source = models.names["clap"], corpus_source(corpus)
    clap = AudioEncoder(name, loading.CLAPS.identity(name), models.clap)
    evaluators = Evaluators(
        reward=load_reward(run, reward),
        clap=clap,
        encoders=(clap,),
        detector=source.detector(),
        vocabulary=load_vocabulary(SHIPPED_VOCABULARY),
        utility=source.true_utility(),
    )
    reference = reference_of(clap, np.load(run.path("reference") / "embeddings.npy"), "the run's reference")
    prompts = held_out(run, corpus, count)
    return EvaluationSetup(prompts, evaluators, reference, evaluate.seed, evaluate.metrics, all_sets=all_sets)


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
    label: str,
    corpus: CorpusSettings,
    models: FrozenModels,
    reward: RewardSourceSettings,
    evaluate: EvaluateSettings,
) -> None:
    """Measure the clips of a stage."""
    setup = evaluation_setup(run, corpus, models, reward, evaluate, evaluate.prompts, all_sets=True)
    setup.evaluate(sorted(run.path(f"clips-{label}").glob("*.wav")), folder, system=label)


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
    """Generate and measure the held-out prompts' clips at every score of the sweep, with the same seeds."""
    setup = evaluation_setup(run, corpus, models, reward, evaluate, evaluate.sweep_prompts)
    with run.reporter.progress(f"sweep of {stage}") as advance:
        sweep_scores(
            setup,
            run.path(stage),
            evaluate.sweep_scores,
            folder,
            label=stage,
            sampling=sampling,
            execution=Execution(batch=batch),
            device=run.accelerator.device,
            progress=advance,
        )


def finish_clips(run: RunContext, folder: Path, clips: str, post: PostSettings) -> None:
    """Post-process the clips of the step `clips`, as they are published."""
    postprocessor = PostProcessor.load(post, AudioFormat(), run.accelerator.device)
    for path in sorted(run.path(clips).glob("*.wav")):
        wave, rate = read_audio(path)
        write_file(folder / path.name, postprocessor.encode([wave], rate, [{"clip": path.stem}])[0].content)
