"""Accuracy of loudness normalization and of the true-peak limit, by other meters than the package's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyloudnorm
import typer
from scipy.signal import oaconvolve, resample_poly, sawtooth, square

from plaudit.audio import list_audio_files, read_audio
from plaudit.audio_format import AudioFormat, decode_audio, encode_audio
from plaudit.generate.postprocess import postprocess
from plaudit.generate.settings import PostSettings

TARGET, CEILING = -16.5, -1.0
FORMATS = (AudioFormat(), AudioFormat(container="flac", bits=24))


@dataclass(frozen=True)
class Outcome:
    """Loudness in LUFS and true peak in dBTP of the worst file of a clip, and the notice, if any."""

    name: str
    loudness: float
    true_peak: float
    notice: str | None

    @property
    def on_target(self) -> bool:
        """Whether the decoded file is within 0.1 LU of the target and under the ceiling."""
        return abs(self.loudness - TARGET) <= 0.1 and self.true_peak <= CEILING


    @property
    def misses_loudness(self) -> bool:
        """Whether the decoded file is more than 0.1 LU from the target."""
        return abs(self.loudness - TARGET) > 0.1


def outcome(
    name: str,
    wave: np.ndarray,
    rate: int,
    formats: tuple[AudioFormat, ...] = FORMATS,
    chain: Literal["limiter", "published"] = "limiter",
) -> Outcome:
    """The outcome of a clip [T] over all formats: the loudness farthest off, and the highest peak."""
    [(finished, measured)] = postprocess([wave], rate, PostSettings(chain=chain))
    loudness, peaks, meter = [], [], pyloudnorm.Meter(rate)
    for file in formats:
        decoded = decode_audio(encode_audio(finished, rate, file)).astype(np.float64)
        loudness.append(float(meter.integrated_loudness(decoded)) if len(decoded) >= 0.4 * rate else -np.inf)
        peaks.append(peak(decoded))
    worst = max(loudness, key=lambda value: abs(value - TARGET))
    return Outcome(name, worst, max(peaks), measured["notice"])


def as_it_is(name: str, wave: np.ndarray, rate: int) -> Outcome:
    """The clip [T] without post-processing."""
    return Outcome(name, float(pyloudnorm.Meter(rate).integrated_loudness(wave.astype(np.float64))), peak(wave), None)


def peak(wave: np.ndarray) -> float:
    """True peak in dBTP of a waveform [T]."""
    highest = max(float(np.abs(resample_poly(wave, times, 1)).max()) for times in (4, 8))
    return 20 * float(np.log10(max(highest, 1e-10)))


def synthetic(rate: int = 44100, seconds: float = 4.0) -> Iterator[tuple[str, np.ndarray]]:
    """200 named clips: tones, square and sawtooth waves, noise, hits, clicks, silence, offsets and clipping."""
    time = np.arange(round(seconds * rate)) / rate
    rng = np.random.default_rng(0)
    for number, hertz in enumerate(np.geomspace(10, 0.49 * rate, 60)):
        yield f"tone {hertz:.0f} Hz", 10 ** (-(number % 7) / 2) * np.sin(2 * np.pi * hertz * time)
    for shape in (square, sawtooth):
        for hertz in np.geomspace(20, 8000, 15):
            yield f"full-scale {shape.__name__} {hertz:.0f} Hz", shape(2 * np.pi * hertz * time)
    for number in range(30):
        slope = number % 3  # white, pink, brown
        spectrum = np.fft.rfft(rng.standard_normal(len(time))) / np.arange(1, len(time) // 2 + 2) ** (slope / 2)
        noise = np.fft.irfft(spectrum, len(time))
        yield f"noise {number}", 10 ** (rng.uniform(-50, 10) / 20) * noise / np.abs(noise).max()
    for number in range(30):
        hits = (rng.random(len(time)) < rng.choice([2, 8, 30]) / rate) * rng.choice([-1, 1], len(time))
        ring = np.exp(-np.arange(rate // 4) / (rng.uniform(0.005, 0.08) * rate))
        ring *= np.sin(2 * np.pi * rng.uniform(60, 4000) * np.arange(len(ring)) / rate)
        yield f"hits {number}", oaconvolve(hits, ring)[: len(time)] * 10 ** (rng.uniform(-40, 6) / 20)
    for number in range(30):
        mix = sum(rng.random() * sawtooth(2 * np.pi * hertz * time) for hertz in rng.uniform(50, 2000, 4))
        mix = mix * (0.2 + rng.random()) + rng.uniform(-0.3, 0.3)
        clipped = np.clip(2 * mix, -1, 1)
        yield f"mix with offset, clipped {number}", clipped * 10 ** (rng.uniform(-50, 0) / 20)
    for number in range(10):
        length = 0.4 + 0.05 * number if number < 7 else 0.1 * (number - 6)
        yield f"short {length:.2f} s", rng.standard_normal(round(length * rate)) * 0.1
    yield "silence", np.zeros(len(time))
    yield "offset alone", np.full(len(time), 0.3)
    yield "near silence", 1e-6 * rng.standard_normal(len(time))
    yield "very quiet", 10 ** (-60 / 20) * rng.standard_normal(len(time))
    for level in (1.0, 0.1):
        yield f"one click of {level:g}", level * (np.arange(len(time)) == len(time) // 2)
    yield "clicks every half second", 1.0 * (np.arange(len(time)) % (rate // 2) == rate // 4)
    yield "loud, then quiet", np.where(time < 1, 1.0, 0.01) * rng.standard_normal(len(time))
    yield "music with one hit", 0.01 * np.sin(2 * np.pi * 440 * time) + 1.0 * (np.arange(len(time)) // 40 == 1000)
    yield "full-scale constant switching", np.sign(np.sin(2 * np.pi * 3 * time) + 1e-9)


def generated(count: int = 24) -> Iterator[tuple[str, np.ndarray, int]]:
    """Clips of the synthetic model."""
    import plaudit

    music = plaudit.load("synthetic")
    prompts = ("slow sad piano in a minor key", "fast drums and bass", "calm ambient pads")
    chosen = [prompts[number % len(prompts)] for number in range(count)]
    waves = music.generate(chosen, list(range(count)), music.config.sampling)
    for number, wave in enumerate(waves.numpy()):
        yield f"synthetic {number}", wave, music.codec.sample_rate


def report(title: str, outcomes: list[Outcome]) -> None:
    """Print counts, the worst values, and the clips that missed with their notices."""
    hits = [one for one in outcomes if one.on_target]
    missed = [one for one in outcomes if not one.on_target]
    print(f"{title}: {len(hits)} of {len(outcomes)} within 0.1 LU of {TARGET:g} LUFS and under {CEILING:g} dBTP")
    if hits:
        off = max(abs(one.loudness - TARGET) for one in hits)
        print(f"  worst of these: {off:.3f} LU off, {max(one.true_peak for one in hits):.3f} dBTP")
    print(f"  of the others, {sum(one.notice is not None for one in missed)} of {len(missed)} have a notice:")
    loud = [one for one in outcomes if one.misses_loudness]
    print(f"  {len(loud)} of {len(outcomes)} ({len(loud) / len(outcomes):.1%}) miss the loudness by more than 0.1 LU")
    for one in missed:
        print(f"    {one.name}: {one.loudness:.2f} LUFS, {one.true_peak:.2f} dBTP: {one.notice}")


def main(
    folders: Annotated[list[Path] | None, typer.Argument(exists=True)] = None,
    files_only: Annotated[bool, typer.Option("--files-only", help="Leave synthetic and generated clips out.")] = False,
    published: Annotated[bool, typer.Option("--published", help="Of FOLDERS, the published chain as well.")] = False,
) -> None:
    """Counts of clips that end within 0.1 LU of -16.5 LUFS and under -1 dBTP.

    Audio files of FOLDERS, 200 synthetic clips and 24 clips of the synthetic model are post-processed, written as
    16-bit wav with dither and as 24-bit flac, read back, and measured with pyloudnorm and scipy's polyphase
    interpolation by 4 and 8.
    """
    for folder in folders or []:
        files = list_audio_files([folder])
        report(str(folder), [outcome(path.name, *read_audio(path)) for path in files])
        if published:
            outcomes = [outcome(path.name, *read_audio(path), chain="published") for path in files]
            report(f"{folder}, published chain", outcomes)
            report(f"{folder}, as the files are", [as_it_is(path.name, *read_audio(path)) for path in files])
    if not files_only:
        clips = [(name, wave.astype(np.float32)) for name, wave in synthetic()]
        report("synthetic", [outcome(name, wave, 44100) for name, wave in clips])
        report("generated", [outcome(*clip) for clip in generated()])


if __name__ == "__main__":
    typer.run(main)
