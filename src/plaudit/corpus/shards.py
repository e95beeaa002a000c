"""Encoding a corpus to a shard set: latents of every clip, features of every distinct caption.

The corpus is divided into jobs, one per shard. An engine (this process, or a cluster) encodes the missing ones, and a
thread writes each while the next is encoded. A shard depends on its job only and is written atomically, so work that
was killed continues at the first unfinished shard and ends with the same bytes.
"""

from __future__ import annotations

import io
import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from torch import Tensor, nn

from plaudit.audio import SILENT_PEAK, check_finite, fit_length, range_problem, resample
from plaudit.corpus.manifest import Corpus, Entry, recordings
from plaudit.corpus.shard_set import (
    INDEX,
    QUARANTINE,
    STATS,
    ApproveChanges,
    Facts,
    Ledger,
    ShardProvenance,
    ShardSet,
    locked_ledger,
    no_changes,
)
from plaudit.devices import batched
from plaudit.errors import AudioError, CorpusError
from plaudit.prefetch import prefetch
from plaudit.reporting import Progress, no_progress
from plaudit.storage import digest_of, tensors_digest, to_json
from plaudit.types import Codec, TextEncoder
from plaudit.workers import thread_count


class PhaseTimer:
    """Wall and thread CPU seconds by phase, summed over all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.wall: dict[str, float] = defaultdict(float)
        self.processor: dict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Attribute the time inside to the phase `name`."""
        wall, processor = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            with self._lock:
                self.wall[name] += time.perf_counter() - wall
                self.processor[name] += time.thread_time() - processor


Advance = Callable[[int], None]
"""Called with the number of further clips or captions that are done."""

LoadedClip = np.ndarray | str
"""The codec's input, float32 [frames * hop], or the reason why there is none."""


MARGIN_SECONDS = 0.1
"""Seconds that are read beyond a clip's end, for the resampling filter."""


@dataclass(frozen=True)
class Preprocessing:
    """A transformation of each clip before it is encoded, e.g. vocal removal: (wave [T], rate in Hz) -> wave [T].

    `name` covers all that its result depends on. spared: clips that are left as they are.
    """

    name: str
    apply: Callable[[np.ndarray, int], np.ndarray]
    spared: Callable[[Entry], bool] = lambda entry: False


@dataclass(frozen=True)
class Job:
    """One shard to encode: of clips, or of distinct captions."""

    name: str
    entries: tuple[Entry, ...] = ()
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class EncodedShard:
    """A shard's tensors; for clips, `facts` has `quarantine`, and `sums` for the statistics."""

    name: str
    tensors: dict[str, Tensor]
    facts: Facts


ShardEngine = Callable[[Sequence[Job], Advance], Generator[EncodedShard]]
"""Encodes jobs, in this process or many; shards may be yielded in any order."""


