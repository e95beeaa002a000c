"""Scores of a captioned set of audio files against a reference folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plaudit.audio import audio_files, read_audio, resample
from plaudit.corpus.folder import FolderCorpus
from plaudit.errors import AudioError, CorpusError
from plaudit.evaluate.evaluator import embed_audio, evaluate_clips
from plaudit.evaluate.statistics import Interval, bootstrap_mean
from plaudit.types import Embedder, Reward

Progress = Callable[[int, int], None]


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
