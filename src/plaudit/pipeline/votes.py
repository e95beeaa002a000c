"""Steps from votes to a reward: clips of systems, features, the choices of simulated listeners, and training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plaudit import loading
from plaudit.audio import encode_wav, read_audio, write_file
from plaudit.corpus.manifest import SPLITS
from plaudit.corpus.shards import ShardSet
from plaudit.corpus.sources import CorpusSettings, Rendering, corpus_source
from plaudit.devices import batched
from plaudit.errors import CorpusError
from plaudit.generate.clips import ClipRequest, generate_clips
from plaudit.generate.settings import Execution
from plaudit.pipeline.data import corpus_clips, encoded_corpus, reward_features
from plaudit.pipeline.runner import RunContext, RunFiles
from plaudit.recipe import RECORDED_SYSTEMS, RewardSourceSettings, SystemVoteSettings, VoteSettings
from plaudit.reward.features import FeatureStore
from plaudit.reward.training import (
    SYNTHETIC_REWARD,
    RewardSettings,
    comparisons,
    fit_reward,
    margins,
    reward_metrics,
)
from plaudit.reward.tunejury import TuneJury, save_reward
from plaudit.reward.votes import read_votes, write_votes
from plaudit.stages.inputs import FrozenModels
from plaudit.statistics import bootstrap_mean, spearman
from plaudit.storage import read_json, write_json
from plaudit.types import Vote

TRUTH, UTILITIES = "truth.json", "utilities.json"
"""Of a run's votes: facts of each split, and of the held-out prompts the utilities of every system's clips."""

SEED_STEP = 1_000_000
"""Between the seeds of systems, more than the clips of any."""

FEWEST_PROMPTS = 2
"""Of the validation and of the test split; fewer make no comparison of prompts."""


def prompted_rows(shards: ShardSet, settings: SystemVoteSettings, seed: int) -> dict[str, np.ndarray]:
    """The rows of the clips whose captions are the systems' prompts, by split. CorpusError where there are too few."""
    chosen = {}
    for split in SPLITS:
        count = settings.prompts if split == "train" else max(FEWEST_PROMPTS, settings.prompts // 8)
        rows = shards.rows(split)
        if len(rows) < count:
            raise CorpusError(
                f"votes.generated.prompts needs {count} clips of the {split} split, which has {len(rows)}; lower it or "
                "raise corpus.size"
            )
        chosen[split] = np.sort(np.random.default_rng([seed, len(rows)]).permutation(rows)[:count])
    return chosen


def renderings(run: RunFiles, shards: ShardSet, votes: VoteSettings) -> dict[str, list[Rendering]]:
    """Every system's clips of the prompts, by split; empty where there are no votes on systems."""
    settings = votes.generated
    if settings is None:
        return {}
    folder, by_split = run.path("systems"), {}
    for split, rows in prompted_rows(shards, settings, votes.seed).items():
        by_split[split] = [
            Rendering(id, "corpus", id, caption, None)
            for id, caption in ((shards.ids[row], shards.captions[row]) for row in rows)
        ]
        for system, count in (("codec", 1), *((one.label, one.clips) for one in settings.systems)):
            by_split[split] += [
                Rendering(f"{system}/{name}", system, shards.ids[row], shards.captions[row], file)
                for row in rows
                for name in (clip_name(shards.ids[row], number) for number in range(count))
                for file in [folder / system / f"{name}.wav"]
            ]
    return by_split


def clip_name(prompted: str, number: int) -> str:
    """The name of a system's clip for the caption of the corpus's clip `prompted`."""
    return f"{prompted}-{number}"


def sample_systems(
    run: RunContext, folder: Path, corpus: CorpusSettings, models: FrozenModels, votes: VoteSettings, batch: int
) -> None:
    """Clips of every system for the prompts, and round trips of the clips whose captions the prompts are."""
    settings, shards = votes.generated, encoded_corpus(run, corpus)
    assert settings is not None
    rows = np.concatenate([*prompted_rows(shards, settings, votes.seed).values()])
    with run.reporter.progress("clips of codec") as advance:
        for done, row in enumerate(rows, start=1):
            path = folder / "codec" / f"{clip_name(shards.ids[row], 0)}.wav"
            if not path.exists():
                with torch.inference_mode():
                    mean = shards.posterior(row[None]).mean
                    wave = batched(models.codec, models.codec.decode, mean)[0].cpu().numpy()
                write_file(path, encode_wav(wave, models.codec.sample_rate))
            advance(done, len(rows))
    for number, system in enumerate(settings.systems, start=1):
        model = loading.load(system.model, run.accelerator.device)
        sampling = system.sampling(model.config.sampling)
        sampling = sampling.model_copy(update={"piece": sampling.piece.model_copy(update={"seconds": corpus.seconds})})
        first = votes.seed + number * SEED_STEP
        requests = [
            ClipRequest(clip_name(shards.ids[row], clip), shards.captions[row], first + place * system.clips + clip)
            for place, row in enumerate(rows)
            for clip in range(system.clips)
        ]
        with run.reporter.progress(f"clips of {system.label}") as advance:
            generate_clips(model, requests, sampling, folder / system.label, Execution(batch=batch), progress=advance)


def extract_features(
    run: RunContext, folder: Path, corpus: CorpusSettings, models: FrozenModels, votes: VoteSettings
) -> None:
    """Extract the reward's features of every encoded clip, and of those of systems."""
    clips, shards = corpus_clips(run, corpus), encoded_corpus(run, corpus)
    files = {one.id: one.file for group in renderings(run, shards, votes).values() for one in group if one.file}

    def load(id: str) -> tuple[torch.Tensor, int]:
        wave, rate = read_audio(files[id]) if id in files else clips.read(id)
        return torch.from_numpy(wave), rate

    with run.reporter.progress("features") as advance:
        FeatureStore(folder, reward_features(models)).extract([*shards.ids, *files], load, progress=advance)


def simulate_votes(run: RunContext, folder: Path, corpus: CorpusSettings, votes: VoteSettings) -> None:
    """Votes of simulated listeners on pairs of clips, by split, and apart from them the truth."""
    source = corpus_source(corpus)
    counts = dict(zip(SPLITS, (votes.pairs, votes.validation_pairs, votes.validation_pairs), strict=True))
    with run.reporter.progress("votes") as advance:
        simulated, truth = source.simulate_votes(counts, votes.seed, advance)
    if votes.generated is not None:
        generated = renderings(run, encoded_corpus(run, corpus), votes)
        pairs = votes.generated.pairs, votes.generated.validation_pairs, votes.generated.validation_pairs
        counts = dict(zip(SPLITS, pairs, strict=True))
        with run.reporter.progress("votes on systems") as advance:
            on_systems, facts, utilities = source.simulate_system_votes(generated, counts, votes.seed, advance)
        for split in SPLITS:
            on_corpus = truth[split]
            truth[split] = {"ceiling": _pooled(simulated[split], on_corpus, on_systems[split], facts[split])}
            truth[split] |= {"corpus": on_corpus, "systems": facts[split]}
            simulated[split] += on_systems[split]
        rows = [
            {"prompt": one.prompt, "clip": one.id, "system": one.system, "utility": utilities[one.id]}
            for one in generated["test"]
        ]
        write_json(folder / UTILITIES, rows)
    for split, group in simulated.items():
        write_votes(folder / f"{split}.jsonl", group)
    write_json(folder / TRUTH, truth)


def _pooled(corpus: Sequence[Vote], of_corpus: Any, systems: Sequence[Vote], of_systems: Any) -> float:
    """The noise ceiling of both kinds of votes together, which leave out ties."""
    decided = [sum(vote.winner != "tie" for vote in group) for group in (corpus, systems)]
    ceilings = of_corpus["ceiling"], of_systems["ceiling"]
    return float(np.average(ceilings, weights=decided))


def train_reward(run: RunContext, folder: Path, models: FrozenModels, reward: RewardSourceSettings) -> None:
    """Fit TuneJury on the votes and compare it with the ceiling that the listeners' noise sets.

    Where there are votes on systems, its config.json has the metrics of both kinds of votes apart, too, and the mean
    rank correlation with true utility among the clips of a held-out prompt.
    """
    train, validation, test = (read_votes(run.path("votes") / f"{split}.jsonl") for split in SPLITS)
    store = FeatureStore(run.path("features"), reward_features(models))
    settings = replace(SYNTHETIC_REWARD, max_epochs=reward.max_epochs, seed=reward.seed)
    with run.reporter.progress("reward") as advance:
        fitted = fit_reward(
            train, validation, test, store, settings, lambda epoch: advance(epoch.epoch, settings.max_epochs)
        )
    truth = read_json(run.path("votes") / TRUTH)
    fitted.reward.facts["noise_ceiling"] = truth["test"]["ceiling"]
    if (utilities := run.path("votes") / UTILITIES).exists():
        fitted.reward.facts["by_kind"] = metrics_by_kind(fitted.reward, test, truth, store, settings)
        fitted.reward.facts["within_prompt"] = within_prompt(fitted.reward, read_json(utilities), store)
    write_json(folder / "history.json", [asdict(epoch) for epoch in fitted.history.epochs])
    save_reward(fitted.reward, folder, models.names["clap"], models.names["audio_embedder"])


def metrics_by_kind(
    reward: TuneJury, test: Sequence[Vote], truth: Any, store: FeatureStore, settings: RewardSettings
) -> dict[str, Any]:
    """Metrics on the held-out votes between clips of the corpus, and on those between systems' clips, apart."""
    groups: dict[str, list[Vote]] = {"corpus": [], "systems": []}
    for vote in test:
        groups["corpus" if vote.system_a == vote.system_b == RECORDED_SYSTEMS[0] else "systems"].append(vote)
    by_kind = {}
    for kind, votes in groups.items():
        compared = comparisons(votes, store, reward.features)
        metrics = reward_metrics(margins(reward.head, compared), compared.target, settings.seed, settings.even_bins)
        by_kind[kind] = asdict(metrics) | {"noise_ceiling": truth["test"][kind]["ceiling"]}
    return by_kind


def within_prompt(reward: TuneJury, rows: Sequence[dict[str, Any]], store: FeatureStore) -> dict[str, Any]:
    """The mean rank correlation of reward and true utility among the clips that models generated for one prompt."""
    by_prompt: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["system"] not in RECORDED_SYSTEMS:
            by_prompt.setdefault(row["prompt"], []).append(row)
    correlations = []
    for prompt, clips in by_prompt.items():
        if len(clips) > 2:
            with torch.inference_mode():
                features = store.rows([clip["clip"] for clip in clips])
                scores = reward.score_features(features, [prompt] * len(clips)).numpy()
            correlations.append(spearman(scores, [clip["utility"] for clip in clips]))
    return {"prompts": len(correlations), "spearman": asdict(bootstrap_mean(correlations, 0)) if correlations else None}
