"""Whether a model's codec, text encoder and backbone are those that belong together.

A codec that is untrained, or another than the backbone learnt from, still gives numbers of the right shape, and
training on them makes a model of noise. So a known clip goes through, and what comes out is compared with what the
backbone's own folder says of its training set. The checks and their bounds are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from plaudit.audio import resample
from plaudit.corpus.embedded.source import EmbeddedCorpus
from plaudit.encoders.spectrum import log_bands, mel_filters, power
from plaudit.errors import ModelError
from plaudit.generate.model import TextToMusic
from plaudit.types import Codec

CLIPS, SECONDS = 2, 4.0
WINDOW, BANDS = 1024, 32


@dataclass(frozen=True)
class Check:
    """One figure, the range that it must lie in, and what it means where it does not."""

    name: str
    value: float
    low: float
    high: float
    otherwise: str

    @property
    def passed(self) -> bool:
        """Whether the figure lies in its range; NaN does not."""
        return self.low <= self.value <= self.high


@torch.inference_mode()
def verify(music: TextToMusic) -> list[Check]:
    """The checks of a loaded model, whose parts already have the right shapes."""
    clips = known_clips(music.codec)
    latents = music.codec.encode(clips).mean  # [B, N, C]
    backbone = music.backbone
    deviation = backbone.standardize(latents.to(backbone.latent_mean.device)).square().mean().sqrt().item()
    empty, own = music.text_encoder.encode([""]).to("cpu"), backbone.empty_text(1).to("cpu")
    return [
        Check(
            "reconstruction",
            likeness(music.codec.decode(latents), clips, music.codec.sample_rate),
            0.5,
            1.0,
            "the codec does not give back what it is given: it is untrained, damaged or badly converted",
        ),
        Check("latents", deviation, 0.3, 3.0, "the backbone was trained on the latents of another codec"),
        Check("empty tokens", _cosine(empty.tokens, own.tokens), 0.95, 1.01, "the backbone knows another text encoder"),
        Check("empty pooled", _cosine(empty.pooled, own.pooled), 0.95, 1.01, "the backbone knows another pooled text"),
    ]


def require_fit(music: TextToMusic) -> None:
    """ModelError that says what is wrong where a check of the model does not pass: training would teach it noise."""
    if failed := [check for check in verify(music) if not check.passed]:
        told = "; ".join(f"{check.otherwise} ({check.name} {check.value:.2f})" for check in failed)
        raise ModelError(f"the model's parts do not fit: {told}; put it together again, then train")


def known_clips(codec: Codec) -> Tensor:
    """Clean pieces of the embedded composer at the codec's rate, in whole latent frames: [B, T]."""
    corpus = EmbeddedCorpus(CLIPS, SECONDS, flawed_share=0.0, miscaptioned_share=0.0)
    waves = [resample(corpus.render(clip), corpus.rate, codec.sample_rate) for clip in corpus.clips]
    batch = torch.stack([torch.from_numpy(wave).float() for wave in waves])
    return batch[:, : batch.shape[1] // codec.hop * codec.hop]


def likeness(made: Tensor, given: Tensor, rate: int) -> float:
    """Correlation of how the band levels of two batches [B, T] move over time: 1 where alike, about 0 for noise.

    Each band's mean is taken off first, because steady noise of a fitting colour would look alike.
    """
    filters = mel_filters(rate, WINDOW, BANDS)
    moves = []
    for wave in (made, given):
        levels = log_bands(power(wave, WINDOW, WINDOW // 2), filters)
        moves.append((levels - levels.mean(-1, keepdim=True)).flatten())
    return F.cosine_similarity(moves[0], moves[1], dim=0).item()


def _cosine(found: Tensor, expected: Tensor) -> float:
    return F.cosine_similarity(found.flatten(), expected.flatten(), dim=0).item()
