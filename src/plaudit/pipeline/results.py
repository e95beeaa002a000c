"""The steps after training: clips of every stage, their evaluation, and sweeps over the conditioning score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from plaudit import loading
from plaudit.audio import read_audio, write_file
from plaudit.audio_format import AudioFormat
from plaudit.corpus.sources import CorpusSettings, HeldOut, corpus_source
from plaudit.errors import PromptError
from plaudit.evaluate.concepts.vocabulary import SHIPPED_VOCABULARY, load_vocabulary
from plaudit.evaluate.embeddings import (
    AudioEncoder,
    embed_recordings,
    embed_reference_folder,
    export_references,
    load_references,
    reference_for,
    reference_of,
)
from plaudit.evaluate.evaluation import EvaluationSetup, Evaluators, with_audio_language_model
from plaudit.generate.clips import ClipRequest, generate_clips
from plaudit.generate.model import TextToMusic
from plaudit.generate.postprocess import PostProcessor
from plaudit.generate.settings import Execution, Guidance, PostSettings, SamplingSettings
from plaudit.pipeline.data import encoded_corpus, load_reward, reference_clips
from plaudit.pipeline.runner import RunContext, RunFiles
from plaudit.pipeline.sweeps import sweep_scores
from plaudit.recipe import BaselineSettings, EvaluateSettings, Recipe, RewardSourceSettings
from plaudit.stages.inputs import FrozenModels
from plaudit.tables import read_prompts

REFERENCE, REFERENCE_LABEL = "reference.safetensors", "the run's reference"


def stages_of(recipe: Recipe) -> list[str]:
    """The rows of the stage table that are generated: the baseline, where the recipe names one; the first stage's model
    without a conditioning score, so that only the condition differs; then each stage.
    """
    baseline = [] if recipe.evaluate.baseline is None else ["baseline"]
    unscored = [] if recipe.sampling.score is None else ["unscored"]
    return [*baseline, *unscored, *recipe.model_stages]


def held_out(run: RunFiles, corpus: CorpusSettings, prompt_file: Path | None, count: int) -> HeldOut:
    """Prompts that no stage was trained on: of the corpus, or the first of a list of prompts."""
    if prompt_file is not None:
        prompts = read_prompts(prompt_file)[:count]
        if len(prompts) < 2:
            raise PromptError(f"{prompt_file} holds one prompt, evaluation needs 2; add prompts")
        return HeldOut(prompts)
    source = corpus_source(corpus)
    return source.held_out(count, None if source.truth_known else encoded_corpus(run, corpus))


def embed_reference(
    run: RunContext, folder: Path, corpus: CorpusSettings, models: FrozenModels, count: int, place: Path | None
) -> None:
    """The reference by CLAP: of `count` clips of the corpus, or of a folder of audio or an exported reference."""
    clap = clap_encoder(models)
    if place is not None and not place.is_dir():
        reference = reference_for(load_references(place), clap)
    else:
        with run.reporter.progress("reference") as advance:
            if place is None:
                clips = reference_clips(run, corpus, models, count)
                reference = reference_of(clap, embed_recordings(models.clap, *clips, advance), REFERENCE_LABEL)
            else:
                [reference], notes, _ = embed_reference_folder(place, [clap], None, advance)
                for note in notes:
                    run.reporter.note(note)
    export_references(folder / REFERENCE, [reference], with_embeddings=reference.embeddings is not None)


def clap_encoder(models: FrozenModels) -> AudioEncoder:
    """The run's CLAP as an encoder of the distances."""
    name = models.names["clap"]
    return AudioEncoder(name, loading.CLAPS.identity(name), models.clap)


def evaluation_setup(
    run: RunContext, corpus: CorpusSettings, models: FrozenModels, reward: RewardSourceSettings,
    evaluate: EvaluateSettings, count: int, prompt_file: Path | None, *, all_sets: bool = False,
) -> EvaluationSetup:  # fmt: skip
    """`count` held-out prompts of this run and their evaluators, with the true utility where the truth is known."""
    source, clap = corpus_source(corpus), clap_encoder(models)
    evaluators = Evaluators(
        reward=load_reward(run, reward),
        clap=clap,
        encoders=(clap,),
        detector=source.detector(),
        vocabulary=load_vocabulary(SHIPPED_VOCABULARY),
        utility=source.true_utility(),
    )
    if all_sets and evaluate.audio_language_model is not None:  # too slow for the cells of a sweep
        device = run.accelerator.device
        evaluators = with_audio_language_model(evaluators, evaluate.audio_language_model, evaluate.tags, device)
    reference = reference_for(load_references(run.path("reference") / REFERENCE), clap)
    reference = replace(reference, source=REFERENCE_LABEL)
    prompts = held_out(run, corpus, prompt_file, count)
    return EvaluationSetup(prompts, evaluators, reference, evaluate.seed, evaluate.metrics, all_sets=all_sets)


def generate_held_out(
    run: RunContext,
    folder: Path,
    label: str,
    load: Callable[[RunContext], TextToMusic],
    corpus: CorpusSettings,
    evaluate: EvaluateSettings,
    prompt_file: Path | None,
    sampling: SamplingSettings,
    batch: int,
) -> None:
    """Clips of the held-out prompts by a model, with the same seeds for every model. label: of the progress."""
    prompts = held_out(run, corpus, prompt_file, evaluate.prompts).prompts
    model = load(run)
    requests = [ClipRequest(f"{i:04d}", prompt, evaluate.seed + i) for i, prompt in enumerate(prompts)]
    with run.reporter.progress(f"clips of {label}") as advance:
        generate_clips(model, requests, sampling, folder, Execution(batch=batch), progress=advance)


def baseline_sampling(sampling: SamplingSettings, baseline: BaselineSettings) -> SamplingSettings:
    """The run's sampling without score, prefix and suffix, and with the baseline's guidance."""
    plain = {"score": None, "prefix": "", "suffix": "", "negative_prompt": baseline.negative_prompt}
    return sampling.model_copy(update={**plain, "guidance": Guidance(weight=baseline.guidance)})


def evaluate_stage(
    run: RunContext,
    folder: Path,
    label: str,
    corpus: CorpusSettings,
    models: FrozenModels,
    reward: RewardSourceSettings,
    evaluate: EvaluateSettings,
    prompt_file: Path | None,
) -> None:
    """Measure the clips of a stage."""
    setup = evaluation_setup(run, corpus, models, reward, evaluate, evaluate.prompts, prompt_file, all_sets=True)
    setup.evaluate(sorted(run.path(f"clips-{label}").glob("*.wav")), folder, system=label)


def sweep(
    run: RunContext,
    folder: Path,
    stage: str,
    corpus: CorpusSettings,
    models: FrozenModels,
    reward: RewardSourceSettings,
    evaluate: EvaluateSettings,
    prompt_file: Path | None,
    sampling: SamplingSettings,
    batch: int,
) -> None:
    """Generate and measure the held-out prompts' clips at every score of the sweep, with the same seeds."""
    setup = evaluation_setup(run, corpus, models, reward, evaluate, evaluate.sweep_prompts, prompt_file)
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
