"""The data steps: corpus, shards, features, votes, reward, labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from plaudit import loading
from plaudit.corpus.clips import ClipReader
from plaudit.corpus.manifest import SPLITS, Corpus, write_manifest
from plaudit.corpus.shards import ShardSet, encode_corpus, stamp
from plaudit.corpus.sources import audio_digests, content_digest
from plaudit.errors import CorpusError, ModelError
from plaudit.pipeline.runner import Context
from plaudit.reward.base import Recording
from plaudit.reward.features import FeatureStore
from plaudit.reward.scoring import score_recordings
from plaudit.reward.training import SYNTHETIC_REWARD, fit_reward
from plaudit.reward.tunejury import save_reward
from plaudit.reward.votes import read_votes, write_votes
from plaudit.storage import read_json, write_json
from plaudit.training.data import Source
from plaudit.types import Reward

MANIFEST = "manifest.jsonl"
"""The list of a run's clips."""

PART, BATCH = 256, 16
"""Clips whose labels are saved, and scored, together."""


def list_corpus(context: Context, folder: Path) -> None:
    """Write the manifest, and apart from it the truth where it is known, which only simulated listeners read."""
    source = context.source
    with context.reporter.progress("surveying") as advance:
        listing = source.listing(advance)
    for note in listing.notes:
        context.reporter.note(note)
    audio = audio_digests(listing.entries)
    stamps = {path: [*(stamp(path) or [0, 0]), digest] for path, digest in audio.items()}
    write_manifest(folder / MANIFEST, listing.entries, stamps)
    usable = sum(not entry.problem for entry in listing.entries)
    facts: dict[str, object] = {"clips": usable, "hours": usable * source.settings.seconds / 3600}
    facts["content"] = content_digest(listing.entries, audio)
    write_json(folder / "facts.json", facts | source.save_truth(folder))


def corpus_of(context: Context) -> Corpus:
    """The run's corpus, as its manifest lists it."""
    return context.source.open(context.path("corpus") / MANIFEST)


def encode(context: Context, folder: Path) -> None:
    """Encode the corpus to shards."""
    settings = context.recipe.corpus
    with context.reporter.progress("encoding") as advance:
        encode_corpus(
            corpus_of(context),
            context.models.codec,
            context.models.text_encoder,
            folder,
            settings.seconds,
            settings.shard_size,
            progress=advance,
        )


def accept_shards(context: Context, folder: Path) -> None:
    """See that a prepared shard set is whole and was encoded with the recipe's models; CorpusError where it was not."""
    found, codec, text = shards(context), context.models.codec, context.models.text_encoder
    frames = int(context.recipe.corpus.seconds * codec.sample_rate / codec.hop + 1e-9)
    for what, own, wanted in (
        ("codec", found.stats["codec"], codec.name),
        ("text encoder", found.stats["text_encoder"], text.name),
        ("latent frames", found.frames, frames),
    ):
        if own != wanted:
            raise CorpusError(
                f"{found.folder} was encoded with {what} {own}, the recipe has {wanted}; change it or prepare the set "
                "again"
            )
    write_json(folder / "facts.json", {"clips": len(found), "set": context.source.digest()})


def extract_features(context: Context, folder: Path) -> None:
    """Extract the reward's features of every clip that was encoded, from the same stretch of its file."""
    encoded = shards(context).ids
    clips = ClipReader(corpus_of(context), encoded, context.recipe.corpus.seconds)

    def load(id: str) -> tuple[torch.Tensor, int]:
        wave, rate = clips.read(id)
        return torch.from_numpy(wave), rate

    with context.reporter.progress("features") as advance:
        FeatureStore(folder, context.reward_features).extract(encoded, load, progress=advance)


def simulate_votes_step(context: Context, folder: Path) -> None:
    """Let simulated listeners compare corpus clips: votes of each split on that split's clips, and the truth apart."""
    votes = context.recipe.votes
    counts = (votes.pairs, votes.validation_pairs, votes.validation_pairs)
    with context.reporter.progress("listening") as advance:
        simulated, truth = context.source.simulate_votes(dict(zip(SPLITS, counts, strict=True)), votes.seed, advance)
    for split, group in simulated.items():
        write_votes(folder / f"{split}.jsonl", group)
    write_json(folder / "truth.json", truth)


