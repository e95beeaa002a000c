"""The published codec: log-mel spectrogram, MMAudio's mel VAE, and BigVGAN back to the waveform, in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from plaudit.assets import load_module, read_json, save_module
from plaudit.codec.bigvgan import BigVGAN, BigVGANConfig
from plaudit.codec.mel import MelSettings, log_mel
from plaudit.codec.mel_vae import STRIDE, MelVAE, MelVAEConfig
from plaudit.errors import AudioError, ModelError
from plaudit.types import Posterior

KIND = "mel-codec"


class MelCodec(nn.Module):
    """Waveform <-> latents through a mel spectrogram; satisfies plaudit.types.Codec.

    `name` is of the weights: latents under the same name are taken to be comparable. ModelError where the three parts
    are not of the same spectrogram.
    """

    def __init__(self, name: str, mel: MelSettings, vae: MelVAE, vocoder: BigVGAN) -> None:
        super().__init__()
        of_mel, of_vae, of_vocoder = mel.bands, vae.config.bands, vocoder.config.bands
        if len({of_mel, of_vae, of_vocoder}) > 1 or mel.hop != vocoder.config.hop:
            raise ModelError(
                f"the parts of codec {name!r} do not fit: the spectrogram has {of_mel} bands at {mel.hop} samples, "
                f"the VAE {of_vae} bands, the vocoder {of_vocoder} bands at {vocoder.config.hop} samples"
            )
        self.name, self.mel = name, mel
        self.sample_rate, self.hop, self.latent_dim = mel.sample_rate, STRIDE * mel.hop, vae.config.latent_dim
        self.vae, self.vocoder = vae, vocoder

    def encode(self, wave: Tensor) -> Posterior:
        """wave [B, T] in -1..1, T a multiple of `hop` -> posterior over [B, T / hop, latent_dim].

        AudioError for other T, or where the samples are too few to mirror at the edges of the spectrogram.
        """
        least = max(self.hop, (self.mel.n_fft - self.mel.hop) // 2 + 1)
        if wave.ndim != 2 or wave.shape[1] < least or wave.shape[1] % self.hop:
            raise AudioError(
                f"codec {self.name!r} takes [batch, samples] with a multiple of {self.hop} samples, at least {least}, "
                f"got {list(wave.shape)}; pad or cut the audio"
            )
        return self.vae.encode(log_mel(wave, self.mel))

    def decode(self, latents: Tensor) -> Tensor:
        """latents [B, N, latent_dim] -> wave [B, N * hop] in -1..1; ModelError for another shape."""
        wave: Tensor = self.vocoder(self.vae.decode(latents))
        return wave


def save_mel_codec(folder: Path, codec: MelCodec, facts: Mapping[str, Any]) -> None:
    """Write the codec's folder; `facts` (licence, how it was made) are kept beside its sizes in config.json."""
    sizes = {"mel": asdict(codec.mel), "vae": asdict(codec.vae.config), "vocoder": asdict(codec.vocoder.config)}
    save_module(folder, codec, {"kind": KIND, "name": codec.name, **sizes, **facts})


def load_mel_codec(folder: Path) -> MelCodec:
    """The codec in a folder, ready to use; ModelError where its files are damaged or of something else."""
    config = read_json(folder / "config.json")
    try:
        vocoder = dict(config["vocoder"])
        vocoder["block_dilations"] = tuple(tuple(dilations) for dilations in vocoder["block_dilations"])
        for name in ("upsample_rates", "upsample_kernels", "block_kernels"):
            vocoder[name] = tuple(vocoder[name])
        with torch.device("meta"):
            vae, generator = MelVAE(MelVAEConfig(**config["vae"])), BigVGAN(BigVGANConfig(**vocoder))
        codec = MelCodec(config["name"], MelSettings(**config["mel"]), vae, generator)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / 'config.json'} does not describe a mel codec ({error})") from None
    load_module(folder, codec)
    return codec.eval().requires_grad_(False)
