"""The synthetic world's codec: a small VAE whose decoder is a bank of oscillators and a bank of noise.

Every bin of a long-window inverse FFT is an oscillator whose phase is the running sum of its frequency, so tones keep
their pitch and never jump; every bin of a short-window inverse FFT is a band of noise, for drums, hiss and onsets.
Additive synthesis by inverse FFT is from Rodet & Depalle (AES 1992), tones plus noise from Serra & Smith (CMJ 1990).

The encoder's input is magnitudes only, so latents carry no phase; they change slowly and are easy to model. Phase comes
from the oscillators. Controlling oscillators and noise by a network is from DDSP (Engel et al., arXiv 2001.04643); this
codec is ours.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plaudit.codec.chunks import FrameRange, frame_ranges
from plaudit.codec.mel import inverse_spectrum, overlap_add, overlap_of, spectrum
from plaudit.errors import AudioError, ModelError
from plaudit.places import SHIPPED_WEIGHTS
from plaudit.storage import load_module, read_json, save_module
from plaudit.types import Posterior


def magnitude(wave: Tensor, n_fft: int, hop: int) -> Tensor:
    """Short-time magnitudes of wave [B, T], 1 for a full-scale sine: [B, T // hop, n_fft / 2 + 1]."""
    bins = torch.view_as_real(spectrum(wave, n_fft, hop))
    # A Hann window sums to n_fft / 2 and a sine splits into two halves. The offset bounds the gradient in silence.
    return (bins.square().sum(-1) * (4 / n_fft) ** 2 + 1e-12).sqrt()


SYNTHESIS_HOP = 256
"""Samples between frames."""

TONE_WINDOW, NOISE_WINDOW = 1024, 256
"""Windows of the oscillators and of the noise bands. The noise has its own hop, a quarter of its window."""

OSCILLATORS, NOISE_BANDS = TONE_WINDOW // 2, NOISE_WINDOW // 2 + 1


@dataclass(frozen=True)
class Controls:
    """Synthesis parameters of N frames: loudness and bend of every oscillator, and loudness of noise in every band.

    loudness: [B, N, 512], log amplitude of the sine at bin 1, 2, ... of a 1024-point FFT.
    bend: [B, N, 512], its frequency above that of the bin, in bins (15.6 Hz at 16 kHz), within -1..1.
    noise: [B, 4N, 129], log standard deviation of the noise if every band had this loudness.
    """

    loudness: Tensor
    bend: Tensor
    noise: Tensor


def play(controls: Controls, phase: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
    """The waveform [B, N * 256] of N frames; the same controls always give the same wave.

    phase: [B, N, 512], of oscillators that started earlier; see `phases`. noise: [4N, 129], spectra of the noise; see
    `noise_frames`.
    """
    phase = phases(controls.bend) if phase is None else phase
    return oscillators(controls.loudness, phase) + noise_bands(controls.noise, noise)


def phases(bend: Tensor) -> Tensor:
    """Phase by which bends [B, N, 512] have advanced the oscillators at each frame, in radians."""
    return torch.cumsum(math.pi / 2 * bend, 1)


def oscillators(loudness: Tensor, phase: Tensor) -> Tensor:
    """Loudness and phase of 512 sines, [B, N, 512] each -> wave [B, N * 256]; see Controls and `phases`.

    Amplitudes and phases are the sines' at the centres of the frames, which cross-fade by their Hann windows. Within a
    frame a sine has its bin's frequency, so one bent by x bins is softer by Hann's lobe: 0.85 at a half, 0.5 at one.
    """
    count, device = loudness.shape[1], loudness.device
    step = torch.arange(1, OSCILLATORS + 1, device=device) * (math.pi / 2)
    at = torch.arange(count, device=device)[:, None] % 4  # a bin's phase repeats every four hops
    phase = phase + at * step + START_PHASES.to(device)
    amplitude = loudness.clamp(max=1).exp() * (TONE_WINDOW / 2)
    bins = F.pad(torch.polar(amplitude, phase), (1, 0))
    # An inverse FFT counts phase from the frame's start; alternating signs move it to the centre.
    sign = 1 - 2 * (torch.arange(OSCILLATORS + 1, device=device) % 2)
    window = torch.hann_window(TONE_WINDOW, device=device)
    return overlap_add(torch.fft.irfft(bins * sign) * window, SYNTHESIS_HOP) / overlap_of(window, count, SYNTHESIS_HOP)


def noise_bands(loudness: Tensor, noise: Tensor | None = None) -> Tensor:
    """Loudness [B, 4N, 129] of bands filled with `noise` [4N, 129] -> wave [B, N * 256]; see Controls."""
    noise = noise_frames(0, loudness.shape[1]) if noise is None else noise
    return inverse_spectrum(noise.to(loudness.device) * loudness.clamp(max=1).exp(), NOISE_WINDOW, NOISE_WINDOW // 4)


def noise_frames(first: int, count: int, period: int | None = None) -> Tensor:
    """Spectra of the noise from frame `first` on: complex [count, 129], the same for every clip.

    period: frames of a loop, after which the noise starts again. There, and where its table ends, its level falls by
    half a decibel for some 10 ms.
    """
    table = _noise_spectrum()
    at = torch.arange(first, first + count)
    return table[(at if period is None else at % period) % len(table)]


def calm_noise(length: int, iterations: int = 30) -> Tensor:
    """White noise of unit power [length] with short-time spectra as even as `iterations` achieve.

    In Gaussian noise some cells of a spectrum nearly vanish and others stand out at random, so two draws differ as much
    as two different sounds. Low-noise noise (Hartmann & Pumplin, JASA 1988) has an even envelope; here, spectra of
    three window lengths are flattened in turn, by Griffin & Lim's projections. Ours.
    """
    noise = torch.randn(1, length, generator=torch.Generator().manual_seed(0))
    for i in range(iterations):
        n_fft = (512, 1024, 2048)[i % 3]
        bins = spectrum(noise, n_fft, n_fft // 4)
        noise = inverse_spectrum(bins / bins.abs().clamp(min=1e-9), n_fft, n_fft // 4)
        noise = noise / noise.square().mean().sqrt()
    return noise[0]


@lru_cache(maxsize=1)
def _noise_spectrum() -> Tensor:
    """The noise of every clip, as complex [frames, bands]; it repeats after 8.2 s."""
    with torch.inference_mode(False), torch.no_grad():  # cached for training, too
        return spectrum(calm_noise(1 << 17)[None], NOISE_WINDOW, NOISE_WINDOW // 4)[0]


START_PHASES = torch.rand(OSCILLATORS, generator=torch.Generator().manual_seed(1)) * 2 * math.pi
"""Initial phases of the oscillators; equal ones would add up to a peak."""


STRIDE = 4
"""Frames of HOP samples to one latent."""

LATENTS_AT_ONCE = 156
"""Latents decoded at once of a long piece: ten seconds."""


@dataclass(frozen=True)
class SyntheticCodecConfig:
    """Sizes of the synthetic codec: widths at the frame rate (62.5 Hz) and at the latent rate (15.6 Hz), and depths."""

    sample_rate: int = 16000
    latent_dim: int = 40
    encoder_width: int = 160
    encoder_blocks: int = 2
    latent_width: int = 384
    latent_blocks: int = 2
    decoder_width: int = 256
    decoder_blocks: int = 8


class SyntheticCodec(nn.Module):
    """Waveform <-> latents for the synthetic world; satisfies plaudit.types.Codec."""

    name = "synthetic"
    hop = SYNTHESIS_HOP * STRIDE
    decodes_in_bf16 = True
    sample_bytes = 128

    def __init__(self, config: SyntheticCodecConfig | None = None) -> None:
        super().__init__()
        self.config = config or SyntheticCodecConfig()
        self.sample_rate = self.config.sample_rate
        self.latent_dim = self.config.latent_dim
        self.encoder = Encoder(self.config)
        self.decoder = ControlDecoder(self.config)

    def encode(self, wave: Tensor) -> Posterior:
        """wave [B, T], T a multiple of 1024 -> posterior over [B, T / 1024, latent_dim]; AudioError for other T."""
        if wave.ndim != 2 or wave.shape[1] == 0 or wave.shape[1] % self.hop:
            raise AudioError(
                f"the synthetic codec takes [batch, samples] with a positive multiple of {self.hop} samples, "
                f"got {list(wave.shape)}; pad or cut the audio"
            )
        return self.encoder(wave)

    def decode(self, latents: Tensor) -> Tensor:
        """latents [B, N, latent_dim] -> wave [B, N * 1024]; the same latents always give the same wave."""
        if latents.ndim != 3 or latents.shape[1] == 0 or latents.shape[2] != self.latent_dim:
            raise ModelError(
                f"the synthetic codec decodes latents [batch, frames, {self.latent_dim}], got {list(latents.shape)}; "
                "use a model trained on this codec"
            )
        return play(self.decoder(latents))

    def decode_long(self, latents: Tensor, loop: bool = False) -> Tensor:
        """The same in parts of ten seconds; oscillators and noise continue from part to part.

        In a loop, the bend of each oscillator is shifted by the smallest constant that makes its phase at the end equal
        that at the start: half a turn over the loop at most.
        """
        count = latents.shape[1]
        if count <= LATENTS_AT_ONCE and not loop:
            return self.decode(latents)
        parts = frame_ranges(count, LATENTS_AT_ONCE, self.decoder.context + 1, loop)
        closing = self._closing_bend(latents, parts) if loop else 0.0
        phase = latents.new_zeros(len(latents), OSCILLATORS)
        waves = []
        for part in parts:
            # The windows of the frames of one more latent on either side reach into the part.
            margins = [STRIDE * min(1, part.start - part.first), STRIDE * min(1, part.last - part.stop)]
            controls = _cut(self.decoder(part.of(latents)), part, *margins)
            local = phases(controls.bend + closing)  # [B, n, 512]
            before = local[:, margins[0] - 1] if margins[0] else torch.zeros_like(phase)
            first = STRIDE * (STRIDE * part.start - margins[0])
            noise = noise_frames(first, controls.noise.shape[1], STRIDE * STRIDE * count if loop else None)
            wave = play(controls, local + (phase - before)[:, None], noise)
            waves.append(wave[:, margins[0] * SYNTHESIS_HOP : wave.shape[1] - margins[1] * SYNTHESIS_HOP])
            last = local.shape[1] - margins[1] - 1
            phase = (phase + local[:, last] - before) % (2 * math.pi)
        return torch.cat(waves, 1)

    def _closing_bend(self, latents: Tensor, parts: list[FrameRange]) -> Tensor:
        """The shift of all bends [B, 1, 512] with which they sum to whole turns over the loop."""
        turns = torch.zeros(len(latents), OSCILLATORS, dtype=torch.float64)
        for part in parts:  # in float64, which not every device has: they add up to thousands of turns
            turns = turns + _cut(self.decoder(part.of(latents)), part).bend.cpu().double().sum(1) / 4
        return ((turns.round() - turns) * 4 / (STRIDE * latents.shape[1])).to(latents)[:, None]


def _cut(controls: Controls, part: FrameRange, before: int = 0, after: int = 0) -> Controls:
    """Controls of the frames of a part that are kept, with some frames before and after them."""
    first = STRIDE * (part.start - part.first) - before
    last = STRIDE * (part.stop - part.first) + after
    noise = controls.noise[:, STRIDE * first : STRIDE * last]
    return Controls(controls.loudness[:, first:last], controls.bend[:, first:last], noise)


class Encoder(nn.Module):
    """Magnitudes at two window lengths -> frames -> latents' mean and std."""

    def __init__(self, config: SyntheticCodecConfig) -> None:
        super().__init__()
        width, wide = config.encoder_width, config.latent_width
        self.project = nn.Linear(FEATURES, width)
        self.blocks = nn.Sequential(*(ConvBlock(width) for _ in range(config.encoder_blocks)))
        self.down = nn.Linear(STRIDE * width, wide)
        self.latent_blocks = nn.Sequential(*(ConvBlock(wide) for _ in range(config.latent_blocks)))
        self.out = nn.Linear(wide, 2 * config.latent_dim)

    def forward(self, wave: Tensor) -> Posterior:
        """wave [B, T] -> posterior over [B, T / 1024, latent_dim]."""
        hidden = self.blocks(self.project(features(wave)))  # [B, 4N, width]
        hidden = self.down(hidden.reshape(len(wave), hidden.shape[1] // STRIDE, -1))  # [B, N, wide]
        mean, log_std = self.out(self.latent_blocks(hidden)).float().chunk(2, -1)
        return Posterior(mean, log_std.clamp(-6, 2).exp())


FEATURES = 513 + 257


def features(wave: Tensor) -> Tensor:
    """The encoder's input for wave [B, T]: log-magnitudes [B, T / 256, 770] of about unit scale.

    A 128 ms window up to 4 kHz, which separates neighbouring bass notes, and a 32 ms window over all, for onsets.
    """
    with torch.autocast(wave.device.type, enabled=False):
        wave = wave.float()
        # Silence at the ends: the shortest clip, one latent, is too short for the long window's reflection.
        margin = STRIDE * SYNTHESIS_HOP
        padded = F.pad(wave, (margin, margin))
        kept = slice(STRIDE, STRIDE + wave.shape[1] // SYNTHESIS_HOP)
        both = torch.cat(
            [magnitude(padded, 2048, SYNTHESIS_HOP)[:, kept, :513], magnitude(padded, 512, SYNTHESIS_HOP)[:, kept]], -1
        )
        return ((both + 1e-4).log() + 6) / 2


class ControlDecoder(nn.Module):
    """Latents -> Controls. `context`: latents on either side of one that its controls depend on."""

    def __init__(self, config: SyntheticCodecConfig) -> None:
        super().__init__()
        width, wide = config.decoder_width, config.latent_width
        self.context = REACH * config.latent_blocks + -(-REACH * config.decoder_blocks // STRIDE)
        self.project = nn.Linear(config.latent_dim, wide)
        self.latent_blocks = nn.Sequential(*(ConvBlock(wide) for _ in range(config.latent_blocks)))
        self.up = nn.Linear(wide, STRIDE * width)
        self.blocks = nn.Sequential(*(ConvBlock(width) for _ in range(config.decoder_blocks)))
        self.norm = nn.LayerNorm(width)
        self.loudness = nn.Linear(width, OSCILLATORS)
        self.bend = nn.Linear(width, OSCILLATORS)
        self.noise = nn.Linear(width, STRIDE * NOISE_BANDS)
        # Start from soft sounds at the bins' frequencies.
        for linear, bias in ((self.loudness, -7.0), (self.bend, 0.0), (self.noise, -6.0)):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.constant_(linear.bias, bias)

    def forward(self, latents: Tensor) -> Controls:
        """latents [B, N, latent_dim] -> controls of 4N frames, float32."""
        hidden = self.up(self.latent_blocks(self.project(latents)))
        hidden = self.norm(self.blocks(hidden.reshape(len(latents), STRIDE * latents.shape[1], -1)))  # [B, 4N, width]
        noise = self.noise(hidden).reshape(len(latents), -1, NOISE_BANDS)  # [B, 16N, bands]
        return Controls(self.loudness(hidden).float(), self.bend(hidden).float().tanh(), noise.float())


REACH = 3
"""Frames on either side that a block depends on."""


class ConvBlock(nn.Module):
    """ConvNeXt's block (arXiv 2201.03545) in 1-d: depthwise convolution, then a pointwise network, on a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, 2 * REACH + 1, padding=REACH, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * width)
        self.contract = nn.Linear(2 * width, width)
        nn.init.normal_(self.contract.weight, std=0.02)
        nn.init.zeros_(self.contract.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, width] -> the same shape."""
        hidden = self.norm(self.depthwise(x.transpose(1, 2)).transpose(1, 2))
        return x + self.contract(F.gelu(self.expand(hidden)))


def save_synthetic_codec(folder: Path, codec: SyntheticCodec) -> None:
    """Write the codec as `config.json` + float16 `model.safetensors`."""
    save_module(folder, codec, asdict(codec.config), torch.float16)


def load_synthetic_codec(folder: Path = SHIPPED_WEIGHTS / "codec") -> SyntheticCodec:
    """The codec in `folder`, by default the shipped one: evaluation mode, float32. ModelError where it is damaged."""
    config = read_json(folder / "config.json")
    try:
        codec = SyntheticCodec(SyntheticCodecConfig(**config))
    except TypeError as error:
        raise ModelError(f"{folder / 'config.json'} does not describe a synthetic codec ({error})") from None
    load_module(folder, codec)
    return codec.eval()
