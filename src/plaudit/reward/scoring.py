"""Scores of audio files: decoded in threads, scored in batches, cached; lists of clips, ranks and percentiles."""

from __future__ import annotations

import filecmp
import math
import sqlite3
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from plaudit.audio import list_audio_files, read_audio
from plaudit.audio_format import recorded_prompt
from plaudit.devices import (
    device_of,
    on_device,
    reduced_precision,
    rows_at_once,
)
from plaudit.errors import AudioError, CorpusError, ModelError, PlauditError
from plaudit.files import find_file
from plaudit.places import cache_dir
from plaudit.prefetch import prefetch
from plaudit.reporting import Progress
from plaudit.reward.base import Recording, RecordingReward, View
from plaudit.settings import Precision
from plaudit.sidecars import sidecar_path
from plaudit.storage import digest_of, file_digest, read_json, write_json
from plaudit.tables import read_table
from plaudit.types import Reward
from plaudit.workers import shared_threads, thread_count
from plaudit.writing import create_file

LOCK_TIMEOUT_SECONDS = 30.0
"""Seconds that one process waits for another's write (ours); a write takes milliseconds."""


class ContentCache:
    """An SQLite file of values by key; any number of threads and processes may read and write it at once.

    Where the file can't be used (no permission, full disk, damage), `complain` is called once, with one line, and from
    then on nothing is cached.
    """

    what = "values"
    """The name of the table and of its folder; `column` is the name and the type of its values."""
    column = "value BLOB"

    def __init__(self, path: Path, complain: Callable[[str], None]) -> None:
        self._path, self._complain = path, complain
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=LOCK_TIMEOUT_SECONDS, check_same_thread=False)
            self._connection.execute("PRAGMA synchronous = NORMAL")  # a value lost with the power is computed again
            with self._connection:
                columns = f"key BLOB PRIMARY KEY, {self.column} NOT NULL"
                self._connection.execute(f"CREATE TABLE IF NOT EXISTS {self.what} ({columns}) WITHOUT ROWID")
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    @classmethod
    def of_user(cls, complain: Callable[[str], None]) -> Self | None:
        """The file in the user's cache folder; None, after a call of `complain`, where there is no such folder."""
        try:
            return cls(cache_dir() / cls.what / f"{cls.what}.sqlite", complain)
        except ModelError as error:
            complain(f"{cls.what} are not cached: {error}")
            return None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _get(self, key: bytes) -> Any:
        """The value of `key`, or None."""
        with self._lock:
            if self._connection is None:
                return None
            try:
                row = self._connection.execute(f"SELECT * FROM {self.what} WHERE key = ?", (key,)).fetchone()
            except sqlite3.Error as error:
                self._give_up(error)
                return None
        return None if row is None else row[1]

    def _put(self, values: Iterable[tuple[bytes, Any]]) -> None:
        """Store values by key; they survive a kill."""
        with self._lock:
            if self._connection is None:
                return
            try:
                with self._connection:
                    self._connection.executemany(f"INSERT OR REPLACE INTO {self.what} VALUES (?, ?)", values)
            except sqlite3.Error as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._complain(
            f"{self.what} are not cached: {self._path} cannot be used ({error}); free space, or delete the file"
        )


class ScoreCache(ContentCache):
    """Scores by `score_key`."""

    what, column = "scores", "score REAL"

    def get(self, key: bytes) -> float | None:
        """The score of `key`, or None."""
        score = self._get(key)
        return None if score is None else float(score)

    def put(self, scores: Iterable[tuple[bytes, float]]) -> None:
        """Store scores by key; they survive a kill."""
        self._put(scores)


def score_key(path: Path, prompt: str, identity: str, precision: Precision = "no") -> bytes:
    """32 bytes for all that a score depends on: the content of the file, the prompt, the reward and the precision."""
    return bytes.fromhex(digest_of(file_digest(path), prompt, identity, *([] if precision == "no" else [precision])))


