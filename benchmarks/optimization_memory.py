"""Time and memory of optimizing noise at the published sizes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import paper_networks
from plaudit.backbone.base import initialize
from plaudit.backbone.config import PRESETS
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.generate.model import ModelConfig, TextToMusic
from plaudit.generate.optimize import Optimizer, optimize_noise
from plaudit.generate.settings import NoiseOptimization, SamplingSettings
from plaudit.reward.features import RewardFeatures
from plaudit.reward.tunejury import TuneJury, TuneJuryHead
from plaudit.types import TextFeatures


class RandomText:
    """A text encoder of random features in the shapes of T5's and CLAP's."""

    name, length, token_dim, pooled_dim = "random", 77, 1024, 512

    def encode(self, prompts: list[str]) -> TextFeatures:
        """Features that do not depend on the prompts."""
        return TextFeatures(torch.randn(len(prompts), 77, 1024), torch.randn(len(prompts), 512))


def main(
    steps: Annotated[int, typer.Argument(min=1)] = 25, iterations: Annotated[int, typer.Argument(min=1)] = 1
) -> None:
    """Seconds per iteration and peak memory of optimizing the noise of one clip of ten seconds.

    FluxAudio-S at 44.1 kHz, mel VAE, BigVGAN v2, CLAP, MERT-v1-330M and a TuneJury head have random weights.
    """
    torch.manual_seed(0)
    backbone = FluxAudio(PRESETS["fluxaudio-s-44k"])
    initialize(backbone, 0)
    codec, clap, mert = paper_networks.codec().eval(), paper_networks.clap(), paper_networks.mert()
    config = ModelConfig(backbone.config, "random", "random", 10.0, "none", {})
    music = TextToMusic(backbone.eval(), codec, RandomText(), config)
    jury = TuneJury(TuneJuryHead(2048).requires_grad_(False), RewardFeatures(clap, mert))
    parts = {"backbone": backbone, "vae": codec.vae, "vocoder": codec.vocoder, "clap": clap, "mert": mert}
    print({name: paper_networks.parameters(part) for name, part in parts.items()})
    print(f"loaded: {_memory('VmRSS'):.1f} GB")
    start = time.perf_counter()
    optimizer = Optimizer("random", jury, NoiseOptimization(iterations=iterations))
    rewards = optimize_noise(music, ["piano"], [0], SamplingSettings(steps=steps), optimizer).rewards
    seconds = (time.perf_counter() - start) / (iterations + 1)
    print(f"{steps} steps: {seconds:.0f} s per iteration, peak memory {_memory('VmHWM'):.1f} GB; {rewards[:, 0]}")


def _memory(entry: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(entry)) * 1024 / 1e9


if __name__ == "__main__":
    typer.run(main)
