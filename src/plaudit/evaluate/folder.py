"""Scores of audio files that lie around: one by one, or a captioned set against a reference folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plaudit.audio import SUFFIXES, read_audio, resample
from plaudit.corpus.folder import FolderCorpus
from plaudit.errors import AudioError, CorpusError
from plaudit.evaluate.evaluator import embed_audio, evaluate_clips
from plaudit.evaluate.statistics import Interval, bootstrap_mean
from plaudit.types import Embedder, Reward

Progress = Callable[[int, int], None]


def audio_files(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those with a known suffix anywhere under the folders named, sorted.

    Raises AudioError where nothing is found.
    """
    found: list[Path] = []
    for path in paths:
        found += sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
    if not found:
        raise AudioError(f"no audio under {', '.join(map(str, paths))}; give files or folders of {', '.join(SUFFIXES)}")
    return found


def score_files(paths: Sequence[Path], prompt: str, reward: Reward, progress: Progress) -> list[dict[str, Any]]:
    """{"file", "reward", "error"} of each file; one that can't be scored has its error and no reward."""
    rows: list[dict[str, Any]] = []
    for done, path in enumerate(paths):
        try:
            wave, rate = read_audio(path)
            value = float(reward.score([torch.from_numpy(wave)], rate, [prompt])[0])
            rows.append({"file": str(path), "reward": value, "error": None})
        except AudioError as error:
            rows.append({"file": str(path), "reward": None, "error": str(error)})
        progress(done + 1, len(paths))
    return rows


def evaluate_folder(
    table: Path, reference: Path, reward: Reward, clap: Embedder, progress: Progress
) -> dict[str, Any]:
    """Reward, CLAP score and Frechet distance, each with its 95 % interval, of the clips that `table` captions.

    table: CSV with columns file and caption; reference: a folder of audio as it should sound. Clips that can't be
    read are listed under "skipped"; AudioError where fewer than two can.
    """
    corpus = FolderCorpus(table.parent, table)
    entries, own = corpus.entries(), audio_files([reference])
    total = len(entries) + len(own)
    waves, prompts, skipped = [], [], []
    for done, entry in enumerate(entries):
        try:
            wave, rate = corpus.load(entry)
            waves.append(torch.from_numpy(resample(wave, rate, clap.sample_rate)))
            prompts.append(entry.caption)
        except AudioError as error:
            skipped.append(str(error))
        progress(done + 1, total)
    if len(waves) < 2:
        raise CorpusError(f"{table} names {len(waves)} clips that can be read, evaluation needs 2")
    embeddings = []
    for done, path in enumerate(own):
        wave = resample(*read_audio(path), clap.sample_rate)
        embeddings.append(embed_audio(clap, [torch.from_numpy(wave)], clap.sample_rate))
        progress(len(entries) + done + 1, total)
    scores = evaluate_clips(
        waves, clap.sample_rate, prompts, reward=reward, clap=clap, reference=np.concatenate(embeddings)
    )
    metrics = {
        "reward": bootstrap_mean(scores.reward, seed=0),
        "clap": bootstrap_mean(scores.clap, seed=0),
        "frechet": scores.frechet_interval,
    }
    return {
        "clips": len(waves),
        "reference": len(own),
        "skipped": skipped,
        "metrics": {name: _plain(interval) for name, interval in metrics.items()},
    }


def _plain(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}
