"""Files -> rows: the same scores as one by one, errors in their rows, a cache that any number of processes share."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from plaudit.audio import read_audio
from plaudit.errors import AudioError, ModelError
from plaudit.reward.base import Recording, RecordingReward, View
from plaudit.reward.scoring import AHEAD_SECONDS, Clip, ScoreCache, score_clips, score_key
from plaudit.reward.tunejury import TuneJury
from plaudit.settings import Precision
from plaudit.types import Reward
from tests.reward.listeners import clip
from tests.reward.test_scorer import a_jury


def write(path: Path, seconds: float = 0.5, rate: int = 8000, channels: int = 1, seed: int = 0) -> Path:
    wave = clip(seed, seconds, rate).numpy()
    soundfile.write(path, np.stack([wave] * channels, axis=1), rate)
    return path


def refuse(line: str) -> None:
    raise AssertionError(line)


def a_folder(folder: Path, count: int = 23) -> list[Clip]:
    """Clips of three lengths at three rates, mono and stereo, with and without prompts."""
    kinds = [(0.4, 8000, 1), (0.4, 16000, 2), (0.7, 11025, 1), (0.55, 8000, 1)]
    files = [write(folder / f"{n:02d}.wav", *kinds[n % 4], seed=n) for n in range(count)]
    return [Clip(file, ("piano", "", "drums")[n % 3]) for n, file in enumerate(files)]


def one_by_one(clips: list[Clip], reward: Reward) -> list[float]:
    scores = []
    for each in clips:
        wave, rate = read_audio(each.file)
        scores.append(float(reward.score([torch.from_numpy(wave)], rate, [each.prompt])[0]))
    return scores


class Loudness:
    """A reward of the plainest kind: no identity, no views, one number per clip."""

    def score(self, waves: list[Tensor], rate: int, prompts: list[str]) -> Tensor:
        return torch.stack([wave.square().mean() for wave in waves])


class Counting(TuneJury):
    """Counts the recordings scored."""

    scored = 0

    def score_recordings(self, recordings, prompts):  # type: ignore[no-untyped-def]
        self.scored += len(recordings)
        return super().score_recordings(recordings, prompts)


def counting() -> Counting:
    counting_reward = a_jury()
    return Counting(counting_reward.head, counting_reward.features, counting_reward.facts)


@pytest.mark.parametrize("reward", [a_jury(), Loudness()], ids=["tunejury", "plain"])
@pytest.mark.parametrize("threads", [1, 3])
def test_scores_are_those_of_one_file_after_the_other(tmp_path: Path, reward: Reward, threads: int) -> None:
    clips, before = a_folder(tmp_path), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        encoded: list[tuple[int, int]] = []
        rows = score_clips(clips, reward, progress=lambda done, total: encoded.append((done, total)))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert [row.clip for row in rows] == clips and all(row.error is None for row in rows)
    assert [row.score for row in rows] == pytest.approx(one_by_one(clips, reward), abs=1e-5)
    assert encoded[-1] == (23, 23) and encoded == sorted(encoded)


def test_a_recording_is_resampled_once_per_rate_and_length() -> None:
    recording = Recording(clip(0, 1.0, 16000), 16000, "it")
    whole, cut = recording.view(View(8000)), recording.view(View(8000, 0.5))
    assert recording.view(View(8000, 10.0)) is whole and recording.view(View(8000, 0.5)) is cut
    assert (len(whole), len(cut)) == (8000, 4000)
    assert recording.view(View(16000)).data_ptr() == recording.wave.data_ptr()


def test_bad_files_get_errors_and_good_ones_scores(tmp_path: Path) -> None:
    good = write(tmp_path / "good.wav")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("these are no samples")
    (tmp_path / "cut.wav").write_bytes(good.read_bytes()[:3000])
    soundfile.write(tmp_path / "silent.wav", np.zeros(4000), 8000)
    soundfile.write(tmp_path / "nan.wav", np.full(4000, np.nan), 8000, "FLOAT")
    soundfile.write(tmp_path / "one.wav", np.full(1, 0.5), 8000)
    write(tmp_path / "eight.wav", channels=8)
    write(tmp_path / "fast.wav", rate=192000)
    names = ["good", "empty", "text", "cut", "silent", "nan", "one", "eight", "fast", "missing"]
    rows = score_clips([Clip(tmp_path / f"{name}.wav", "x" * 10_000) for name in names], _whole_seconds())
    said = {name: row.error for name, row in zip(names, rows, strict=True)}
    assert [name for name in names if said[name] is None] == ["good", "eight", "fast"]
    for name, words in {
        "empty": "is empty (0 bytes)",
        "text": "cannot be decoded",
        "cut": "is truncated",
        "silent": "is silent",
        "nan": "NaN or infinite",
        "one": "too short",
        "missing": "does not exist",
    }.items():
        assert words in str(said[name]) and str(tmp_path / name) in str(said[name])


def _whole_seconds() -> Reward:
    """A jury that refuses a whole batch for one clip that is too short, as encoders do."""

    class Strict(TuneJury):
        def score_recordings(self, recordings, prompts):  # type: ignore[no-untyped-def]
            if any(recording.wave.shape[-1] < 256 for recording in recordings):
                raise AudioError("the audio is too short")
            return super().score_recordings(recordings, prompts)

    counting_reward = a_jury()
    return Strict(counting_reward.head, counting_reward.features)


def test_a_score_that_is_no_number_is_an_error_and_a_wrong_shape_stops(tmp_path: Path) -> None:
    class Broken:
        def score(self, waves: list[Tensor], rate: int, prompts: list[str]) -> Tensor:
            return torch.full((len(waves),), float("nan")) if prompts[0] else torch.zeros(len(waves), 2)

    file = write(tmp_path / "a.wav")
    assert "the reward gave nan" in str(score_clips([Clip(file, "x")], Broken())[0].error)
    with pytest.raises(ModelError, match=r"shape \[1, 2\] for 1 clips"):
        score_clips([Clip(file)], Broken())


def test_scored_clips_are_not_scored_again(tmp_path: Path) -> None:
    clips, counting_reward = a_folder(tmp_path, 6), counting()
    cache = ScoreCache(tmp_path / "cache" / "scores.sqlite", refuse)
    first = score_clips(clips, counting_reward, cache)
    assert (
        counting_reward.scored == 6
        and score_clips(clips, counting_reward, cache) == first
        and counting_reward.scored == 6
    )
    copied = tmp_path / "copy.wav"
    copied.write_bytes(clips[0].file.read_bytes())
    assert (
        score_clips([Clip(copied, clips[0].prompt)], counting_reward, cache)[0].score == first[0].score
        and counting_reward.scored == 6
    )
    score_clips([Clip(copied, "another prompt")], counting_reward, cache)
    write(clips[1].file, seed=99)
    score_clips(clips, counting_reward, cache)
    assert counting_reward.scored == 8
    other = counting()
    with torch.no_grad():
        other.head.offset += 1
    assert score_clips(clips[:1], other, cache)[0].score == pytest.approx(first[0].score - 1)  # type: ignore[operator]
    assert other.scored == 1 and isinstance(other, RecordingReward)


class Product(Loudness):
    """A reward with a matrix product, whose result shows the precision; it counts the waves scored."""

    identity, scored = "product", 0

    def score(self, waves: list[Tensor], rate: int, prompts: list[str]) -> Tensor:
        self.scored += len(waves)
        return torch.stack([(wave[None] @ (wave[:, None] + 1))[0, 0].float() for wave in waves])


def test_scores_of_two_precisions_are_cached_apart(tmp_path: Path) -> None:
    clips, reward = a_folder(tmp_path, 4), Product()
    cache = ScoreCache(tmp_path / "scores.sqlite", refuse)
    exact, reduced = (score_clips(clips, reward, cache, precision=precision) for precision in ("no", "bf16"))
    assert reward.scored == 8 and exact != reduced
    assert [row.score for row in reduced] == pytest.approx([row.score for row in exact], rel=0.05)
    assert score_clips(clips, reward, cache, precision="bf16") == reduced and score_clips(clips, reward, cache) == exact
    assert reward.scored == 8 and not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_scores_do_not_depend_on_batches_or_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    clips, reward, before = a_folder(tmp_path, 9), a_jury(), torch.get_num_threads()
    scores = []
    try:
        for batch, threads in ((1, 1), (4, 1), (4, 2), (8, 2)):
            monkeypatch.setattr("plaudit.reward.scoring.BATCH", batch)
            torch.set_num_threads(threads)
            scores.append([row.score for row in score_clips(clips, reward, precision=precision)])
    finally:
        torch.set_num_threads(before)
    tolerance = 1e-5 if precision == "no" else 1e-2 * float(np.std(scores[0]))
    assert all(one == pytest.approx(scores[0], abs=tolerance) for one in scores)


def test_a_reward_that_does_not_say_what_it_is_is_not_cached(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite", refuse)
    score_clips([Clip(write(tmp_path / "a.wav"))], Loudness(), cache)
    assert sqlite3.connect(tmp_path / "scores.sqlite").execute("SELECT count(*) FROM scores").fetchone() == (0,)


@pytest.mark.parametrize("harm", ["file in the way", "damaged", "read only"])
def test_a_cache_that_cannot_be_used_is_reported_once(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "cache" / "scores.sqlite"
    if harm == "file in the way":
        path.parent.write_text("")
    else:
        path.parent.mkdir()
        path.write_bytes(b"no database, whatever its name says" * 100)
    message: list[str] = []
    cache = ScoreCache(path, message.append)
    if harm == "read only":
        path.unlink()
        cache = ScoreCache(path, message.append)
        message.clear()
        cache._connection.execute("PRAGMA query_only = ON")  # type: ignore[union-attr]
    rows = score_clips(a_folder(tmp_path, 9), a_jury(), cache)
    assert all(row.score is not None for row in rows)
    assert len(message) == 1 and "scores are not cached" in message[0] and str(path) in message[0]


def test_a_disk_that_fills_up_costs_the_cache_and_nothing_else(tmp_path: Path) -> None:
    message: list[str] = []
    cache = ScoreCache(tmp_path / "scores.sqlite", message.append)
    cache._connection.execute("PRAGMA max_page_count = 2")  # type: ignore[union-attr]
    for start in range(0, 1000, 100):
        cache.put((n.to_bytes(32, "big"), 0.5) for n in range(start, start + 100))
    assert len(message) == 1 and "full" in message[0]
    assert score_clips(a_folder(tmp_path, 2), a_jury(), cache)[1].score is not None


def _fill(path: str, first: int, count: int) -> None:
    cache = ScoreCache(Path(path), refuse)
    for n in range(first, first + count):
        cache.put([(n.to_bytes(32, "big"), float(n))])
        cache.put([(bytes(32), 7.0)])
    cache.close()


def test_processes_and_threads_share_a_cache(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    started = multiprocessing.get_context("fork")
    workers = [started.Process(target=_fill, args=(str(path), 1 + 40 * n, 40)) for n in range(2)]
    thread = threading.Thread(target=_fill, args=(str(path), 1000, 40))
    for worker in (*workers, thread):
        worker.start()
    for worker in (*workers, thread):
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    cache = ScoreCache(path, refuse)
    assert [cache.get(n.to_bytes(32, "big")) for n in (*range(1, 81), *range(1000, 1040))] == [
        *range(1, 81), *range(1000, 1040)
    ]  # fmt: skip


SLOW = """
import sys, time
from pathlib import Path
from plaudit.reward.scoring import ScoreCache
from plaudit.reward.scoring import AHEAD_SECONDS, Clip, score_clips
from tests.reward.test_scoring import counting, refuse
class Slow(type(counting())):
    def score_recordings(self, recordings, prompts):
        time.sleep(0.2)
        return super().score_recordings(recordings, prompts)