BATCH = 4
"""Clips scored at once on a CPU (ours): activations of more no longer fit its cache. A GPU takes a multiple of
them, and of the bounds below."""

BATCH_SECONDS = 120.0
"""Seconds of audio after which a batch is full whatever the number of its clips (ours)."""

WAITING, WAITING_SECONDS = 8 * BATCH, 320.0
"""Decoded clips, and seconds of them, that wait for others of their length before they are scored with clips of other
lengths (ours)."""

AHEAD_SECONDS = 160.0
"""Seconds of decoded audio in the queue beyond which nothing more is decoded (ours)."""


@dataclass(frozen=True)
class Clip:
    """An audio file, its prompt ("" for none), and the system that generated it, where it is given."""

    file: Path
    prompt: str = ""
    system: str | None = None


@dataclass(frozen=True)
class ScoredClip:
    """A clip with its score, or with the error in place of one."""

    clip: Clip
    score: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class _Finished:
    """A clip whose score was cached, or that cannot be read."""

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
    """The digest that a reward gives of itself, or None where it has no attribute identity."""
    return getattr(reward, "identity", None)


def score_clips(
    clips: Sequence[Clip],
    reward: Reward,
    cache: ScoreCache | None = None,
    progress: Progress = lambda done, total: None,
    precision: Precision = "no",
) -> list[ScoredClip]:
    """One row per clip, in their order; a clip that cannot be scored has its error, and the others are scored.

    Decoding and, on a CPU, scoring use as many threads as PyTorch would (torch.set_num_threads). Scores of a reward
    without an `identity` are not cached. precision: of the encoders' networks, bf16 or no for float32; spectra and the
    reward's head are always computed in float32. ModelError where the reward gives something other than one number per
    clip.
    """
    rows: dict[int, ScoredClip] = {}
    identity = identity_of_reward(reward)

    def keep(scored: list[tuple[_Decoded, ScoredClip]]) -> None:
        if cache is not None:
            cache.put((d.key, row.score) for d, row in scored if d.key is not None and row.score is not None)
        rows.update({decoded.index: row for decoded, row in scored})
        progress(len(rows), len(clips))

    def read(index: int) -> _Finished | _Decoded:
        return _read(index, clips[index], reward, identity, cache, precision)

    scale = rows_at_once(reward, BATCH) // BATCH
    with shared_threads(math.ceil(len(clips) / BATCH), most=thread_count()) as workers:
        at_once = workers if device_of(reward).type == "cpu" else 1  # two batches would share a GPU's memory
        scorers = ThreadPoolExecutor(at_once, "score")
        try:
            running: set[Future[list[tuple[_Decoded, ScoredClip]]]] = set()
            indices, depth = range(len(clips)), 2 * BATCH * max(workers, scale)
            limit = AHEAD_SECONDS * scale
            queue = prefetch(read, indices, depth=depth, threads=workers, weight=_seconds, limit=limit)
            with closing(queue) as decoded:
                for batch in _batches(decoded, scale, rows, progress, len(clips)):
                    running.add(scorers.submit(_score_batch, batch, reward, precision))
                    del batch  # so that its audio is freed with the worker's reference
                    if len(running) >= at_once:  # so that memory stays bounded
                        done, running = wait(running, return_when=FIRST_COMPLETED)
                        for future in done:
                            keep(future.result())
                        del done
            for future in running:
                keep(future.result())
        finally:
            scorers.shutdown(wait=True, cancel_futures=True)
    return [rows[index] for index in range(len(clips))]


