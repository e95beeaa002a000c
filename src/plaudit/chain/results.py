"""The steps that say what came of it: clips of every stage, the score sweep, evaluation, the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plaudit.audio import read_audio, resample, write_file
from plaudit.audio_format import AudioFormat
from plaudit.chain.candidates import sampling_settings
from plaudit.chain.data import reference_clips, reward_model, shards
from plaudit.chain.runner import Context
from plaudit.chain.stage_models import load_stage
from plaudit.corpus.embedded.listeners import utility
from plaudit.corpus.embedded.probes import measure
from plaudit.corpus.embedded.source import EmbeddedCorpus
from plaudit.corpus.embedded.truth import Truth
from plaudit.errors import CorpusError
from plaudit.evaluate.evaluator import Listeners, StageScores, embed_audio, evaluate_clips
from plaudit.generate.clips import ClipRequest, make_clips
from plaudit.generate.delivery import deliver, prepared_delivery
from plaudit.generate.execution import Execution
from plaudit.recipe import Recipe

PROMPT_SEED, REFERENCE_SEED = 7_000_001, 7_000_002
"""Seeds of the embedded corpora that prompts and reference are drawn from; no training corpus may use them."""


@dataclass(frozen=True)
class HeldOut:
    """Prompts no stage was trained on, and what each asks for where that is known."""

    prompts: list[str]
    truths: list[Truth] | None


def stages_of(recipe: Recipe) -> list[str]:
    """The rows of the stage table that are generated: the baseline, then each stage of the recipe.

    The baseline is the SFT model asked for no score; it shares SFT's weights, so that what differs is the condition.
    """
    return ["baseline", *recipe.stages.models]


def held_out(context: Context, count: int) -> HeldOut:
    """Prompts of clean embedded pieces outside the corpus, or captions of a folder's test split."""
    settings = context.recipe.corpus
    if settings.kind == "embedded":
        clips = EmbeddedCorpus(count, settings.seconds, PROMPT_SEED, 0.0, 0.0).clips
        return HeldOut([c.caption for c in clips], [c.truth for c in clips])
    found = shards(context)
    rows = [i for i, split in enumerate(found.splits) if split == "test"]
    prompts = list(dict.fromkeys(found.captions[row] for row in rows))
    if len(prompts) < 2:
        raise CorpusError(
            f"the test split has {len(prompts)} captions, evaluation needs 2; raise corpus.test_share or add clips"
        )
    return HeldOut(prompts[:count], None)


def embed_reference(context: Context, folder: Path) -> None:
    """CLAP embeddings of audio as it should sound: clean embedded clips, or clips of the corpus."""
    settings = context.recipe.corpus
    rate = context.clap.sample_rate
    parts = []
    with context.reporter.progress("reference") as advance:
        if settings.kind == "embedded":
            corpus = EmbeddedCorpus(context.recipe.evaluate.reference, settings.seconds, REFERENCE_SEED, 0.0, 0.0)
            for done, clip in enumerate(corpus.clips):
                wave = torch.from_numpy(resample(corpus.render(clip), corpus.rate, rate))
                parts.append(embed_audio(context.clap, [wave], rate))
                advance(done + 1, corpus.size)
        else:
            total, clips = reference_clips(context)
            for done, (heard, own_rate) in enumerate(clips, start=1):
                parts.append(embed_audio(context.clap, [torch.from_numpy(resample(heard, own_rate, rate))], rate))
                advance(done, total)
    np.save(folder / "embeddings.npy", np.concatenate(parts))


def generate_stage(context: Context, folder: Path, stage: str) -> None:
    """The held-out prompts' clips of one stage, with the same seeds for every stage."""
    recipe = context.recipe
    found = held_out(context, recipe.evaluate.prompts)
    model = load_stage(context, "sft" if stage == "baseline" else stage)
    settings = sampling_settings(context, None if stage == "baseline" else recipe.sampling.score)
    requests = [ClipRequest(f"{i:04d}", p, recipe.evaluate.seed + i) for i, p in enumerate(found.prompts)]
    with context.reporter.progress(f"clips of {stage}") as advance:
        make_clips(model, requests, settings, folder, Execution(batch=recipe.generation_batch), progress=advance)


def evaluate_stage(context: Context, folder: Path, clips: Path) -> None:
    """Score the clips in `clips` against the held-out prompts."""
    found = held_out(context, context.recipe.evaluate.prompts)
    _evaluate(context, clips, found).save(folder)


def sweep(context: Context, folder: Path, stage: str) -> None:
    """Generate and score the held-out prompts at every score of the sweep; the seeds don't change with the score."""
    recipe = context.recipe
    found = held_out(context, recipe.evaluate.sweep_prompts)
    model = load_stage(context, stage)
    scores = recipe.evaluate.sweep_scores
    with context.reporter.progress(f"sweep of {stage}") as advance:
        for number, score in enumerate(scores):
            place = folder / f"score-{number}"
            if not (place / "scores.json").exists():
                requests = [ClipRequest(f"{i:04d}", p, recipe.evaluate.seed + i) for i, p in enumerate(found.prompts)]
                batches = Execution(batch=recipe.generation_batch)
                make_clips(model, requests, sampling_settings(context, score), place / "clips", batches)
                _evaluate(context, place / "clips", found).save(place)
            advance(number + 1, len(scores))


def finish_clips(context: Context, folder: Path, clips: Path) -> None:
    """Post-process the last stage's clips: what a listener is given."""
    post = context.recipe.post
    post = post.model_copy(update={"seconds": post.seconds or context.recipe.corpus.seconds})
    delivery = prepared_delivery(post, AudioFormat())
    for path in sorted(clips.glob("*.wav")):
        wave, rate = read_audio(path)
        write_file(folder / path.name, deliver([wave], rate, delivery, [{"clip": path.stem}])[0].encoded)


def _evaluate(context: Context, clips: Path, found: HeldOut) -> StageScores:
    waves, rates = zip(*(read_audio(path) for path in sorted(clips.glob("*.wav"))), strict=True)
    return evaluate_clips(
        [torch.from_numpy(wave) for wave in waves],
        rates[0],
        found.prompts,
        reward=reward_model(context),
        clap=context.clap,
        reference=np.load(context.path("reference") / "embeddings.npy"),
        truths=found.truths,
        listeners=None if found.truths is None else listeners_of(context),
    )


def listeners_of(context: Context) -> Listeners:
    """What the simulated listeners really feel about clips, given what each caption asked for."""

    def feel(waves: list[Tensor], truths: Sequence[Any]) -> Tensor:
        return utility(measure(context.probes, torch.stack(waves)), truths)

    return feel