jury = counting(); jury.__class__ = Slow
files = sorted(Path(sys.argv[1]).glob("*.wav"))
score_clips([Clip(file) for file in files], jury, ScoreCache(Path(sys.argv[2]), refuse))
"""


def test_killed_scoring_resumes(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    clips = [Clip(each.file) for each in a_folder(tmp_path / "clips", 40)]
    path = tmp_path / "scores.sqlite"
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path / "clips"), str(path)])
    counting_reward = counting()
    # The subprocess's class is another; what it kept is found by the identity that both have in common.
    keys = [score_key(each.file, each.prompt, counting_reward.identity) for each in clips]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and any(ScoreCache(path, refuse).get(key) is not None for key in keys):
            break
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    cache = ScoreCache(path, refuse)
    kept = sum(cache.get(key) is not None for key in keys)
    assert 0 < kept < 40
    rows = score_clips(clips, counting_reward, cache)
    assert counting_reward.scored == 40 - kept
    assert [row.score for row in rows] == pytest.approx(one_by_one(clips, a_jury()), abs=1e-5)


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most, lock = 0.0, 0.0, threading.Lock()

    class Counted(Recording):
        def __init__(self, wave: torch.Tensor, rate: int, name: str) -> None:
            nonlocal alive, most
            super().__init__(wave, rate, name)
            with lock:
                alive += self.seconds
                most = max(most, alive)
            weakref.finalize(self, freed, self.seconds)

    def freed(seconds: float) -> None:
        nonlocal alive
        with lock:
            alive -= seconds

    class Slow:
        views, identity = (View(2000),), "slow"

        def score(self, waves: Sequence[torch.Tensor], rate: int, prompts: Sequence[str]) -> torch.Tensor:
            raise AssertionError("recordings can be scored")

        def score_recordings(self, recordings: Sequence[Recording], prompts: Sequence[str]) -> torch.Tensor:
            time.sleep(0.01)
            return torch.tensor([recording.view(View(2000)).std() for recording in recordings])

    monkeypatch.setattr("plaudit.reward.scoring.Recording", Counted)
    clips = [Clip(write(tmp_path / f"{n}.wav", 200 + n, 1000, seed=n)) for n in range(24)]
    rows = score_clips(clips, Slow())  # type: ignore[arg-type]
    assert all(row.error is None for row in rows)
    workers = torch.get_num_threads()
    assert alive == 0 and most <= AHEAD_SECONDS + 224 * (3 * workers + 2) < 24 * 200
