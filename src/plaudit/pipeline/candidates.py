"""Clips that a stage's model makes of training captions, what reward and CLAP say of them, and their latents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from plaudit.audio import read_audio
from plaudit.corpus.manifest import Entry, ListedCorpus
from plaudit.corpus.shards import ShardSet, encode_corpus
from plaudit.evaluate.evaluator import embed_audio
from plaudit.generate.clips import ClipRequest, generate_clips
from plaudit.generate.model import TextToMusic
from plaudit.generate.settings import Execution, SamplingSettings
from plaudit.pipeline.data import labels, reward_model, shards
from plaudit.pipeline.runner import Context
from plaudit.storage import read_json, write_json
from plaudit.training.data import Source


@dataclass(frozen=True)
class Candidates:
    """Clips a model made for `prompts`, asked for `score`, with what reward and CLAP say of each."""

    prompts: list[str]
    paths: list[Path]
    score: float | None
    reward: np.ndarray
    clap: np.ndarray


def make_candidates(
    context: Context, model: TextToMusic, prompts: list[str], seed: int, score: float | None, folder: Path
) -> Candidates:
    """Generate one clip per prompt, with seeds from `seed` on, and score them; continues a folder half made."""
    requests = [ClipRequest(f"{i:05d}", prompt, seed + i) for i, prompt in enumerate(prompts)]
    settings, batches = sampling_settings(context, score), Execution(batch=context.recipe.sampling_batch)
    with context.reporter.progress("candidates") as advance:
        paths = generate_clips(model, requests, settings, folder, batches, progress=advance)
    if not (folder / "scores.json").exists():
        waves = [torch.from_numpy(read_audio(path)[0]) for path in paths]
        rate = model.codec.sample_rate
        with torch.inference_mode():
            reward = reward_model(context).score(waves, rate, prompts).numpy()
            clap = (embed_audio(context.clap, waves, rate) * context.clap.text(prompts).numpy()).sum(1)
        write_json(folder / "scores.json", {"reward": reward.tolist(), "clap": clap.tolist()})
    scores = read_json(folder / "scores.json")
    return Candidates(prompts, paths, score, *(np.array(scores[name], dtype=np.float64) for name in ("reward", "clap")))


def encode_clips(context: Context, clips: dict[str, tuple[str, Path]], folder: Path) -> ShardSet:
    """Audio files by id, each with its caption, as a shard set; what can't be used as audio is in its quarantine."""
    if context.processes.is_main:
        entries = [Entry(id, caption, "train", "generated", None, path) for id, (caption, path) in clips.items()]
        encode_corpus(
            ListedCorpus("generated", entries),
            context.codec,
            context.text_encoder,
            folder,
            context.recipe.corpus.seconds,
        )
    return ShardSet(folder, verify=False)


def training_rows(context: Context) -> Source:
    """The training split of the corpus with its rewards."""
    found = shards(context)
    rows = found.rows("train")
    return Source(found, rows, labels(context)[rows])


def training_captions(context: Context, count: int, seed: int) -> list[str]:
    """`count` captions of the training split, without repetition as far as there are enough."""
    source = training_rows(context)
    distinct = sorted({source.shards.captions[row] for row in source.rows})
    order = np.random.default_rng(seed).permutation(len(distinct))
    return [distinct[order[i % len(distinct)]] for i in range(count)]


def sampling_settings(context: Context, score: float | None) -> SamplingSettings:
    """The recipe's sampling, asking for `score`."""
    return context.recipe.sampling.model_copy(update={"score": score})