def _batches(
    items: Iterator[_Finished | _Decoded], scale: int, rows: dict[int, ScoredClip], progress: Progress, total: int
) -> Iterator[list[_Decoded]]:
    """Decoded clips in batches of one length where possible; finished ones go straight to `rows`."""
    by_length: dict[tuple[int, ...], list[_Decoded]] = {}
    for index, item in enumerate(items):
        if isinstance(item, _Finished):
            rows[index] = item.scored
            progress(len(rows), total)
            continue
        batch = by_length.setdefault(item.lengths, [])
        batch.append(item)
        waiting = [one for some in by_length.values() for one in some]
        if len(batch) == BATCH * scale or _total(batch) > BATCH_SECONDS * scale:
            yield by_length.pop(item.lengths)
        elif len(waiting) > WAITING * scale or _total(waiting) > WAITING_SECONDS * scale:
            yield _oldest(by_length, scale)
        del item, batch, waiting  # the caller keeps what it needs
    while by_length:
        yield _oldest(by_length, scale)


def _seconds(item: _Finished | _Decoded) -> float:
    return item.seconds if isinstance(item, _Decoded) else 0.0


def _total(batch: list[_Decoded]) -> float:
    return sum(item.seconds for item in batch)


def _oldest(by_length: dict[tuple[int, ...], list[_Decoded]], scale: int) -> list[_Decoded]:
    """The batch that waits longest, filled up with the next: parts of them may have a length in common."""
    batch: list[_Decoded] = []
    while by_length:
        following = next(iter(by_length.values()))
        clips, seconds = len(batch) + len(following), _total(batch) + _total(following)
        if batch and (clips > BATCH * scale or seconds > BATCH_SECONDS * scale):
            break
        batch += by_length.pop(next(iter(by_length)))
    return batch


