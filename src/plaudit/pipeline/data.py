"""Steps of the data: corpus, shards, labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from plaudit import loading
from plaudit.corpus.clips import ClipReader
from plaudit.corpus.manifest import write_manifest
from plaudit.corpus.shards import ShardSet, encode_corpus, stamp
from plaudit.corpus.sources import CorpusSettings, ShardSource, audio_digests, corpus_source, entries_digest
from plaudit.devices import rows_at_once
from plaudit.errors import CorpusError, ModelError
from plaudit.pipeline.runner import RunContext, RunFiles
from plaudit.prefetch import prefetch
from plaudit.recipe import RewardSourceSettings
from plaudit.reward.base import Recording
from plaudit.reward.features import FeatureStore, RewardFeatures
from plaudit.reward.scoring import score_recordings
from plaudit.reward.training import SYNTHETIC_REWARD
from plaudit.stages.inputs import FrozenModels
from plaudit.storage import read_json, write_json
from plaudit.training.data import Source
from plaudit.types import Reward

MANIFEST = "manifest.jsonl"
"""The list of a run's clips."""

PART, BATCH = 256, 16
"""Clips whose labels are saved together, and on a CPU scored at once."""


def list_corpus(run: RunContext, folder: Path, corpus: CorpusSettings) -> None:
    """Write the manifest, and separately the truth if the corpus has it, which only simulated listeners read."""
    source = corpus_source(corpus)
    with run.reporter.progress("surveying") as advance:
        listing = source.listing(advance)
    for note in listing.notes:
        run.reporter.note(note)
    audio = audio_digests(listing.entries)
    stamps = {path: [*(stamp(path) or [0, 0]), digest] for path, digest in audio.items()}
    write_manifest(folder / MANIFEST, listing.entries, stamps)
    usable = sum(not entry.problem for entry in listing.entries)
    facts: dict[str, object] = {"clips": usable, "hours": usable * source.settings.seconds / 3600}
    facts["content"] = entries_digest(listing.entries, audio)
    write_json(folder / "facts.json", facts | source.save_truth(folder))


def encode(run: RunContext, folder: Path, corpus: CorpusSettings, models: FrozenModels) -> None:
    """Encode the corpus to shards."""
    with run.reporter.progress("encoding") as advance:
        encode_corpus(
            corpus_source(corpus).open(run.path("corpus") / MANIFEST),
            models.codec,
            models.text_encoder,
            folder,
            corpus.seconds,
            corpus.shard_size,
            progress=advance,
        )


def accept_shards(run: RunContext, folder: Path, corpus: CorpusSettings, models: FrozenModels) -> None:
    """Check that a prepared shard set is complete and was encoded with the recipe's models; CorpusError if not."""
    shards, codec, source = encoded_corpus(run, corpus), models.codec, corpus_source(corpus)
    if isinstance(source, ShardSource):
        source.check_preparation()
    frames = int(corpus.seconds * codec.sample_rate / codec.hop + 1e-9)
    for what, there, expected in (
        ("codec", shards.stats["codec"], codec.name),
        ("text encoder", shards.stats["text_encoder"], models.text_encoder.name),
        ("latent frames", shards.frames, frames),
    ):
        if there != expected:
            raise CorpusError(
                f"{shards.folder} was encoded with {what} {there}, the recipe has {expected}; change it or prepare the "
                "set again"
            )
    licences = {"licences": shards.stats["licences"]} if "licences" in shards.stats else {}
    write_json(folder / "facts.json", {"clips": len(shards), "set": corpus_source(corpus).digest(), **licences})


def encoded_corpus(run: RunFiles, corpus: CorpusSettings) -> ShardSet:
    """The encoded corpus: that of the step before, or a prepared one. The main process verifies it once."""
    prepared = None if corpus_source(corpus).has_audio else corpus.folder
    folder = prepared or run.path("shards")
    if folder not in run.opened:
        run.opened[folder] = ShardSet(folder, verify=isinstance(run, RunContext) and run.processes.is_main)
    shards: ShardSet = run.opened[folder]
    return shards


