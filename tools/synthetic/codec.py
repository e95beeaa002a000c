"""Training and evaluation of the synthetic codec."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from plaudit.codec.mel import MEL_16K
from plaudit.places import SHIPPED_WEIGHTS
from plaudit.synthetic.codec import (
    SyntheticCodec,
    play,
    save_synthetic_codec,
)
from plaudit.synthetic.corpus import SyntheticCorpus
from tools.synthetic.expected import expected_distance
from tools.synthetic.griffin_lim import from_true_mel
from tools.synthetic.loop import FitSettings, fit
from tools.synthetic.losses import RESOLUTIONS, gaussian_divergence, stft_distance
from tools.synthetic.pool import rendered_pool

TRAINING_SEED, HELD_OUT_SEED = 11, 12
"""Corpora of different seeds share no clip."""


@dataclass(frozen=True)
class CodecSettings:
    """Training of the shipped codec. `crop` is in samples, `divergence` the weight of the KL term.

    The loss has the expected spectra, from step `waveform_from` also those of the waveform. From step
    `decoder_only_from` the encoder is frozen and the loss has the waveform's spectra only.
    """

    steps: int = 20000
    waveform_from: int = 2500
    decoder_only_from: int = 6000
    clips: int = 6000
    seconds: float = 8.0
    batch: int = 16
    crop: int = 16384
    learning_rate: float = 1e-3
    divergence: float = 1e-2
    seed: int = 0


def train_codec(
    folder: Path,
    cache: Path,
    settings: CodecSettings | None = None,
    export: Path = SHIPPED_WEIGHTS / "codec",
    log: Callable[[str], None] = print,
) -> SyntheticCodec:
    """Train the synthetic codec in `folder`, resuming if need be, and write it to `export` at every checkpoint.

    The corpus, with flaws, is rendered once to `cache`.
    """
    settings = settings or CodecSettings()
    pool = rendered_pool(SyntheticCorpus(settings.clips, settings.seconds, seed=TRAINING_SEED), cache, "codec")
    torch.manual_seed(settings.seed)
    codec = SyntheticCodec()

    def losses(step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([settings.seed, step])
        rows = rng.integers(len(pool.clips), size=settings.batch)
        starts = rng.integers(pool.waves.shape[1] - settings.crop, size=settings.batch)
        noise = torch.Generator().manual_seed(step)
        wave = pool.batch(rows, starts, settings.crop)
        # Two resolutions at a time, in turn: the spectra cost as much as the network.
        resolutions = (RESOLUTIONS[step % 3], RESOLUTIONS[(step + 1) % 3])
        if step >= settings.decoder_only_from:
            return decoder_losses(codec, wave, resolutions, noise)
        of_wave = resolutions if step >= settings.waveform_from else ()
        return codec_losses(codec, wave, of_wave, settings.divergence, noise)

    fit(
        codec,
        losses,
        FitSettings(settings.steps, settings.learning_rate),
        folder,
        log,
        lambda: save_synthetic_codec(export, codec),
    )
    return codec.eval()


def codec_losses(
    codec: SyntheticCodec, wave: Tensor, resolutions: tuple[int, ...], divergence: float, noise: torch.Generator
) -> dict[str, Tensor]:
    """Loss of the codec on wave [B, T]: distance of expected spectra, distance of the waveform's spectra at
    `resolutions`, if any, and weighted KL divergence."""
    posterior = codec.encode(wave)
    controls = codec.decoder(posterior.sample(noise))
    distance = expected_distance(controls, wave).mean()
    if resolutions:
        distance = distance + stft_distance(play(controls), wave, resolutions).mean()
    kl = gaussian_divergence(posterior.mean, posterior.std)
    return {
        "loss": distance + divergence * kl,
        "distance": distance,
        "kl": kl,
        "scale": posterior.mean.square().mean().sqrt(),
        "std": posterior.std.mean(),
    }


def decoder_losses(
    codec: SyntheticCodec, wave: Tensor, resolutions: tuple[int, ...], noise: torch.Generator
) -> dict[str, Tensor]:
    """Loss of the decoder on wave [B, T] with a frozen encoder: the reconstruction's distance at `resolutions`."""
    with torch.no_grad():
        latents = codec.encode(wave).sample(noise)
    distance = stft_distance(codec.decode(latents), wave, resolutions).mean()
    return {"loss": distance, "distance": distance}


@dataclass(frozen=True)
class CodecFigures:
    """Reconstruction of held-out clips by STFT distance (lower is better), and speed of decoding.

    `gain` is the baseline's distance less the codec's, the mean over clips with its 95 % interval (normal
    approximation); `gain_clean` the same over clips without flaws.
    """

    clips: int
    codec_distance: float
    griffin_lim_distance: float
    gain: tuple[float, float, float]
    gain_clean: tuple[float, float, float]
    times_real_time: float
    latent_std: float
    posterior_std: float


@torch.inference_mode()
def evaluate_codec(codec: SyntheticCodec, clips: int = 64, seconds: float = 4.096) -> CodecFigures:
    """Compare the codec with 32 iterations of Griffin-Lim from the true 80-band mel, on held-out clips.

    `seconds` is rounded down to whole latents. Decoding is timed on one core.
    """
    corpus = SyntheticCorpus(clips, seconds, seed=HELD_OUT_SEED)
    length = int(seconds * corpus.rate) // codec.hop * codec.hop
    ours, baseline, means, stds = [], [], [], []
    for clip in corpus.clips:
        wave = torch.from_numpy(corpus.render(clip)[None, :length])
        posterior = codec.encode(wave)
        ours.append(float(stft_distance(codec.decode(posterior.mean), wave)))
        baseline.append(float(stft_distance(from_true_mel(wave, MEL_16K, 32), wave)))
        means.append(posterior.mean)
        stds.append(posterior.std)
    gains = np.array(baseline) - np.array(ours)
    clean = np.array([not clip.flaws for clip in corpus.clips])
    return CodecFigures(
        clips,
        float(np.mean(ours)),
        float(np.mean(baseline)),
        _interval(gains),
        _interval(gains[clean]),
        times_real_time(codec),
        float(torch.cat(means).std((0, 1)).mean()),
        float(torch.cat(stds).mean()),
    )


def times_real_time(codec: SyntheticCodec, seconds: float = 10.0, repeats: int = 7) -> float:
    """How many times faster than real time one core decodes: the best of `repeats`, so that other load matters less."""
    latents = torch.randn(1, int(seconds * codec.sample_rate / codec.hop), codec.latent_dim)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        durations = []
        for _ in range(repeats):
            started = time.perf_counter()
            codec.decode(latents)
            durations.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return latents.shape[1] * codec.hop / codec.sample_rate / min(durations)


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, lower and upper end of its 95 % interval."""
    mean, half = float(values.mean()), 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5
    return mean, mean - half, mean + half
