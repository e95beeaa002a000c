"""Source separation of clips of one length together, compared with demucs's driver clip by clip."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.cost.timing import Advance, Section, in_turns
from plaudit.errors import ModelError
from plaudit.generate.separation import NOT_INSTALLED, Separator, load_separator
from plaudit.generate.settings import SeparationSettings

RANDOM = "random"
SOURCES = ["drums", "bass", "other", "vocals"]


def separator_of(name: str, device: torch.device) -> Separator:
    """The separator called `name`; "random" is an untrained network of the kind and size of those in mdx_extra.

    ModelError where demucs is not installed.
    """
    if name != RANDOM:
        if (separator := load_separator(name, device)) is None:
            raise ModelError(NOT_INSTALLED)
        return separator
    try:
        from demucs.hdemucs import HDemucs
    except ImportError:
        raise ModelError(NOT_INSTALLED) from None
    torch.manual_seed(0)
    network = HDemucs(sources=SOURCES, channels=48, hybrid_old=True, segment=44, samplerate=44_100)
    return Separator(RANDOM, network.eval().requires_grad_(False).to(device), device)


def bench_separate(separator: Separator, clips: int, seconds: float, repeats: int, advance: Advance) -> Section:
    """Seconds per clip of one pass over `clips` clips of noise at 44.1 kHz."""
    rate = 44_100
    rng = np.random.default_rng(0)
    waves = [(0.1 * rng.standard_normal(round(seconds * rate))).astype(np.float32) for _ in range(clips)]
    settings = SeparationSettings(passes=1)

    def naive() -> None:
        from demucs.apply import apply_model

        network: Any = separator.network
        for wave in waves:
            mixture = torch.from_numpy(wave).expand(1, network.audio_channels, -1)
            stems = apply_model(network, mixture, shifts=0, split=True, device=separator.device)
            stems[:, [index for index, name in enumerate(network.sources) if name != "vocals"]].sum(1).mean(1)

    ways = {"demucs clip by clip": naive, "plaudit": lambda: separator(waves, rate, settings)}
    taken = in_turns(ways, repeats, advance)
    per_clip = {way: total / clips for way, total in taken.items()}
    facts = {"model": separator.name, "clips": clips, "times real time": seconds / per_clip["plaudit"]}
    return Section("separate", f"one pass over a clip of {seconds:g} s", per_clip, "demucs clip by clip", facts)
