"""Audio files -> scores: decoded ahead in threads, judged in batches, each score kept the moment it is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from plaudit.ahead import ahead
from plaudit.audio import read_audio
from plaudit.errors import AudioError, ModelError, PlauditError
from plaudit.reward.cache import ScoreCache, score_key
from plaudit.reward.recording import Recording, RecordingReward, View
from plaudit.types import Reward

BATCH = 4
"""Clips judged at once (ours): with more, what the encoders work on no longer fits a processor's cache."""

BATCH_SECONDS = 120.0
"""Seconds of audio after which a batch is full whatever the number of its clips (ours)."""

WAITING, WAITING_SECONDS = 8 * BATCH, 320.0
"""Decoded clips, and seconds of them, that wait for others of their length before they are scored with clips of other
lengths (ours)."""

AHEAD_SECONDS = 160.0
"""Seconds of decoded audio in the queue beyond which nothing more is decoded (ours)."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Clip:
    """An audio file, what was asked for ("" for nothing), and the system that made it, where that is known."""

    file: Path
    prompt: str = ""
    system: str | None = None


@dataclass(frozen=True)
class ScoredClip:
    """A clip with its score, or with the error that it has none."""

    clip: Clip
    score: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class _Known:
    scored: ScoredClip


@dataclass(frozen=True)
class _Decoded:
    index: int
    clip: Clip
    recording: Recording
    key: bytes | None
    lengths: tuple[int, ...]

    @property
    def seconds(self) -> float:
        return self.recording.seconds


def identity_of_reward(reward: Reward) -> str | None:
    """The text that stands for a reward's weights, or None where it says nothing of them (a user's own may not)."""
    return getattr(reward, "identity", None)


def score_clips(
    clips: Sequence[Clip],
    reward: Reward,
    cache: ScoreCache | None = None,
    progress: Progress = lambda done, total: None,
) -> list[ScoredClip]:
    """One row per clip, in their order; a clip that cannot be scored has its error, and the others are scored.

    Uses as many threads as PyTorch would (torch.set_num_threads). Scores of a reward without an `identity` are not
    cached. ModelError where the reward gives something other than one number per clip.
    """
    rows: dict[int, ScoredClip] = {}
    identity = identity_of_reward(reward)

    def keep(judged: list[tuple[_Decoded, ScoredClip]]) -> None:
        if cache is not None:
            cache.put((d.key, row.score) for d, row in judged if d.key is not None and row.score is not None)
        rows.update({decoded.index: row for decoded, row in judged})
        progress(len(rows), len(clips))

    def read(index: int) -> _Known | _Decoded:
        return _read(index, clips[index], reward, identity, cache)

    with _workers(len(clips)) as workers:
        decoders = ThreadPoolExecutor(workers, "decode")
        judges = ThreadPoolExecutor(workers, "judge")
        try:
            running: set[Future[list[tuple[_Decoded, ScoredClip]]]] = set()
            depth = 2 * BATCH * workers
            queue = ahead(decoders, read, range(len(clips)), depth, weight=_seconds, limit=AHEAD_SECONDS)
            with closing(queue) as decoded:
                for batch in _batches(decoded, rows, progress, len(clips)):
                    running.add(judges.submit(_judged, batch, reward))
                    del batch  # so that its audio is freed with the worker's reference
                    if len(running) >= workers:  # so that memory stays bounded
                        done, running = wait(running, return_when=FIRST_COMPLETED)
                        for future in done:
                            keep(future.result())
                        del done
            for future in running:
                keep(future.result())
        finally:
            for pool in (decoders, judges):
                pool.shutdown(wait=True, cancel_futures=True)
    return [rows[index] for index in range(len(clips))]


@contextmanager
def _workers(clips: int) -> Iterator[int]:
    """How many threads share the work. They divide PyTorch's threads among them: clips share a processor better than
    the small operations on one clip do."""
    threads = torch.get_num_threads()
    workers = max(1, min(threads, math.ceil(clips / BATCH)))
    torch.set_num_threads(max(1, threads // workers))
    try:
        yield workers
    finally:
        torch.set_num_threads(threads)


def _batches(
    items: Iterator[_Known | _Decoded], rows: dict[int, ScoredClip], progress: Progress, total: int
) -> Iterator[list[_Decoded]]:
    """Decoded clips in batches of one length where possible; rows that are known already go straight to `rows`."""
    by_length: dict[tuple[int, ...], list[_Decoded]] = {}
    for index, item in enumerate(items):
        if isinstance(item, _Known):
            rows[index] = item.scored
            progress(len(rows), total)
            continue
        batch = by_length.setdefault(item.lengths, [])
        batch.append(item)
        waiting = [one for some in by_length.values() for one in some]
        if len(batch) == BATCH or _total(batch) > BATCH_SECONDS:
            yield by_length.pop(item.lengths)
        elif len(waiting) > WAITING or _total(waiting) > WAITING_SECONDS:
            yield _oldest(by_length)
        del item, batch, waiting  # the caller keeps what it needs
    while by_length:
        yield _oldest(by_length)


def _seconds(item: _Known | _Decoded) -> float:
    return item.seconds if isinstance(item, _Decoded) else 0.0


def _total(batch: list[_Decoded]) -> float:
    return sum(item.seconds for item in batch)


def _oldest(by_length: dict[tuple[int, ...], list[_Decoded]]) -> list[_Decoded]:
    """The batch that waits longest, filled up with the next: parts of them may have a length in common."""
    batch: list[_Decoded] = []
    while by_length:
        following = next(iter(by_length.values()))
        if batch and (len(batch) + len(following) > BATCH or _total(batch) + _total(following) > BATCH_SECONDS):
            break
        batch += by_length.pop(next(iter(by_length)))
    return batch


def _read(
    index: int, clip: Clip, reward: Reward, identity: str | None, cache: ScoreCache | None
) -> _Known | _Decoded:
    try:
        key = None
        if cache is not None and identity is not None and clip.file.is_file():
            key = score_key(clip.file, clip.prompt, identity)
            found = cache.get(key)
            if found is not None:
                return _Known(ScoredClip(clip, found))
        wave, rate = read_audio(clip.file)
        recording = Recording(torch.from_numpy(wave), rate, str(clip.file))
        views = reward.views if isinstance(reward, RecordingReward) else (View(rate),)
        lengths = tuple(recording.heard(view).shape[-1] for view in views)  # resampled here, beside the encoders' work
    except AudioError as error:
        return _Known(ScoredClip(clip, error=str(error)))
    except (OSError, MemoryError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it does not fit into memory"
        return _Known(ScoredClip(clip, error=f"{clip.file} cannot be read ({reason}); check the file"))
    return _Decoded(index, clip, recording, key, lengths)


def _judged(batch: list[_Decoded], reward: Reward) -> list[tuple[_Decoded, ScoredClip]]:
    """The batch with its rows; where it is refused as a whole, each clip is tried alone to find the ones at fault."""
    try:
        scores = _scores(batch, reward)
    except AudioError as error:
        if len(batch) == 1:
            return [(batch[0], ScoredClip(batch[0].clip, error=f"{batch[0].clip.file}: {error}"))]
        return [judged for decoded in batch for judged in _judged([decoded], reward)]
    return [(d, _row(d.clip, score)) for d, score in zip(batch, scores, strict=True)]


def _scores(batch: list[_Decoded], reward: Reward) -> list[float]:
    recordings, prompts = [d.recording for d in batch], [d.clip.prompt for d in batch]
    with torch.inference_mode():
        if isinstance(reward, RecordingReward):
            scores = reward.score_recordings(recordings, prompts)
        else:
            scores = _scores_by_rate(recordings, prompts, reward)
    if scores.shape != (len(batch),):
        raise ModelError(f"the reward gave scores of shape {list(scores.shape)} for {len(batch)} clips; mend it")
    return [float(score) for score in scores]


def _scores_by_rate(recordings: list[Recording], prompts: list[str], reward: Reward) -> torch.Tensor:
    scores = torch.zeros(len(recordings))
    for rate in dict.fromkeys(recording.rate for recording in recordings):
        rows = [row for row, recording in enumerate(recordings) if recording.rate == rate]
        given = _numbers(reward, [recordings[row].wave for row in rows], rate, [prompts[row] for row in rows])
        if given.shape != (len(rows),):
            return given
        scores[rows] = given.float().cpu()
    return scores


def _numbers(reward: Reward, waves: list[torch.Tensor], rate: int, prompts: list[str]) -> torch.Tensor:
    """What somebody's own reward returns, an array or a list too; ModelError where its code fails."""
    try:
        return torch.as_tensor(reward.score(waves, rate, prompts))
    except PlauditError:
        raise
    except Exception as error:  # whatever foreign code raises is for the user to correct there
        raise ModelError(f"{type(reward).__name__}.score fails: {error!r}; correct the reward's code") from error


def _row(clip: Clip, score: float) -> ScoredClip:
    if not math.isfinite(score):
        return ScoredClip(clip, error=f"{clip.file}: the reward gave {score}; check the audio and the reward's weights")
    return ScoredClip(clip, score)
