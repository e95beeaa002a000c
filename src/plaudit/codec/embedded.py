"""The embedded codec: a small VAE whose decoder is a bank of oscillators and a bank of noise, played by a network.

The encoder sees magnitudes only, so latents say what sounds, not at which phase; they change slowly and are easy to
model. Phase is made by what the decoder plays on, in plaudit.codec.synthesis. Letting a network play oscillators and
noise is from DDSP (Engel et al., arXiv 2001.04643); this codec is ours.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plaudit.assets import EMBEDDED, load_module, read_json, save_module
from plaudit.codec.chunks import Chunk, chunks
from plaudit.codec.losses import magnitude
from plaudit.codec.synthesis import BANDS, HOP, OSCILLATORS, Controls, noise_frames, phases, play
from plaudit.errors import AudioError, ModelError
from plaudit.types import Posterior

STRIDE = 4
"""Frames of HOP samples to one latent."""

PART = 156
"""Latents decoded at once of a long piece: ten seconds."""


@dataclass(frozen=True)
class EmbeddedCodecConfig:
    """Sizes of the embedded codec: widths at the frame rate (62.5 Hz) and at the latent rate (15.6 Hz), and depths."""

    sample_rate: int = 16000
    latent_dim: int = 40
    encoder_width: int = 160
    encoder_blocks: int = 2
    latent_width: int = 384
    latent_blocks: int = 2
    decoder_width: int = 256
    decoder_blocks: int = 8


class EmbeddedCodec(nn.Module):
    """Waveform <-> latents for the embedded world; satisfies plaudit.types.Codec."""

    name = "embedded"
    hop = HOP * STRIDE

    def __init__(self, config: EmbeddedCodecConfig | None = None) -> None:
        super().__init__()
        self.config = config or EmbeddedCodecConfig()
        self.sample_rate = self.config.sample_rate
        self.latent_dim = self.config.latent_dim
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)

    def encode(self, wave: Tensor) -> Posterior:
        """wave [B, T], T a multiple of 1024 -> posterior over [B, T / 1024, latent_dim]; AudioError for other T."""
        if wave.ndim != 2 or wave.shape[1] == 0 or wave.shape[1] % self.hop:
            raise AudioError(
                f"the embedded codec takes [batch, samples] with a positive multiple of {self.hop} samples, "
                f"got {list(wave.shape)}; pad or cut the audio"
            )
        return self.encoder(wave)

    def decode(self, latents: Tensor) -> Tensor:
        """latents [B, N, latent_dim] -> wave [B, N * 1024]; the same latents always give the same wave."""
        if latents.ndim != 3 or latents.shape[1] == 0 or latents.shape[2] != self.latent_dim:
            raise ModelError(
                f"the embedded codec decodes latents [batch, frames, {self.latent_dim}], got {list(latents.shape)}; "
                "use a model trained on this codec"
            )
        return play(self.decoder(latents))

    def decode_long(self, latents: Tensor, loop: bool = False) -> Tensor:
        """The same in parts of ten seconds: oscillators and noise go on from part to part as if there were none.

        In a loop, the bends of an oscillator are changed by as little, the same at every frame, as makes its phase at
        the end that of the start: by half a turn in the whole loop at most.
        """
        count = latents.shape[1]
        if count <= PART and not loop:
            return self.decode(latents)
        parts = chunks(count, PART, self.decoder.context + 1, loop)
        closing = self._closing_bend(latents, parts) if loop else 0.0
        turned = latents.new_zeros(len(latents), OSCILLATORS)
        waves = []
        for part in parts:
            # The windows of the frames of one more latent on either side reach into the part.
            margins = [STRIDE * min(1, part.start - part.first), STRIDE * min(1, part.last - part.stop)]
            controls = _cut(self.decoder(part.of(latents)), part, *margins)
            local = phases(controls.bend + closing)  # [B, n, 512]
            before = local[:, margins[0] - 1] if margins[0] else torch.zeros_like(turned)
            first = STRIDE * (STRIDE * part.start - margins[0])
            noise = noise_frames(first, controls.noise.shape[1], STRIDE * STRIDE * count if loop else None)
            wave = play(controls, local + (turned - before)[:, None], noise)
            waves.append(wave[:, margins[0] * HOP : wave.shape[1] - margins[1] * HOP])
            last = local.shape[1] - margins[1] - 1
            turned = (turned + local[:, last] - before) % (2 * math.pi)
        return torch.cat(waves, 1)

    def _closing_bend(self, latents: Tensor, parts: list[Chunk]) -> Tensor:
        """What to add to every bend [B, 1, 512] so that they sum to whole turns over the loop."""
        turns = torch.zeros(len(latents), OSCILLATORS, dtype=torch.float64)
        for part in parts:  # in float64, which not every device has: they add up to thousands of turns
            turns = turns + _cut(self.decoder(part.of(latents)), part).bend.cpu().double().sum(1) / 4
        return ((turns.round() - turns) * 4 / (STRIDE * latents.shape[1])).to(latents)[:, None]


def _cut(controls: Controls, part: Chunk, before: int = 0, after: int = 0) -> Controls:
    """Controls of what is kept of a part, and of that many frames before and after it."""
    first = STRIDE * (part.start - part.first) - before
    last = STRIDE * (part.stop - part.first) + after
    noise = controls.noise[:, STRIDE * first : STRIDE * last]
    return Controls(controls.loudness[:, first:last], controls.bend[:, first:last], noise)


class Encoder(nn.Module):
    """Magnitudes at two window lengths -> frames -> latents' mean and std."""

    def __init__(self, config: EmbeddedCodecConfig) -> None:
        super().__init__()
        width, wide = config.encoder_width, config.latent_width
        self.project = nn.Linear(FEATURES, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(config.encoder_blocks)))
        self.down = nn.Linear(STRIDE * width, wide)
        self.latent_blocks = nn.Sequential(*(Block(wide) for _ in range(config.latent_blocks)))
        self.out = nn.Linear(wide, 2 * config.latent_dim)

    def forward(self, wave: Tensor) -> Posterior:
        """wave [B, T] -> posterior over [B, T / 1024, latent_dim]."""
        hidden = self.blocks(self.project(features(wave)))  # [B, 4N, width]
        hidden = self.down(hidden.reshape(len(wave), hidden.shape[1] // STRIDE, -1))  # [B, N, wide]
        mean, log_std = self.out(self.latent_blocks(hidden)).float().chunk(2, -1)
        return Posterior(mean, log_std.clamp(-6, 2).exp())


FEATURES = 513 + 257


def features(wave: Tensor) -> Tensor:
    """What the encoder sees of wave [B, T]: log-magnitudes [B, T / 256, 770] of about unit scale.

    A 128 ms window up to 4 kHz, which tells neighbouring bass notes apart, and a 32 ms window over all, for onsets.
    """
    with torch.autocast(wave.device.type, enabled=False):
        wave = wave.float()
        # The shortest clip, one latent, is shorter than the long window's reflection; silence goes around it instead.
        margin = STRIDE * HOP
        padded = F.pad(wave, (margin, margin))
        kept = slice(STRIDE, STRIDE + wave.shape[1] // HOP)
        both = torch.cat([magnitude(padded, 2048, HOP)[:, kept, :513], magnitude(padded, 512, HOP)[:, kept]], -1)
        return ((both + 1e-4).log() + 6) / 2


class Decoder(nn.Module):
    """Latents -> how loud and how high every oscillator is, and how loud every band of noise.

    `context`: latents on either side of one that its controls depend on.
    """

    def __init__(self, config: EmbeddedCodecConfig) -> None:
        super().__init__()
        width, wide = config.decoder_width, config.latent_width
        self.context = REACH * config.latent_blocks + -(-REACH * config.decoder_blocks // STRIDE)
        self.project = nn.Linear(config.latent_dim, wide)
        self.latent_blocks = nn.Sequential(*(Block(wide) for _ in range(config.latent_blocks)))
        self.up = nn.Linear(wide, STRIDE * width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(config.decoder_blocks)))
        self.norm = nn.LayerNorm(width)
        self.loudness = nn.Linear(width, OSCILLATORS)
        self.bend = nn.Linear(width, OSCILLATORS)
        self.noise = nn.Linear(width, STRIDE * BANDS)
        # Start from soft sounds at the bins' own pitches.
        for linear, bias in ((self.loudness, -7.0), (self.bend, 0.0), (self.noise, -6.0)):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.constant_(linear.bias, bias)

    def forward(self, latents: Tensor) -> Controls:
        """latents [B, N, latent_dim] -> controls of 4N frames, float32."""
        hidden = self.up(self.latent_blocks(self.project(latents)))
        hidden = self.norm(self.blocks(hidden.reshape(len(latents), STRIDE * latents.shape[1], -1)))  # [B, 4N, width]
        noise = self.noise(hidden).reshape(len(latents), -1, BANDS)  # [B, 16N, bands]
        return Controls(self.loudness(hidden).float(), self.bend(hidden).float().tanh(), noise.float())


REACH = 3
"""Frames on either side that a block sees."""


class Block(nn.Module):
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


def save_embedded_codec(folder: Path, codec: EmbeddedCodec) -> None:
    """Write the codec as `config.json` + float16 `model.safetensors`."""
    save_module(folder, codec, asdict(codec.config), torch.float16)


def load_embedded_codec(folder: Path = EMBEDDED / "codec") -> EmbeddedCodec:
    """The codec in `folder`, by default the shipped one: evaluation mode, float32. ModelError where it is damaged."""
    config = read_json(folder / "config.json")
    try:
        codec = EmbeddedCodec(EmbeddedCodecConfig(**config))
    except TypeError as error:
        raise ModelError(f"{folder / 'config.json'} does not describe an embedded codec ({error})") from None
    load_module(folder, codec)
    return codec.eval()
