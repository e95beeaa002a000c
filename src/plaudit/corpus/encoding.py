"""What is inside a shard: recordings decoded ahead in threads, cut to clips, and encoded in batches.

A shard depends on its own job alone, so that whoever makes it, and whenever, makes the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plaudit.ahead import ahead
from plaudit.audio import SILENT_PEAK, check_finite, fit_length, range_problem, resample
from plaudit.corpus.clock import Clock
from plaudit.corpus.ledger import Facts
from plaudit.corpus.manifest import Entry, recordings
from plaudit.errors import AudioError, CorpusError
from plaudit.types import Codec, TextEncoder

Advance = Callable[[int], None]
"""Hears that so many more clips or captions are done."""

Heard = np.ndarray | str
"""A clip as the codec takes it, float32 [frames * hop], or why there is none."""


MARGIN = 0.1
"""Seconds of a recording behind a clip, for the resampling filter to see past its end."""


@dataclass(frozen=True)
class Treatment:
    """What is done to each clip before it is encoded, e.g. vocals removed: (wave [T], rate in Hz) -> wave [T].

    `name` stands for all that its result depends on. spared: clips that need none.
    """

    name: str
    apply: Callable[[np.ndarray, int], np.ndarray]
    spared: Callable[[Entry], bool] = lambda entry: False


@dataclass(frozen=True)
class Job:
    """One shard to make: of clips, or of distinct captions."""

    name: str
    entries: tuple[Entry, ...] = ()
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class MadeShard:
    """A shard's tensors, and of clips the facts: `quarantine`, and `sums` for the statistics."""

    name: str
    tensors: dict[str, Tensor]
    facts: Facts


Engine = Callable[[Sequence[Job], Advance], Generator[MadeShard]]
"""Whatever makes shards: this process, or many. Shards may come in any order."""


@dataclass(frozen=True)
class ShardMaker:
    """Makes shards in this process: `decoders` threads read ahead (None: as many as PyTorch uses), this one encodes.

    load gives the clips of a recording (Corpus.load). A clip has `frames` latent frames.
    """

    load: Callable[[Sequence[Entry], float], tuple[list[np.ndarray], int]]
    codec: Codec
    text_encoder: TextEncoder
    frames: int
    batch_size: int = 16
    device: torch.device | str = "cpu"
    treatment: Treatment | None = None
    decoders: int | None = None
    clock: Clock = field(default_factory=Clock)

    def __call__(self, jobs: Sequence[Job], advance: Advance = lambda count: None) -> Generator[MadeShard]:
        """The shards of `jobs`, in their order; CorpusError where a model makes what can't be stored."""
        runs = [run for job in jobs for run in recordings(job.entries)]
        workers = self.decoders or torch.get_num_threads()
        clips = sum(map(len, runs))
        batches_ahead = 2 * self.batch_size * len(runs) / max(1, clips)  # in recordings
        pool = ThreadPoolExecutor(workers, "decode")
        try:
            depth, limit = 2 * workers + math.ceil(batches_ahead), max(4 * self.batch_size, 20 * workers)
            with closing(ahead(pool, self.hear, runs, depth, weight=len, limit=limit)) as heard:
                for job in jobs:
                    yield self._captions(job, advance) if job.captions else self._clips(job, heard, advance)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def hear(self, run: Sequence[Entry]) -> list[Heard]:
        """The clips of one recording."""
        reasons = [e.problem or ("" if e.caption.strip() else "the caption is empty; write one") for e in run]
        usable = [entry for entry, reason in zip(run, reasons, strict=True) if not reason]
        if not usable:
            return list(reasons)
        try:
            with self.clock.phase("decode"):
                waves, rate = self.load(usable, self._seconds + MARGIN)
        except AudioError as error:
            return [reason or str(error) for reason in reasons]
        except (OSError, MemoryError) as error:
            told = error.strerror if isinstance(error, OSError) else "it does not fit into memory"
            return [reason or f"{run[0].path} cannot be read ({told}); check the file" for reason in reasons]
        clips = iter([self._fitted(entry, wave, rate) for entry, wave in zip(usable, waves, strict=True)])
        return [reason or next(clips) for reason in reasons]

    @property
    def _seconds(self) -> float:
        return self.frames * self.codec.hop / self.codec.sample_rate

    def _fitted(self, entry: Entry, wave: np.ndarray, rate: int) -> Heard:
        """A clip at the codec's rate and of its length, or why it can't be used."""
        if not wave.size:
            return f"{entry.path} ends before {entry.start:.2f} s, where this clip begins; get the file again"
        if problem := self._problem(entry, wave[: math.ceil(self._seconds * rate)]):
            return problem
        try:
            if self.treatment is not None and not self.treatment.spared(entry):
                with self.clock.phase("treat"), torch.inference_mode():
                    wave = self.treatment.apply(wave, rate)
                    check_finite(wave, f"clip {entry.id} after {self.treatment.name}")
            with self.clock.phase("resample"):
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

    def _clips(self, job: Job, heard: Iterator[list[Heard]], advance: Advance) -> MadeShard:
        """Posteriors of one shard's clips, what went wrong, and the sums that the statistics need."""
        means, stds, splits = [], [], []
        quarantine: list[dict[str, str | None]] = []
        for batch in self._batches(job, heard, quarantine, advance):
            with self.clock.phase("encode"):
                waves = torch.from_numpy(np.stack([wave for _, wave in batch])).to(self.device)
                posterior = self.codec.encode(waves)
                mean, std = posterior.mean.half().cpu(), posterior.std.half().cpu()
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
            made = list(tensors["mean"].shape)
            raise CorpusError(f"codec {self.codec.name} made latents of {made}, not {list(shape)}")
        return MadeShard(job.name, tensors, {"quarantine": quarantine, "sums": _sums(tensors, splits)})

    def _batches(
        self, job: Job, heard: Iterator[list[Heard]], quarantine: list[dict[str, str | None]], advance: Advance
    ) -> Iterator[list[tuple[Entry, np.ndarray]]]:
        """The usable clips in batches, the last one smaller; the others go to `quarantine`."""
        batch: list[tuple[Entry, np.ndarray]] = []
        passed = 0
        for run in recordings(job.entries):
            with self.clock.phase("wait for clips"):
                found = next(heard)
            for entry, clip in zip(run, found, strict=True):
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

    def _captions(self, job: Job, advance: Advance) -> MadeShard:
        """Features of one shard's captions."""
        features = []
        for start in range(0, len(job.captions), self.batch_size):
            batch = list(job.captions[start : start + self.batch_size])
            with self.clock.phase("captions"):
                features.append(self.text_encoder.encode(batch))
            advance(len(batch))
        tensors = {
            "tokens": torch.cat([f.tokens.half().cpu() for f in features]),
            "pooled": torch.cat([f.pooled.half().cpu() for f in features]),
        }
        if not all(t.isfinite().all() for t in tensors.values()):
            raise CorpusError(f"text encoder {self.text_encoder.name} makes features that are not finite in {job.name}")
        return MadeShard(job.name, tensors, {})


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
