"""Scoring files with decoding threads and batches, compared with one file after the other."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from benchmarks.cost.timing import Advance, Section, in_turns
from plaudit.audio import read_audio, resample
from plaudit.reward.base import Recording, RecordingReward, View
from plaudit.reward.scoring import Clip, score_clips
from plaudit.synthetic.corpus import SyntheticCorpus

SECONDS = 10.0


def bench_score(reward: RecordingReward, count: int, repeats: int, advance: Advance) -> Section:
    """Seconds per clip of `count` clips of the synthetic composer, 10 s each, every fourth at 44.1 kHz in stereo.

    Both use the same encoders; one by one runs with one thread and with PyTorch's default. PyTorch's threads change
    sums in their last digits, and with them a peak or a tempo near a decision: `facts` has the largest difference.
    """
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        clips = _written(Path(folder), count)
        scores: dict[str, list[float]] = {}

        def alone() -> None:
            torch.set_num_threads(1)
            scores["one thread"] = _one_by_one(clips, reward)
            torch.set_num_threads(threads)

        def threaded() -> None:
            scores["threads"] = _one_by_one(clips, reward)

        def batched() -> None:
            scores["plaudit"] = [row.score or 0.0 for row in score_clips(clips, reward)]

        ways = {"one by one, one thread": alone, f"one by one, {threads} threads": threaded, "plaudit": batched}
        taken = in_turns(ways, repeats, advance)
        decoding = _decoding(clips)
    return Section(
        "score",
        f"a clip of {SECONDS:g} s from its file to its reward",
        {way: total / count for way, total in taken.items()},
        "one by one, one thread",
        {
            "clips": count,
            "decoding and resampling alone, times real time per core": SECONDS / decoding,
            "largest difference of scores from one by one, one thread": _apart(scores["plaudit"], scores["one thread"]),
            "largest difference of scores from one by one, threads": _apart(scores["plaudit"], scores["threads"]),
        },
    )


def _written(folder: Path, count: int) -> list[Clip]:
    """The clips as 16-bit wav files."""
    corpus = SyntheticCorpus(count, SECONDS)
    clips = []
    for index, clip in enumerate(corpus.clips):
        wave, rate = corpus.render(clip), corpus.rate
        if index % 4 == 3:
            wave, rate = np.stack([resample(wave, rate, 44100)] * 2, axis=1), 44100
        path = folder / f"{clip.id}.wav"
        soundfile.write(path, wave, rate, "PCM_16")
        clips.append(Clip(path, clip.caption))
    return clips


def _one_by_one(clips: list[Clip], reward: RecordingReward) -> list[float]:
    scores = []
    for clip in clips:
        wave, rate = read_audio(clip.file)
        scores.append(float(reward.score([torch.from_numpy(wave)], rate, [clip.prompt])[0]))
    return scores


def _decoding(clips: list[Clip]) -> float:
    """Processor seconds per clip of decoding and resampling."""
    began = time.process_time()
    for clip in clips:
        wave, rate = read_audio(clip.file)
        recording = Recording(torch.from_numpy(wave), rate, str(clip.file))
        for view in (View(16000, 10.0), View(16000)):
            recording.view(view)
    return (time.process_time() - began) / len(clips)


def _apart(a: list[float], b: list[float]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))