def corpus_clips(run: RunContext, corpus: CorpusSettings) -> ClipReader:
    """Reads the audio of the encoded clips."""
    clips = corpus_source(corpus).open(run.path("corpus") / MANIFEST)
    return ClipReader(clips, encoded_corpus(run, corpus).ids, corpus.seconds)


def reward_features(models: FrozenModels) -> RewardFeatures:
    """The features that a reward trained in this run takes."""
    return RewardFeatures(models.clap, models.audio_embedder, SYNTHETIC_REWARD.blocks)


def load_reward(run: RunContext, reward: RewardSourceSettings) -> Reward:
    """The run's reward: trained in it, or the one that the recipe names."""
    name = str(run.path("reward")) if reward.kind == "train" else reward.name
    return loading.load_reward(name, run.accelerator.device)


def compute_rewards(
    run: RunContext, folder: Path, corpus: CorpusSettings, models: FrozenModels, reward: RewardSourceSettings
) -> None:
    """Rewards of every encoded clip, for the caption that it is trained with."""
    shards = encoded_corpus(run, corpus)
    if reward.kind == "table":
        rewards = shards.rewards
        if np.isnan(rewards).any():
            missing, place = int(np.isnan(rewards).sum()), corpus_source(corpus).rewards_at
            raise CorpusError(f"{missing} of {len(rewards)} clips have no reward in {place}; fill it in")
    elif reward.kind == "train":
        store = FeatureStore(run.path("features"), reward_features(models))
        trained = loading.load_tunejury(str(run.path("reward")), run.accelerator.device)
        with torch.inference_mode():
            rewards = trained.score_features(store.rows(shards.ids), shards.captions).numpy()
    else:
        rewards = _score_corpus(run, folder / "parts", corpus, reward)
    facts = {"mean": float(rewards.mean()), "std": float(rewards.std())}
    write_json(folder / "rewards.json", {**facts, "rewards": [float(r) for r in rewards]})


def _score_corpus(run: RunContext, folder: Path, corpus: CorpusSettings, settings: RewardSourceSettings) -> np.ndarray:
    """Scores of every encoded clip by the recipe's reward, from its audio; finished parts in `folder` are kept."""
    shards, reward, clips = encoded_corpus(run, corpus), load_reward(run, settings), corpus_clips(run, corpus)
    rewards, batch = list[float](), rows_at_once(reward, BATCH)

    def read(id: str) -> Recording:
        wave, rate = clips.read(id)
        return Recording(torch.from_numpy(wave), rate, id)

    with run.reporter.progress("labels") as advance:
        for start in range(0, len(shards), PART):
            file, end = folder / f"{start:08d}.json", min(start + PART, len(shards))
            if not file.exists():
                scores: list[float] = []
                with closing(prefetch(read, shards.ids[start:end], depth=batch, threads=1)) as loaded:
                    for first in range(start, end, batch):
                        rows = slice(first, min(first + batch, end))
                        recordings = list(islice(loaded, rows.stop - first))
                        scores += score_recordings(reward, recordings, shards.captions[rows]).tolist()
                        if not np.isfinite(scores).all():
                            id = shards.ids[start + int(np.flatnonzero(~np.isfinite(scores))[0])]
                            raise ModelError(
                                f"reward {settings.name} of clip {id} is not finite; correct the reward's code"
                            )
                        advance(rows.stop, len(shards))
                write_json(file, scores)
            rewards += read_json(file)
    return np.array(rewards)


def reference_clips(
    run: RunContext, corpus: CorpusSettings, models: FrozenModels, count: int
) -> tuple[int, Iterator[tuple[np.ndarray, int]]]:
    """The number of reference clips, and (waveform, rate) of each."""
    source = corpus_source(corpus)
    if source.truth_known:
        return source.reference(count)
    if source.has_audio:
        return source.reference(count, encoded_corpus(run, corpus), run.path("corpus") / MANIFEST)
    return source.reference(count, encoded_corpus(run, corpus), codec=models.codec)


def labelled_rows(run: RunFiles, corpus: CorpusSettings, split: str) -> Source:
    """The clips of a split with their rewards."""
    shards = encoded_corpus(run, corpus)
    rewards = np.array(read_json(run.path("labels") / "rewards.json")["rewards"], dtype=np.float64)
    rows = shards.rows(split)
    return Source(shards, rows, rewards[rows])