def train_reward_step(context: Context, folder: Path) -> None:
    """Fit TuneJury on the votes and compare it with the ceiling that the listeners' noise sets."""
    choice = context.recipe.reward
    train, validation, test = (read_votes(context.path("votes") / f"{split}.jsonl") for split in SPLITS)
    store = FeatureStore(context.path("features"), context.reward_features)
    settings = replace(SYNTHETIC_REWARD, max_epochs=choice.max_epochs, seed=choice.seed)
    with context.reporter.progress("reward") as advance:
        fitted = fit_reward(
            train, validation, test, store, settings, lambda epoch: advance(epoch.epoch, settings.max_epochs)
        )
    fitted.reward.facts["noise_ceiling"] = read_json(context.path("votes") / "truth.json")["test"]["ceiling"]
    write_json(folder / "history.json", [asdict(epoch) for epoch in fitted.history.epochs])
    save_reward(fitted.reward, folder)


def compute_rewards(context: Context, folder: Path) -> None:
    """Rewards of every encoded clip, for the caption that it is trained with."""
    encoded, kind = shards(context), context.recipe.reward.kind
    if kind == "table":
        rewards = encoded.rewards
        if np.isnan(rewards).any():
            missing = int(np.isnan(rewards).sum())
            place = context.source.rewards_at
            raise CorpusError(f"{missing} of {len(rewards)} clips have no reward in {place}; fill it in")
    elif kind == "train":
        store = FeatureStore(context.path("features"), context.reward_features)
        trained = loading.load_tunejury(str(context.path("reward")))
        with torch.inference_mode():
            rewards = trained.score_features(store.rows(encoded.ids), encoded.captions).numpy()
    else:
        rewards = _score_corpus(context, folder / "parts")
    facts = {"mean": float(rewards.mean()), "std": float(rewards.std())}
    write_json(folder / "rewards.json", {**facts, "rewards": [float(r) for r in rewards]})


def _score_corpus(context: Context, folder: Path) -> np.ndarray:
    """Scores of every encoded clip by the recipe's reward, from its audio; finished parts in `folder` are kept."""
    encoded, reward = shards(context), reward_model(context)
    clips = ClipReader(corpus_of(context), encoded.ids, context.recipe.corpus.seconds)
    rewards: list[float] = []
    with context.reporter.progress("labels") as advance:
        for start in range(0, len(encoded), PART):
            file, end = folder / f"{start:08d}.json", min(start + PART, len(encoded))
            if not file.exists():
                scores: list[float] = []
                for first in range(start, end, BATCH):
                    rows = slice(first, min(first + BATCH, end))
                    ids, captions = encoded.ids[rows], encoded.captions[rows]
                    recordings = [Recording(torch.from_numpy(wave), rate, id) for id, (wave, rate) in
                                  zip(ids, map(clips.read, ids), strict=True)]  # fmt: skip
                    scores += score_recordings(reward, recordings, captions).tolist()
                    if not np.isfinite(scores).all():
                        id = encoded.ids[start + int(np.flatnonzero(~np.isfinite(scores))[0])]
                        name = context.recipe.reward.name
                        raise ModelError(f"reward {name} of clip {id} is not finite; correct the reward's code")
                    advance(rows.stop, len(encoded))
                write_json(file, scores)
            rewards += read_json(file)
    return np.array(rewards)


def reference_clips(context: Context) -> tuple[int, Iterator[tuple[np.ndarray, int]]]:
    """How many clips, and (waveform, rate) of each, that generated ones are compared with."""
    source, count = context.source, context.recipe.evaluate.reference_clips
    if source.truth_known:
        return source.reference(count)
    if source.has_audio:
        return source.reference(count, context.shards, context.path("corpus") / MANIFEST)
    return source.reference(count, context.shards, codec=context.models.codec)


def shards(context: Context) -> ShardSet:
    """The encoded corpus."""
    return context.shards


def labels(context: Context) -> np.ndarray:
    """One reward per encoded clip, in the order of the shards."""
    return np.array(read_json(context.path("labels") / "rewards.json")["rewards"], dtype=np.float64)


def labelled_rows(context: Context, split: str) -> Source:
    """The clips of a split with their rewards."""
    encoded = shards(context)
    rows = encoded.rows(split)
    return Source(encoded, rows, labels(context)[rows])


def reward_model(context: Context) -> Reward:
    """The run's reward: trained in it, or the one that the recipe names."""
    name = str(context.path("reward")) if context.recipe.reward.kind == "train" else context.recipe.reward.name
    return loading.load_reward(name)
