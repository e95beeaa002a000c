"""The data steps: corpus, shards, features, votes, reward, labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plaudit import loading
from plaudit.corpus.clips import ClipReader, ClipSettings, about_cutting, cut_clips, measure_durations, recording_of
from plaudit.corpus.layouts import FolderCorpus, Listing, counted, list_folder
from plaudit.corpus.manifest import SPLITS, Corpus, Entry, ListedCorpus, read_manifest, write_manifest
from plaudit.corpus.shard_set import LEDGER
from plaudit.corpus.shards import ShardSet, encode_corpus, stamp
from plaudit.errors import CorpusError
from plaudit.pipeline.runner import Context
from plaudit.recipe import CorpusSettings
from plaudit.reward.features import FeatureStore
from plaudit.reward.training import SYNTHETIC_REWARD, fit_reward
from plaudit.reward.tunejury import TuneJury, save_reward
from plaudit.reward.votes import read_votes, write_votes
from plaudit.storage import file_digest, read_json, to_json, write_atomically, write_json
from plaudit.synthetic.corpus import SyntheticClip, SyntheticCorpus, SyntheticSource
from plaudit.synthetic.listeners import Taste, noise_ceiling, sample_vote_pairs, simulate_votes, utility
from plaudit.synthetic.probes import Measurement, measure
from plaudit.types import Vote

MANIFEST = "manifest.jsonl"
"""The list of a run's clips."""


def synthetic_corpus(settings: CorpusSettings) -> SyntheticCorpus:
    """The training corpus of the synthetic world, flaws included."""
    return SyntheticCorpus(
        settings.size, settings.seconds, settings.seed, settings.flawed_fraction, settings.miscaptioned_fraction
    )


def folder_corpus(settings: CorpusSettings) -> FolderCorpus:
    """The corpus of a folder and a table that a recipe names."""
    assert settings.folder is not None and settings.table is not None  # validated with the recipe
    return FolderCorpus(
        settings.folder,
        settings.table,
        settings.file_column,
        settings.caption_column,
        settings.reward_column,
        score_table=settings.score_table,
        score_id_column=settings.score_id_column,
        validation=settings.validation_fraction,
        test=settings.test_fraction,
    )


def list_clips(settings: CorpusSettings, progress: Callable[[int, int], None] = lambda done, total: None) -> Listing:
    """The clips of the corpus that a recipe names, and lines about them for the user; a folder's files are surveyed."""
    if settings.kind == "synthetic":
        source = SyntheticSource(synthetic_corpus(settings))
        return Listing(source.name, source.entries())
    listing = list_folder(folder_corpus(settings))
    durations = measure_durations(listing.entries, progress)
    cutting = ClipSettings(seconds=settings.seconds, per_track=settings.clips_per_track, place=settings.place)
    clips = cut_clips(listing.entries, durations, cutting)
    notes = about_cutting(clips, durations, cutting, "corpus.clips_per_track")
    unusable = counted("entries of the table cannot be used", [clip.problem for clip in clips if clip.problem])
    return Listing(listing.name, clips, [*listing.notes, *notes, *unusable])


def list_corpus(context: Context, folder: Path) -> None:
    """Write the manifest; of a synthetic corpus also the truth, apart, which no later step but the listeners reads."""
    settings = context.recipe.corpus
    with context.reporter.progress("surveying") as advance:
        listing = list_clips(settings, advance)
    for note in listing.notes:
        context.reporter.note(note)
    audio = _audio_digests(listing.entries, None)
    stamps = {path: [*(stamp(path) or [0, 0]), digest] for path, digest in audio.items()}
    write_manifest(folder / MANIFEST, listing.entries, stamps)
    usable = sum(not entry.problem for entry in listing.entries)
    facts: dict[str, object] = {"clips": usable, "hours": usable * settings.seconds / 3600}
    facts["content"] = _content_of(listing.entries, audio)
    if settings.kind == "synthetic":
        clips = synthetic_corpus(settings).clips
        truths = [{"id": c.id, "truth": c.truth.to_dict(), "flaws": c.flaws} for c in clips]
        write_atomically(folder / "truth.jsonl", "".join(to_json(t) + "\n" for t in truths))
        facts["miscaptioned"] = sum(c.truth != c.caption_truth for c in clips)
        facts["flawed"] = sum(bool(c.flaws) for c in clips)
    write_json(folder / "facts.json", facts)


