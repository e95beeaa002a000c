"""How fast files are scored: `python benchmarks/score.py [clips]` against one file after the other, same encoders.

Clips of the embedded composer, 10 s each, every fourth at 44.1 kHz in stereo. Blocks of clips are scored in turns by
each way, so that whatever else the machine does disturbs all; speeds are medians over blocks. Also prints the largest
differences between scores (PyTorch's own threads change sums in their last digits, and a peak or a tempo that hangs in
the balance with them), and the speed of decoding and resampling alone in processor time.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from plaudit import load_reward
from plaudit.audio import read_audio, resample
from plaudit.corpus.embedded.source import EmbeddedCorpus
from plaudit.reward.recording import Recording, RecordingReward, View
from plaudit.reward.scoring import Clip, score_clips

SECONDS = 10.0
BLOCK = 50


def written(folder: Path, count: int) -> list[Clip]:
    """The clips as 16-bit wav files."""
    corpus = EmbeddedCorpus(count, SECONDS)
    clips = []
    for index, clip in enumerate(corpus.clips):
        wave, rate = corpus.render(clip), corpus.rate
        if index % 4 == 3:
            wave, rate = np.stack([resample(wave, rate, 44100)] * 2, axis=1), 44100
        path = folder / f"{clip.id}.wav"
        soundfile.write(path, wave, rate, "PCM_16")
        clips.append(Clip(path, clip.caption))
    return clips


def one_by_one(clips: list[Clip], reward: RecordingReward) -> list[float]:
    """Read, resample, encode and judge one file after the other."""
    scores = []
    for clip in clips:
        wave, rate = read_audio(clip.file)
        scores.append(float(reward.score([torch.from_numpy(wave)], rate, [clip.prompt])[0]))
    return scores


def apart(a: list[float], b: list[float]) -> float:
    """The largest difference."""
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def main(count: int) -> None:
    """Prints the ratio of the median speeds, and what it is made of."""
    reward = load_reward("embedded")
    assert isinstance(reward, RecordingReward)
    with tempfile.TemporaryDirectory() as folder:
        clips = written(Path(folder), count)
        one_by_one(clips[:8], reward), score_clips(clips[:8], reward)
        threads = torch.get_num_threads()
        times: dict[str, list[float]] = {"threads": [], "alone": [], "together": []}
        scores: dict[str, list[float]] = {way: [] for way in times}
        for start in range(0, count, BLOCK):
            block = clips[start : start + BLOCK]
            for way in times:
                torch.set_num_threads(1 if way == "alone" else threads)
                began = time.perf_counter()
                if way == "together":
                    scores[way] += [row.score or 0.0 for row in score_clips(block, reward)]
                else:
                    scores[way] += one_by_one(block, reward)
                times[way].append((time.perf_counter() - began) / len(block))
        began = time.process_time()
        for clip in clips:
            wave, rate = read_audio(clip.file)
            recording = Recording(torch.from_numpy(wave), rate, str(clip.file))
            for view in (View(16000, 10.0), View(16000)):
                recording.heard(view)
        decoding = (time.process_time() - began) / count
    several, one, many = (statistics.median(times[way]) for way in times)
    names = (f"one by one, {threads} threads", "one by one, 1 thread", "score_clips")
    for name, taken in zip(names, (several, one, many), strict=True):
        print(f"{name:23}{taken * 1000:6.1f} ms a clip {SECONDS / taken:5.0f} x real time, ratio {taken / many:5.2f}")
    print(f"decoding, resampling   {decoding * 1000:6.1f} ms a clip, {SECONDS / decoding:5.0f} x real time per core")
    for way in ("alone", "threads"):
        print(f"largest difference of scores from one by one ({way}): {apart(scores['together'], scores[way]):.1e}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
