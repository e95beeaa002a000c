"""Audio files and waveforms: reading what people have, resampling, writing.

A waveform is a mono float32 NumPy array [T] with a nominal range of -1 to 1, beside its rate in Hz.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
import torch.nn.functional as F
from torch import Tensor

from plaudit.assets import write_atomically
from plaudit.errors import AudioError
from plaudit.files import files_under
from plaudit.writing import is_utf8

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg")
"""What a folder is searched for; a file that is named may have any other."""

SILENT_PEAK = 1e-5
"""A file whose peak stays below this (-100 dBFS) holds no sound (ours)."""

_STREAMED = 0x7FFFF000
"""Writers that cannot seek declare at least this many bytes, meaning `until the end of the file`."""


def audio_files(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those with a known suffix anywhere under the folders named, sorted.

    Raises AudioError where nothing is found.
    """
    found: list[Path] = []
    for path in paths:
        found += audio_under(path) if os.path.isdir(path) else [path]
    if not found:
        raise AudioError(f"no audio under {', '.join(map(str, paths))}; give files or folders of {', '.join(SUFFIXES)}")
    return found


def audio_under(folder: Path) -> list[Path]:
    """The files with a known suffix anywhere under a folder, sorted; see plaudit.files.files_under."""
    return [path for path in files_under(folder) if path.suffix.lower() in SUFFIXES]


def read_audio(path: Path | str) -> tuple[np.ndarray, int]:
    """Read wav, flac, mp3, ogg and whatever else libsndfile knows: (mono float32 [T], rate in Hz).

    Channels are averaged. AudioError where the file is missing, empty, not audio, truncated, without samples,
    silent (see SILENT_PEAK), or holds NaN or infinity.
    """
    path = Path(path)
    with _opened(path) as file:
        rate, declared, log = file.samplerate, file.frames, file.extra_info
        frames = file.read(dtype="float32", always_2d=True)  # [T, channels]
    if len(frames) == 0 and declared == 0:
        raise AudioError(f"{path} has a header but no samples; get the file again")
    # Gapless trimming makes decoders disagree by a few milliseconds, so only more than 50 ms counts.
    if declared - len(frames) > 0.05 * rate or _cut_short(path, log):
        raise AudioError(f"{path} is truncated: {len(frames) / rate:.2f} s can be read; get the file again")
    channels = frames.T
    wave = reduce(np.add, channels) / len(channels)  # mean(axis=1) takes ten times as long
    check_finite(wave, str(path))
    if np.abs(wave).max(initial=0) < SILENT_PEAK:
        raise AudioError(f"{path} is silent (peak below {SILENT_PEAK:g})")
    return wave, rate


def audio_seconds(path: Path | str) -> float:
    """How long a file says it is, from its header alone; reading it may show that it is truncated.

    AudioError where it is missing, empty, not audio, or without samples.
    """
    path = Path(path)
    with _opened(path) as file:
        if file.frames == 0:
            raise AudioError(f"{path} has a header but no samples; get the file again")
        return float(file.frames / file.samplerate)


def check_finite(wave: np.ndarray, name: str) -> None:
    """AudioError where the waveform [T] called `name` holds NaN or infinity."""
    bad = int(wave.size - np.isfinite(wave).sum())
    if bad:
        raise AudioError(f"{name} holds {bad} samples that are NaN or infinite; make it again")