@dataclass(frozen=True)
class ShardEncoder:
    """Encodes shards in this process, while `decoders` threads (None: as many as PyTorch uses) load clips ahead.

    load: Corpus.load. A clip has `frames` latent frames.
    """

    load: Callable[[Sequence[Entry], float], tuple[list[np.ndarray], int]]
    codec: Codec
    text_encoder: TextEncoder
    frames: int
    batch_size: int = 16
    preprocessing: Preprocessing | None = None
    decoders: int | None = None
    timer: PhaseTimer = field(default_factory=PhaseTimer)

    def __call__(self, jobs: Sequence[Job], advance: Advance = lambda count: None) -> Generator[EncodedShard]:
        """The shards of `jobs`, in their order; CorpusError where a model's output can't be stored."""
        runs = [run for job in jobs for run in recordings(job.entries)]
        workers = self.decoders or thread_count()
        clips = sum(map(len, runs))
        batches_ahead = 2 * self.batch_size * len(runs) / max(1, clips)  # in recordings
        depth, limit = 2 * workers + math.ceil(batches_ahead), max(4 * self.batch_size, 20 * workers)
        loaded = prefetch(self.load_clips, runs, depth=depth, threads=workers, weight=len, limit=limit)
        with closing(loaded):
            for job in jobs:
                yield self._captions(job, advance) if job.captions else self._clips(job, loaded, advance)

    def load_clips(self, run: Sequence[Entry]) -> list[LoadedClip]:
        """The clips of one recording."""
        reasons = [e.problem or ("" if e.caption.strip() else "the caption is empty; write one") for e in run]
        usable = [entry for entry, reason in zip(run, reasons, strict=True) if not reason]
        if not usable:
            return list(reasons)
        try:
            with self.timer.phase("decode"):
                waves, rate = self.load(usable, self._seconds + MARGIN_SECONDS)
        except AudioError as error:
            return [reason or str(error) for reason in reasons]
        except (OSError, MemoryError) as error:
            cause = error.strerror if isinstance(error, OSError) else "it does not fit into memory"
            return [reason or f"{run[0].path} cannot be read ({cause}); check the file" for reason in reasons]
        clips = iter([self._fitted(entry, wave, rate) for entry, wave in zip(usable, waves, strict=True)])
        return [reason or next(clips) for reason in reasons]

    @property
    def _seconds(self) -> float:
        return self.frames * self.codec.hop / self.codec.sample_rate

    def _fitted(self, entry: Entry, wave: np.ndarray, rate: int) -> LoadedClip:
        """A clip at the codec's rate and of its length, or why it can't be used."""
        if not wave.size:
            return f"{entry.path} ends before {entry.start:.2f} s, where this clip begins; get the file again"
        if problem := self._problem(entry, wave[: math.ceil(self._seconds * rate)]):
            return problem
        try:
            if self.preprocessing is not None and not self.preprocessing.spared(entry):
                with self.timer.phase("preprocess"), torch.inference_mode():
                    wave = self.preprocessing.apply(wave, rate)
                    check_finite(wave, f"clip {entry.id} after {self.preprocessing.name}")
            with self.timer.phase("resample"):
                wave = fit_length(resample(wave, rate, self.codec.sample_rate), self.frames * self.codec.hop)
        except AudioError as error:
            return str(error)
        return self._problem(entry, wave) or wave

    def _problem(self, entry: Entry, wave: np.ndarray) -> str:
        low, high = float(wave.min()), float(wave.max())
        problem = range_problem(low, high)
        if problem and high - low < 2 * SILENT_PEAK:
            seconds = f"{self._seconds:g} s"
            place = f"the {seconds} from {entry.start:g} s on" if entry.start else f"the first {seconds}"
            return f"{place} are silent; cut the silence off"
        return f"clip {entry.id} {problem}" if problem else ""

    def _clips(self, job: Job, loaded: Iterator[list[LoadedClip]], advance: Advance) -> EncodedShard:
        """Posteriors of one shard's clips, those in quarantine, and sums for the statistics."""
        means, stds, splits = [], [], []
        quarantine: list[dict[str, str | None]] = []
        for batch in self._batches(job, loaded, quarantine, advance):
            with self.timer.phase("encode"):
                waves = torch.from_numpy(np.stack([wave for _, wave in batch]))
                posterior = batched(self.codec, self.codec.encode, waves)
                mean, std = posterior.mean.half(), posterior.std.half()
            for (clip, _), m, s in zip(batch, mean, std, strict=True):
                if m.isfinite().all() and s.isfinite().all():
                    means.append(m)
                    stds.append(s)
                    splits.append(clip.split)
                else:
                    reason = f"codec {self.codec.name} makes latents that are not finite"
                    quarantine.append(_quarantined(clip, reason))
        shape = (len(means), self.frames, self.codec.latent_dim)
        tensors = {
            "mean": torch.stack(means) if means else torch.zeros(shape, dtype=torch.float16),
            "std": torch.stack(stds) if stds else torch.zeros(shape, dtype=torch.float16),
        }
        if tensors["mean"].shape != shape:
            actual = list(tensors["mean"].shape)
            raise CorpusError(f"codec {self.codec.name} made latents of {actual}, not {list(shape)}")
        return EncodedShard(job.name, tensors, {"quarantine": quarantine, "sums": _sums(tensors, splits)})

    def _batches(
        self, job: Job, loaded: Iterator[list[LoadedClip]], quarantine: list[dict[str, str | None]], advance: Advance
    ) -> Iterator[list[tuple[Entry, np.ndarray]]]:
        """The usable clips in batches, the last one smaller; the others go to `quarantine`."""
        batch: list[tuple[Entry, np.ndarray]] = []
        passed = 0
        for run in recordings(job.entries):
            with self.timer.phase("wait for clips"):
                clips = next(loaded)
            for entry, clip in zip(run, clips, strict=True):
                passed += 1
                if isinstance(clip, str):
                    quarantine.append(_quarantined(entry, clip))
                else:
                    batch.append((entry, clip))
                if len(batch) == self.batch_size:
                    yield batch
                    advance(passed)
                    batch, passed = [], 0
        if batch:
            yield batch
        advance(passed)

    def _captions(self, job: Job, advance: Advance) -> EncodedShard:
        """Features of one shard's captions."""
        features = []
        for start in range(0, len(job.captions), self.batch_size):
            batch = list(job.captions[start : start + self.batch_size])
            with self.timer.phase("captions"):
                features.append(batched(self.text_encoder, self.text_encoder.encode, batch))
            advance(len(batch))
        tensors = {
            "tokens": torch.cat([f.tokens.half() for f in features]),
            "pooled": torch.cat([f.pooled.half() for f in features]),
        }
        if not all(t.isfinite().all() for t in tensors.values()):
            raise CorpusError(f"text encoder {self.text_encoder.name} makes features that are not finite in {job.name}")
        return EncodedShard(job.name, tensors, {})


