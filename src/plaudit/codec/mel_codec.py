"""The published codec: log-mel spectrogram, MMAudio's mel VAE, and BigVGAN back to the waveform."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plaudit.codec.bigvgan import BigVGAN
from plaudit.codec.chunks import cross_faded, in_chunks
from plaudit.codec.mel import MelSettings, log_mel
from plaudit.codec.mel_vae import CONTEXT, STRIDE, MelVAE
from plaudit.errors import AudioError, ModelError
from plaudit.types import Posterior

PART = 10.0
"""Seconds decoded at once of a long piece: what the published VAEs' attention was trained on."""

FADE = 32
"""Latents over which what the VAE makes of one part goes over into what it makes of the next: 0.7 s at 44.1 kHz."""


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

    def decode_long(self, latents: Tensor, loop: bool = False) -> Tensor:
        """The same in parts of ten seconds; in a loop the end goes on at the start.

        The VAE's attention sees all that it is given, so parts of it differ a little from the whole: it decodes parts
        that overlap, as long as it was trained on, and their mels are cross-faded. The vocoder only hears its
        surroundings: its parts are exactly those of the whole.
        """
        part = max(1, int(PART * self.sample_rate / self.hop))
        if latents.shape[1] <= part and not loop:
            return self.decode(latents)

        def mel(some: Tensor) -> Tensor:
            return self.vae.decode(some).transpose(1, 2)

        def wave(some: Tensor) -> Tensor:
            made: Tensor = self.vocoder(some.transpose(1, 2))
            return made

        # With what it needs around it, a part is no longer than what the attention was trained on.
        own = max(part - 2 * CONTEXT - FADE, FADE)
        mels = cross_faded(mel, latents, own, CONTEXT, FADE, STRIDE, loop)  # [B, 2N, bands]
        parts = in_chunks(wave, mels, STRIDE * part, self.vocoder.config.context, self.mel.hop, loop)
        return torch.cat(list(parts), 1)