def _read(
    index: int, clip: Clip, reward: Reward, identity: str | None, cache: ScoreCache | None, precision: Precision
) -> _Finished | _Decoded:
    try:
        key = None
        if cache is not None and identity is not None and clip.file.is_file():
            key = score_key(clip.file, clip.prompt, identity, precision)
            score = cache.get(key)
            if score is not None:
                return _Finished(ScoredClip(clip, score))
        wave, rate = read_audio(clip.file)
        recording = Recording(torch.from_numpy(wave), rate, str(clip.file))
        views = reward.views if isinstance(reward, RecordingReward) else (View(rate),)
        lengths = tuple(recording.view(view).shape[-1] for view in views)  # resampled here, beside the encoders' work
    except AudioError as error:
        return _Finished(ScoredClip(clip, error=str(error)))
    except (OSError, MemoryError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it does not fit into memory"
        return _Finished(ScoredClip(clip, error=f"{clip.file} cannot be read ({reason}); check the file"))
    return _Decoded(index, clip, recording, key, lengths)


def _score_batch(batch: list[_Decoded], reward: Reward, precision: Precision) -> list[tuple[_Decoded, ScoredClip]]:
    """The batch with its rows; where it is refused as a whole, each clip is tried alone to find the ones at fault."""
    try:
        with reduced_precision(device_of(reward), enabled=precision == "bf16"):
            scores = score_recordings(reward, [d.recording for d in batch], [d.clip.prompt for d in batch]).tolist()
    except AudioError as error:
        if len(batch) == 1:
            return [(batch[0], ScoredClip(batch[0].clip, error=f"{batch[0].clip.file}: {error}"))]
        return [row for decoded in batch for row in _score_batch([decoded], reward, precision)]
    return [(d, _row(d.clip, score)) for d, score in zip(batch, scores, strict=True)]


def score_recordings(reward: Reward, recordings: Sequence[Recording], prompts: Sequence[str]) -> Tensor:
    """The scores [B] of recordings at any rates by a reward of any kind; ModelError as of `score_waves`."""
    if not isinstance(reward, RecordingReward):
        scores = torch.zeros(len(recordings), dtype=torch.float64)
        for rate in dict.fromkeys(recording.rate for recording in recordings):
            rows = [row for row, recording in enumerate(recordings) if recording.rate == rate]
            scores[rows] = score_waves(reward, [recordings[r].wave for r in rows], rate, [prompts[r] for r in rows])
        return scores
    with torch.inference_mode():
        return _one_each(reward.score_recordings(recordings, prompts), len(recordings))


def score_waves(reward: Reward, waves: Sequence[Tensor], rate: int, prompts: Sequence[str]) -> Tensor:
    """The scores [B] of waves [T] at one rate by a reward of any kind, which may return a list or an array.

    A reward that is a module gets them on its device. ModelError where its code fails or gives other than one number
    per clip.
    """
    if isinstance(reward, nn.Module):
        waves = [on_device(wave, device_of(reward)) for wave in waves]
    try:
        with torch.inference_mode():
            scores = torch.as_tensor(reward.score(list(waves), rate, list(prompts)))
    except PlauditError:
        raise
    except Exception as error:  # of code that is not this package's
        raise ModelError(f"{type(reward).__name__}.score fails: {error!r}; correct the reward's code") from error
    return _one_each(scores, len(waves))


def _one_each(scores: Tensor, clips: int) -> Tensor:
    if scores.shape != (clips,):
        raise ModelError(f"the reward gave scores of shape {list(scores.shape)} for {clips} clips; correct its code")
    return scores.cpu().double()


def _row(clip: Clip, score: float) -> ScoredClip:
    if not math.isfinite(score):
        return ScoredClip(clip, error=f"{clip.file}: the reward gave {score}; check the audio and the reward's weights")
    return ScoredClip(clip, score)


LISTED_PATHS = Path("-")
"""A path that represents a list of paths."""


def clips_at(paths: Sequence[Path], prompt: str | None, listed: Iterable[str]) -> list[Clip]:
    """The files named and those under the folders named; LISTED_PATHS stands for the lines of `listed`.

    prompt: of all clips; None reads each clip's, from its sidecar or tags (plaudit.audio_format.recorded_prompt).
    AudioError where there is none.
    """
    named: list[Path] = []
    for path in paths:
        if path == LISTED_PATHS:
            lines = [Path(line) for text in listed if (line := text.rstrip("\r\n"))]
            if not lines:
                raise AudioError("the list on standard input is empty; give one path a line")
            named += lines
        else:
            named.append(path)
    return [Clip(file, _prompt(file, prompt)) for file in list_audio_files(named)]


def clips_in_table(table: Path, prompt: str | None) -> list[Clip]:
    """The clips of a CSV with the columns file and optionally prompt (or caption) and system.

    Files are relative to the table's folder, or as given. `prompt` is for rows without one; None reads the clip's.
    CorpusError in one line where the table is malformed.
    """
    clips = []
    for row in read_table(table, ["file"]):
        file = row.filled("file", "name the audio file")
        system = row.get("system", "").strip() or None
        place = find_file(file, table.parent, Path()) or Path(file)
        clips.append(Clip(place, row.prompt() or _prompt(place, prompt), system))
    if not clips:
        raise CorpusError(f"{table} has no rows under its header; add at least one clip")
    return clips


def _prompt(file: Path, prompt: str | None) -> str:
    return recorded_prompt(file) if prompt is None else prompt


@dataclass(frozen=True)
class Ranked:
    """A candidate's rank among those of its prompt (1 is best, of `candidates`), and its lead over the next.

    margin: score minus that of the next candidate, kept or not; None for the last.
    """

    scored: ScoredClip
    rank: int
    candidates: int
    margin: float | None


def rank_clips(scored: Sequence[ScoredClip], keep: int) -> list[Ranked]:
    """The best `keep` of each prompt, prompts in order of appearance; equal scores stay in the order given.

    Clips without a score have no rank.
    """
    groups: dict[str, list[tuple[float, ScoredClip]]] = {}
    for row in scored:
        if row.score is not None:
            groups.setdefault(row.clip.prompt, []).append((row.score, row))
    ranked = []
    for group in groups.values():
        order = sorted(group, key=lambda pair: -pair[0])
        for place, (score, row) in enumerate(order[:keep], start=1):
            margin = score - order[place][0] if place < len(order) else None
            ranked.append(Ranked(row, place, len(order), margin))
    return ranked


def copy_ranked(ranked: Sequence[Ranked], folder: Path) -> list[Path]:
    """Copy each file as `<rank>-<name>`, or `<prompt>-<rank>-<name>` with several prompts, counted from 1.

    A file's sidecar is copied with it. A file appears whole or not at all, and none is replaced: AudioError, before
    anything is copied, where a name is taken by another file.
    """
    prompts = {prompt: number for number, prompt in enumerate(dict.fromkeys(r.scored.clip.prompt for r in ranked), 1)}
    width, places = len(str(len(prompts))), len(str(max((r.rank for r in ranked), default=1)))
    copies, pairs = [], []
    for entry in ranked:
        clip = entry.scored.clip
        group = f"{prompts[clip.prompt]:0{width}d}-" if len(prompts) > 1 else ""
        target = folder / f"{group}{entry.rank:0{places}d}-{clip.file.name}"
        copies.append(target)
        pairs.append((clip.file, target))
        if clip.file.suffix != ".json" and sidecar_path(clip.file).is_file():
            pairs.append((sidecar_path(clip.file), sidecar_path(target)))
    if existing := [target for source, target in pairs if target.exists() and not _same(source, target)]:
        raise AudioError(f"{existing[0]} already exists as another file; copy into another folder, nothing was copied")
    for source, target in pairs:
        _copy(source, target)
    return copies


def _copy(source: Path, target: Path) -> None:
    try:
        create_file(target, source.read_bytes())
    except FileExistsError:
        if not _same(source, target):
            raise AudioError(f"{target} was written by another process meanwhile; copy into another folder") from None


def _same(source: Path, target: Path) -> bool:
    return target.is_file() and filecmp.cmp(source, target, shallow=False)


class ScoreReference:
    """The scores of a set of clips, called `name`, by the reward of an `identity`."""

    def __init__(self, name: str, identity: str, scores: Sequence[float]) -> None:
        if not scores:
            raise ModelError(f"reference {name} has no scores; give audio that can be scored")
        self.name, self.identity, self.scores = name, identity, sorted(scores)

    @property
    def definition(self) -> str:
        """The definition of a percentile in this reference."""
        return f"mid-rank among {len(self.scores)} scores of {self.name}: % below, equal ones counted half"

    def percentile(self, score: float) -> float:
        """In 0..100: the percentage of reference scores below `score`, equal ones counted half."""
        below, not_above = bisect_left(self.scores, score), bisect_right(self.scores, score)
        return 100 * (below + not_above) / 2 / len(self.scores)


def score_reference(name: str, identity: str | None, scored: Sequence[ScoredClip]) -> ScoreReference:
    """The reference of scored clips; ModelError for a reward without an identity."""
    if identity is None:
        raise ModelError("this reward has no attribute identity, which a reference needs; give it one")
    return ScoreReference(name, identity, [row.score for row in scored if row.score is not None])


def save_reference(path: Path, reference: ScoreReference) -> None:
    """Write a reference as JSON, whole or not at all."""
    write_json(path, {"kind": "reference", "reward": reference.identity, "scores": reference.scores})


def load_reference(path: Path, identity: str | None) -> ScoreReference:
    """Read a reference for the reward with `identity`; ModelError where it is damaged or of another reward."""
    content = read_json(path)
    try:
        identity_of_file, scores = content["reward"], [float(score) for score in content["scores"]]
        if content["kind"] != "reference" or not all(map(math.isfinite, scores)):
            raise ValueError("not finite scores")
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ModelError(f"{path} is not a reference; write one with plaudit score --save-reference") from None
    if identity_of_file != identity:
        raise ModelError(f"{path} is of another reward; write it again with --save-reference and this one")
    return ScoreReference(str(path), identity_of_file, scores)