def _quarantined(entry: Entry, reason: str) -> dict[str, str | None]:
    return {"id": entry.id, "path": None if entry.path is None else str(entry.path), "reason": reason}


def _sums(tensors: dict[str, Tensor], splits: list[str]) -> dict[str, dict[str, Any]]:
    """By split: how many latent frames, and per channel the sums of z and E[z^2] = mean^2 + std^2."""
    sums = {}
    for split in sorted(set(splits)):
        rows = torch.tensor([s == split for s in splits])
        mean, std = tensors["mean"][rows].double(), tensors["std"][rows].double()  # [n, N, C]
        sums[split] = {
            "frames": mean.shape[0] * mean.shape[1],
            "first": mean.sum((0, 1)).tolist(),
            "second": (mean**2 + std**2).sum((0, 1)).tolist(),
        }
    return sums


SHARD_SIZE, BATCH_SIZE = 512, 16


def encode_corpus(
    corpus: Corpus,
    codec: Codec,
    text_encoder: TextEncoder,
    folder: Path,
    seconds: float,
    shard_size: int = SHARD_SIZE,
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
    preprocessing: Preprocessing | None = None,
    engine: ShardEngine | None = None,
    timer: PhaseTimer | None = None,
    provenance: ShardProvenance | None = None,
    approve: ApproveChanges = no_changes,
) -> ShardSet:
    """Encode `seconds` of every clip into `folder`, shorter ones padded with zeros, and open the result.

    A clip has N = floor(seconds * rate / hop) latent frames. Clips that can't be used go to `quarantine.jsonl` with the
    reason. Finished and intact shards of the same clips and models are kept; the rest is encoded again, by
    `engine` where given, which must use the same models. provenance: recorded in the folder, which must hold nothing
    else; where its settings differ from those recorded, `approve` decides. Raises CorpusError where no clip
    can be used, ids repeat, the disk is full, another process encodes into the folder, or it holds anything else.
    """
    frames = frames_of(codec, seconds)
    entries = corpus.entries()
    if len({entry.id for entry in entries}) < len(entries):
        raise CorpusError(f"corpus {corpus.name} repeats ids; make them unique")
    timer = timer or PhaseTimer()
    local = ShardEncoder(
        corpus.load, codec, text_encoder, frames, batch_size, preprocessing=preprocessing, timer=timer
    )
    parts = cut_into_shards(entries, shard_size)
    with locked_ledger(folder, provenance, approve) as ledger, torch.inference_mode():
        work = _Work(ledger, engine or local, timer, progress or no_progress)
        facts = work.shards(_clip_jobs(local, parts), len(entries))
        bad = [line for shard in facts for line in shard["quarantine"]]
        places = _places(parts, {line["id"] for line in bad})
        if not places:
            first = f"; the first: {bad[0]['reason']}" if bad else ""
            raise CorpusError(f"none of the {len(entries)} clips of corpus {corpus.name} can be used{first}")
        captions = list(dict.fromkeys(entry.caption for entry, _, _ in places))
        work.shards(_caption_jobs(local, captions, shard_size))
        ledger.forget_others()
        about = {
            "corpus": corpus.name,
            "codec": codec.name,
            "text_encoder": text_encoder.name,
            "sample_rate": codec.sample_rate,
            "hop": codec.hop,
            "frames": frames,
            "latent_dim": codec.latent_dim,
            "clips": len(places),
            "quarantined": len(bad),
        }
        if preprocessing is not None:
            about["preprocessing"] = preprocessing.name
        if licences := Counter(entry.licence for entry, _, _ in places if entry.licence):
            about["licences"] = dict(sorted(licences.items()))
        ledger.save_file(STATS, to_json(about | _latent_statistics(facts), indent=2) + "\n")
        ledger.save_file(QUARANTINE, "".join(to_json(line) + "\n" for line in bad))
        ledger.save_file(INDEX, _index(places, captions))
    return ShardSet(folder, verify=False)