def corpus_of(context: Context) -> Corpus:
    """The run's corpus, as its manifest lists it; of a folder that was moved, the files where they are now."""
    settings = context.recipe.corpus
    if settings.kind == "synthetic":
        return SyntheticSource(synthetic_corpus(settings))
    corpus, listed = folder_corpus(settings), read_manifest(context.path("corpus") / MANIFEST)
    places = {entry.id: entry.path for entry in corpus.entries()}
    return ListedCorpus(corpus.name, [replace(clip, path=places[recording_of(clip)]) for clip in listed])


def encode(context: Context, folder: Path) -> None:
    """Encode the corpus to shards."""
    settings = context.recipe.corpus
    with context.reporter.progress("encoding") as advance:
        encode_corpus(
            corpus_of(context),
            context.codec,
            context.text_encoder,
            folder,
            settings.seconds,
            settings.shard_size,
            progress=advance,
        )


def accept_shards(context: Context, folder: Path) -> None:
    """See that a prepared shard set is whole and was encoded with the recipe's models; CorpusError where it was not."""
    found, codec, text = shards(context), context.codec, context.text_encoder
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
    write_json(folder / "facts.json", {"clips": len(found), "set": shards_digest(context.recipe.corpus)})


def corpus_digest(settings: CorpusSettings, manifest: Path | None = None) -> str:
    """A hash of what the clips of a corpus are, wherever they lie: captions, rewards, splits, and audio by content.

    manifest: of an earlier look at them; files of the same size and time of change are not read again. "none" where
    the table or the shard set is missing or malformed.
    """
    if settings.kind == "shards":
        return shards_digest(settings)
    try:
        entries = folder_corpus(settings).entries()
    except CorpusError:
        return "none"
    return _content_of(entries, _audio_digests(entries, manifest))


def _content_of(entries: list[Entry], audio: dict[Path, str]) -> str:
    plain = [asdict(replace(entry, path=None, source="", problem="")) for entry in entries]  # these name the folder
    rows = [row | {"audio": entry.path and audio[entry.path]} for row, entry in zip(plain, entries, strict=True)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _audio_digests(entries: list[Entry], manifest: Path | None) -> dict[Path, str]:
    """Of each file of the entries a digest of its content; "none" where it cannot be read."""
    known: dict[str, list[Any]] = {}
    if manifest is not None and manifest.is_file():
        rows = [json.loads(line) for line in manifest.read_text().splitlines()]
        known = {row["path"]: row["audio"] for row in rows if row["audio"]}
    found = {}
    for path in dict.fromkeys(entry.path for entry in entries if entry.path is not None):
        before = known.get(str(path))
        try:
            found[path] = before[-1] if before is not None and before[:2] == stamp(path) else file_digest(path)
        except OSError:
            found[path] = "none"
    return found


def shards_digest(settings: CorpusSettings) -> str:
    """A hash of a prepared shard set's ledger, which knows every file's own; "none" where there is no set."""
    assert settings.folder is not None  # validated with the recipe
    ledger = settings.folder / LEDGER
    return hashlib.sha256(ledger.read_bytes()).hexdigest() if ledger.is_file() else "none"


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
    recipe = context.recipe
    corpus = synthetic_corpus(recipe.corpus)
    counts = {"train": recipe.votes.pairs}
    pairs = {
        split: sample_vote_pairs(
            [c for c in corpus.clips if c.split == split],
            counts.get(split, recipe.votes.validation_pairs),
            recipe.votes.seed,
            group=split,
        )
        for split in SPLITS
    }
    heard = {clip.id: clip for group in pairs.values() for pair in group for clip in (pair.a, pair.b)}
    measured = _measured(context, corpus, list(heard.values()))
    place = {id: row for row, id in enumerate(heard)}
    taste = Taste()
    truth: dict[str, Any] = {"taste": asdict(taste)}
    for split, group in pairs.items():
        truths = [pair.truth for pair in group]
        utility_a, utility_b = (
            utility(measured.rows(torch.tensor([place[clip.id] for clip in side])), truths, taste)
            for side in ([p.a for p in group], [p.b for p in group])
        )
        votes = simulate_votes(group, utility_a, utility_b, recipe.votes.seed)
        write_votes(folder / f"{split}.jsonl", votes)
        truth[split] = {"ceiling": noise_ceiling(utility_a, utility_b, votes), "ties": _ties(votes)}
    write_json(folder / "truth.json", truth)


def _measured(context: Context, corpus: SyntheticCorpus, clips: list[SyntheticClip]) -> Measurement:
    """What the probes hear in each clip."""
    parts = []
    with context.reporter.progress("listening") as advance:
        for start in range(0, len(clips), 32):
            waves = np.stack([corpus.render(clip) for clip in clips[start : start + 32]])
            parts.append(measure(context.probes, torch.from_numpy(waves)))
            advance(min(start + 32, len(clips)), len(clips))
    return Measurement(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Measurement)))


