"""What optimizing noise takes at the published sizes: `python benchmarks/optimization_memory.py [steps] [iterations]`.

FluxAudio-S at 44.1 kHz, the mel VAE and BigVGAN v2, CLAP, MERT-v1-330M and a TuneJury head of the released sizes with
random weights, one clip of ten seconds; prints seconds per iteration and the process's largest memory.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from transformers import ClapAudioConfig, ClapConfig, ClapModel, ClapTextConfig, HubertConfig, HubertModel

from plaudit.backbone.base import initialize
from plaudit.backbone.config import PRESETS
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.codec.bigvgan import BigVGAN, BigVGANConfig
from plaudit.codec.mel import MEL_44K
from plaudit.codec.mel_codec import MelCodec
from plaudit.codec.mel_vae import MelVAE, MelVAEConfig
from plaudit.encoders.laion_clap import LaionCLAP
from plaudit.encoders.mert import MERT
from plaudit.generate.model import ModelConfig, TextToMusic
from plaudit.generate.optimize import Optimizer, optimize_noise
from plaudit.generate.settings import NoiseOptimization, SamplingSettings
from plaudit.reward.features import RewardFeatures
from plaudit.reward.tunejury import TuneJury, TuneJuryHead
from plaudit.types import TextFeatures

VOCODER = BigVGANConfig(
    128, 1536, (8, 4, 2, 2, 2, 2), (16, 8, 4, 4, 4, 4), (3, 7, 11), ((1, 3, 5),) * 3, final_bias=False, final_tanh=False
)


class Reader:
    """Random features in the shapes of T5's and CLAP's."""

    name, length, token_dim, pooled_dim = "random", 77, 1024, 512

    def encode(self, prompts: list[str]) -> TextFeatures:
        """The same for every prompt."""
        return TextFeatures(torch.randn(len(prompts), 77, 1024), torch.randn(len(prompts), 512))


def tokens(text: list[str], **options: object) -> dict[str, Tensor]:
    """Stands for RoBERTa's tokenizer."""
    return {"input_ids": torch.full((len(text), 77), 5), "attention_mask": torch.ones(len(text), 77, dtype=torch.long)}


def main(steps: int, iterations: int) -> None:
    """Builds the models, optimizes one clip and prints what it took."""
    torch.manual_seed(0)
    backbone = FluxAudio(PRESETS["fluxaudio-s-44k"])
    initialize(backbone, 0)
    codec = MelCodec("random", MEL_44K, MelVAE(MelVAEConfig(128, 40, 512)), BigVGAN(VOCODER)).eval()
    config = ModelConfig(backbone.config, "random", "random", 10.0, "none", {})
    music = TextToMusic(backbone.eval(), codec.requires_grad_(False), Reader(), config)
    audio = ClapAudioConfig(
        patch_embeds_hidden_size=128, hidden_size=1024, depths=[2, 2, 12, 2], num_attention_heads=[4, 8, 16, 32]
    )
    clap = LaionCLAP("random", ClapModel(ClapConfig(audio_config=audio, text_config=ClapTextConfig())), tokens)
    sizes = HubertConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
        do_stable_layer_norm=True, feat_extract_norm="layer", conv_bias=True,
    )  # fmt: skip
    mert = MERT("random", HubertModel(sizes), True)
    jury = TuneJury(TuneJuryHead(2048).requires_grad_(False), RewardFeatures(clap, mert))
    parts = {"backbone": backbone, "vae": codec.vae, "vocoder": codec.vocoder, "clap": clap, "mert": mert}
    print({name: f"{sum(p.numel() for p in part.parameters()) / 1e6:.0f} M" for name, part in parts.items()})
    print(f"loaded: {_memory('VmRSS'):.1f} GB")
    start = time.perf_counter()
    optimizer = Optimizer("random", jury, NoiseOptimization(iterations=iterations))
    found = optimize_noise(music, ["piano"], [0], SamplingSettings(steps=steps), optimizer)
    seconds = (time.perf_counter() - start) / (iterations + 1)
    print(f"{steps} steps: {seconds:.0f} s per iteration, at most {_memory('VmHWM'):.1f} GB; {found.rewards[:, 0]}")


def _memory(entry: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(entry)) * 1024 / 1e9


if __name__ == "__main__":
    main(*(int(word) for word in (sys.argv[1:3] + ["25", "1"][len(sys.argv[1:3]) :])))