def frames_of(codec: Codec, seconds: float) -> int:
    """Latent frames of a clip; CorpusError where it is too short for one."""
    frames = int(seconds * codec.sample_rate / codec.hop + 1e-9)
    if frames < 1:
        raise CorpusError(f"{seconds:g} s is shorter than one latent frame of codec {codec.name}; ask for more")
    return frames


def cut_into_shards(entries: Sequence[Entry], size: int) -> list[list[Entry]]:
    """`size` entries a shard, in order. The clips of a recording stay together, so a shard may be smaller or larger."""
    parts: list[list[Entry]] = []
    for run in recordings(entries):
        if not parts or len(parts[-1]) + len(run) > size:
            parts.append([])
        parts[-1] += run
    return parts


@dataclass(frozen=True)
class _Work:
    ledger: Ledger
    engine: ShardEngine
    timer: PhaseTimer
    progress: Progress

    def shards(self, keyed: Sequence[tuple[Job, str]], total: int | None = None) -> list[Facts]:
        """Encode every shard that is not finished; the ledger's record of each. total: clips, for the progress."""
        records: dict[str, Facts] = {}
        missing: dict[str, tuple[Job, str]] = {}
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if total is not None:
                self.progress(done, total)

        for job, key in keyed:
            facts = self.ledger.finished(job.name, key)
            if facts is None:
                missing[job.name] = (job, key)
            else:
                records[job.name] = facts
                advance(len(job.entries))
        if missing:
            encoded = self.engine([job for job, _ in missing.values()], advance)
            records |= self._write(encoded, {name: key for name, (_, key) in missing.items()})
        return [records[job.name] for job, _ in keyed]

    def _write(self, encoded: Generator[EncodedShard], keys: dict[str, str]) -> dict[str, Facts]:
        """Write each shard while the next is encoded; the record of each."""
        records: dict[str, Facts] = {}

        def write(shard: EncodedShard) -> None:
            facts = {"key": keys[shard.name]} | shard.facts
            with self.timer.phase("write"):
                self.ledger.save_shard(shard.name, shard.tensors, facts)
            records[shard.name] = facts

        with closing(encoded), ThreadPoolExecutor(1, "write") as writer:
            pending: Future[None] | None = None
            for shard in encoded:
                with self.timer.phase("wait for disk"):
                    if pending is not None:
                        pending.result()
                pending = writer.submit(write, shard)
            if pending is not None:
                pending.result()
        if missing := sorted(keys.keys() - records.keys()):
            raise CorpusError(f"{len(missing)} shards were not made, the first is {missing[0]}; run this again")
        return records