def _ties(votes: list[Vote]) -> float:
    return sum(simulate_votes_step.winner == "tie" for simulate_votes_step in votes) / len(votes)


def train_reward_step(context: Context, folder: Path) -> None:
    """Fit TuneJury on the votes and hold it against what the listeners' own noise allows."""
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
    """Give every encoded clip its reward, for the caption that it is trained with."""
    found = shards(context)
    if context.recipe.reward.kind == "table":
        rewards = found.rewards
        if np.isnan(rewards).any():
            missing = int(np.isnan(rewards).sum())
            corpus = context.recipe.corpus
            place = f"table {corpus.score_table}" if corpus.score_table else f"column {corpus.reward_column}"
            place = f"shard set {corpus.folder}" if corpus.kind == "shards" else place
            raise CorpusError(f"{missing} of {len(rewards)} clips have no reward in {place}; fill it in")
    else:
        store = FeatureStore(context.path("features"), context.reward_features)
        with torch.inference_mode():
            rewards = reward_model(context).score_features(store.rows(found.ids), found.captions).numpy()
    facts = {"mean": float(rewards.mean()), "std": float(rewards.std())}
    write_json(folder / "rewards.json", {**facts, "rewards": [float(r) for r in rewards]})


def reference_clips(context: Context) -> tuple[int, Iterator[tuple[np.ndarray, int]]]:
    """How many clips, and (sound, rate) of each, that generated ones are compared with, of a corpus of real audio.

    Of a folder all clips that were encoded. A prepared set has no audio: it is decoded again, the test split's clips,
    at most `evaluate.reference_clips` of them.
    """
    found = shards(context)
    if context.recipe.corpus.kind == "shards":
        rows, codec = found.rows("test")[: context.recipe.evaluate.reference_clips], context.codec

        def decoded() -> Iterator[tuple[np.ndarray, int]]:
            for row in rows:
                with torch.inference_mode():
                    yield codec.decode(found.posterior(row[None]).mean)[0].cpu().numpy(), codec.sample_rate

        return len(rows), decoded()
    clips = ClipReader(corpus_of(context), found.ids, context.recipe.corpus.seconds)
    return len(found), map(clips.read, found.ids)


def shards(context: Context) -> ShardSet:
    """The encoded corpus."""
    return context.shards


def labels(context: Context) -> np.ndarray:
    """One reward per encoded clip, in the order of the shards."""
    return np.array(read_json(context.path("labels") / "rewards.json")["rewards"], dtype=np.float64)


def reward_model(context: Context) -> TuneJury:
    """The reward that this run trusts: its own, or the one it was told to load."""
    name = str(context.path("reward")) if context.recipe.reward.kind == "train" else context.recipe.reward.name
    return loading.load_tunejury(name)  # labels and stages score stored features, which only its head can take