def resample(wave: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """The waveform [T], or batch of waveforms [B, T], at another rate (soxr, high quality); float32."""
    if source_rate <= 0 or target_rate <= 0:
        raise AudioError(f"cannot resample from {source_rate} to {target_rate} Hz; rates must be positive")
    wave = np.asarray(wave, dtype=np.float32)
    if source_rate == target_rate or wave.shape[-1] == 0:
        return wave
    return np.ascontiguousarray(soxr.resample(wave.T, source_rate, target_rate, quality="HQ").T)


def resample_tensor(wave: Tensor, source_rate: int, target_rate: int) -> Tensor:
    """Waves [B, T] at another rate by their spectrum: [B, ceil(T * target / source)]; gradients pass.

    The ends are mirrored, and the highest twentieth of what both rates can hold fades out, against ringing.
    """
    if source_rate == target_rate or wave.shape[-1] == 0:
        return wave
    common = math.gcd(source_rate, target_rate)
    down, up = source_rate // common, target_rate // common
    length = wave.shape[-1]
    margin = min(length - 1, source_rate // 20)  # in front it must be whole periods of the two rates
    front = margin // down * down
    back = margin + (-(front + length + margin)) % down
    padded = F.pad(F.pad(wave[:, None], (front, margin), mode="reflect")[:, 0], (0, back - margin))
    spectrum = torch.fft.rfft(padded)
    made = padded.shape[-1] // down * up
    bins = min(spectrum.shape[-1], made // 2 + 1)
    fade = ((1 - torch.arange(bins, device=wave.device) / (bins - 1)) * 20).clamp(max=1)
    scaled = spectrum[:, :bins] * (fade * up / down)
    start = front // down * up
    return torch.fft.irfft(scaled, n=made)[:, start : start + -(-length * up // down)]


def fit_length(wave: np.ndarray, samples: int) -> np.ndarray:
    """The first `samples` samples of the waveform [T], padded at the end with zeros where it is shorter."""
    return np.pad(wave[:samples], (0, max(0, samples - len(wave))))


def write_wav(path: Path | str, wave: np.ndarray, rate: int, subtype: str = "PCM_16") -> None:
    """Write the waveform [T] as a wav file, whole or not at all; samples beyond +-1 are clipped by PCM subtypes."""
    check_finite(wave, f"the waveform for {path}")
    memory = io.BytesIO()
    soundfile.write(memory, np.asarray(wave, dtype=np.float32), rate, subtype, format="WAV")
    write_file(Path(path), memory.getvalue())


def write_file(path: Path, encoded: bytes) -> None:
    """Write an audio file's content, whole or not at all; AudioError where the disk refuses."""
    try:
        write_atomically(path, encoded)
    except OSError as error:
        raise AudioError(f"{path} cannot be written ({error.strerror}); free space or choose another folder") from None


@contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """The file opened for reading; whatever stands against reading it, as an AudioError of one line."""
    name: str | bytes = str(path) if is_utf8(str(path)) else os.fsencode(path)  # soundfile takes other names as bytes
    try:
        if not path.is_file():
            what = "is a folder, not an audio file" if path.is_dir() else "does not exist; check the path"
            raise AudioError(f"{path} {what}")
        if path.stat().st_size == 0:
            raise AudioError(f"{path} is empty (0 bytes); get the file again")
        with soundfile.SoundFile(name) as file:
            yield file
    except OSError as error:  # no permission, a name that is longer than the system takes, links in a circle
        raise AudioError(f"{path} cannot be read ({error.strerror}); check the file") from None
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        # soundfile raises TypeError for headerless .raw files, whose rate nobody can know.
        reason = str(error).removeprefix(f"Error opening {name!r}: ").rstrip(".")
        if "does not exist" in reason:  # what the MP3 decoder says of a file without a single frame
            reason = "no MP3 frame in it"
        raise AudioError(f"{path} cannot be decoded ({reason}); it is truncated, damaged or not audio") from None


def _cut_short(path: Path, log: str) -> bool:
    """Whether a container says that more was to come. `log` is libsndfile's account of the headers."""
    for declared, present in re.findall(r"^ *(?:data|SSND) : (\d+) \(should be (\d+)\)", log, re.MULTILINE):
        if int(present) < int(declared) < _STREAMED:
            return True
    with path.open("rb") as file:
        if file.read(4) != b"OggS":
            return False
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - 2**17))  # an Ogg page is at most 65,307 bytes
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    segments = page[26] if len(page) > 26 else 0
    return len(page) < 27 + segments or len(page) < 27 + segments + sum(page[27 : 27 + segments])
