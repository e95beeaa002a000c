"""The sections of `python -m benchmarks.cost` by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.cost.decode import bench_clips, bench_decode
from benchmarks.cost.networks import network
from benchmarks.cost.separate import bench_separate, separator_of
from benchmarks.cost.timing import Advance, Section
from benchmarks.cost.train import bench_train
from plaudit import loading


@dataclass(frozen=True)
class Sizes:
    """How much is measured: see the options of `python -m benchmarks.cost`."""

    network: str
    model: str
    clips: int
    separated: int
    separator: str
    batch: int | None
    repeats: int


def measured(name: str, sizes: Sizes, device: torch.device, advance: Advance) -> Section:
    """The section called `name`, one of SECTIONS."""
    return SECTIONS[name](sizes, device, advance)


def _train(sizes: Sizes, device: torch.device, advance: Advance) -> Section:
    model, frames = network(sizes.network, device)
    return bench_train(model, frames, sizes.batch or (32 if device.type == "cuda" else 4), sizes.repeats, advance)


def _clips(sizes: Sizes, device: torch.device, advance: Advance) -> Section:
    return bench_clips(loading.load(sizes.model, str(device)), sizes.clips, sizes.repeats, advance)


def _decode(sizes: Sizes, device: torch.device, advance: Advance) -> Section:
    return bench_decode(loading.load(sizes.model, str(device)), sizes.clips, sizes.repeats, advance)


def _separate(sizes: Sizes, device: torch.device, advance: Advance) -> Section:
    return bench_separate(separator_of(sizes.separator, device), sizes.separated, 10.0, sizes.repeats, advance)


SECTIONS: dict[str, Callable[[Sizes, torch.device, Advance], Section]] = {
    "train": _train,
    "clips": _clips,
    "decode": _decode,
    "separate": _separate,
}