def _clip_jobs(encoder: ShardEncoder, parts: list[list[Entry]]) -> list[tuple[Job, str]]:
    """A job for each part, and the key of all its inputs."""
    codec = _identity(encoder.codec)
    preprocessing = [] if encoder.preprocessing is None else [encoder.preprocessing.name]
    jobs = []
    for number, part in enumerate(parts):
        stamps = {path: stamp(path) for path in {entry.path for entry in part}}
        clips = [
            (e.id, e.split, not e.caption.strip(), str(e.path), e.origin, stamps[e.path], *_unusual(e)) for e in part
        ]
        key = digest_of(codec, encoder.frames, encoder.batch_size, clips, *preprocessing)
        jobs.append((Job(f"latents-{number:05d}.safetensors", tuple(part)), key))
    return jobs


def _unusual(entry: Entry) -> tuple[float | str, ...]:
    """Fields that most corpora don't use; left out of the key where unused, so that earlier keys stay valid."""
    placed = (entry.start, entry.problem) if entry.start or entry.problem else ()
    return (*placed, f"peak {entry.peak}") if entry.peak is not None else placed


def _caption_jobs(encoder: ShardEncoder, captions: list[str], shard_size: int) -> list[tuple[Job, str]]:
    text_encoder = _identity(encoder.text_encoder)
    jobs = []
    for number, start in enumerate(range(0, len(captions), shard_size)):
        part = captions[start : start + shard_size]
        job = Job(f"captions-{number:05d}.safetensors", captions=tuple(part))
        jobs.append((job, digest_of(text_encoder, encoder.batch_size, part)))
    return jobs


def _latent_statistics(facts: list[Facts]) -> dict[str, Any]:
    """Per-channel mean and std of latents drawn from the posteriors of the train split.

    A corpus without a train split (an evaluation reference) is measured over all its clips.
    """
    by_shard = [shard["sums"] for shard in facts]
    split = "train" if any("train" in sums for sums in by_shard) else None
    chosen = [s for sums in by_shard for name, s in sums.items() if split in (None, name)]
    frames = sum(s["frames"] for s in chosen)
    mean = np.sum([s["first"] for s in chosen], axis=0) / frames
    variance = np.sum([s["second"] for s in chosen], axis=0) / frames - mean**2
    # A constant channel would be divided by zero when standardized.
    std = np.sqrt(np.maximum(variance, 1e-8))
    return {"measured_over": split or "all", "latent_mean": mean.tolist(), "latent_std": std.tolist()}


def _places(parts: list[list[Entry]], bad: set[str]) -> list[tuple[Entry, int, int]]:
    """(entry, shard, row in the shard) of every clip that was kept."""
    places = []
    for shard, part in enumerate(parts):
        usable = [entry for entry in part if entry.id not in bad]
        places += [(entry, shard, row) for row, entry in enumerate(usable)]
    return places


def _index(places: list[tuple[Entry, int, int]], captions: list[str]) -> bytes:
    """`index.parquet`, one line per kept clip."""
    row_of = {caption: row for row, caption in enumerate(captions)}
    licences = [entry.licence for entry, _, _ in places]
    table = pyarrow.table(
        {
            "id": [entry.id for entry, _, _ in places],
            "source": [entry.source for entry, _, _ in places],
            "caption": [entry.caption for entry, _, _ in places],
            "caption_row": pyarrow.array([row_of[entry.caption] for entry, _, _ in places], pyarrow.int32()),
            "reward": pyarrow.array([entry.reward for entry, _, _ in places], pyarrow.float64()),
            "split": [entry.split for entry, _, _ in places],
            "shard": pyarrow.array([shard for _, shard, _ in places], pyarrow.int32()),
            "row": pyarrow.array([row for _, _, row in places], pyarrow.int32()),
            **({"licence": licences} if any(licences) else {}),
        }
    )
    memory = io.BytesIO()
    pyarrow.parquet.write_table(table, memory)
    return memory.getvalue()


def _identity(model: Codec | TextEncoder) -> str:
    """Changes with the model's name and, if it is a module, with its weights."""
    return digest_of(model.name, tensors_digest(model.state_dict()) if isinstance(model, nn.Module) else "")


def stamp(path: Path | None) -> list[int]:
    """Changes with the file, so that one repaired after quarantine is encoded next time."""
    try:
        return [] if path is None else [path.stat().st_size, path.stat().st_mtime_ns]
    except OSError:
        return []
