"""Audio files and waveforms: decoding any file, whatever its headers say, resampling, writing.

A waveform is a mono float32 NumPy array [T] with a nominal range of -1 to 1, beside its rate in Hz.
"""

from __future__ import annotations

import io
import math
import os
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

from plaudit.containers import MPEG_SUFFIXES, Layout, Part, Splice, layout_of
from plaudit.errors import AudioError
from plaudit.files import files_under
from plaudit.sidecars import without_candidates
from plaudit.storage import write_atomically
from plaudit.writing import is_utf8

KNOWN_SUFFIXES = {
    "WAV": (".wav", ".wave", ".bwf"),
    "FLAC": (".flac",),
    "MP3": MPEG_SUFFIXES,
    "OGG": (".ogg", ".oga", ".opus", ".spx"),
    "AIFF": (".aiff", ".aif", ".aifc"),
    "AU": (".au", ".snd"),
    "CAF": (".caf",),
    "W64": (".w64",),
    "RF64": (".rf64",),
    "VOC": (".voc",),
    "NIST": (".sph", ".nist"),
    "SVX": (".8svx", ".svx"),
    "IRCAM": (".ircam", ".sf"),
    "AVR": (".avr",),
    "PAF": (".paf",),
    "PVF": (".pvf",),
}
"""Names of libsndfile's formats. Those whose suffixes mostly name other things (.mat, .raw, .xi) are left out."""

SUFFIXES = tuple(
    suffix for name, suffixes in KNOWN_SUFFIXES.items() if name in soundfile.available_formats() for suffix in suffixes
)
"""Suffixes of files that count as audio in a folder: all that the installed libsndfile reads. A file that is named
may have any other."""

SILENT_PEAK = 1e-5
"""A file that never leaves its mean by more than this (-100 dBFS) holds no sound (ours)."""

LOUDEST_PEAK = 10.0
"""A file with a sample beyond this (+20 dBFS) is not in the range of -1 to 1 (ours). Mixes in floating point may be
some decibels above full scale; 8-bit integers as floating point are at +42, 16-bit ones at +90."""


def list_audio_files(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those that `audio_under` finds in the folders named.

    Candidates that `plaudit generate --best-of` chose from are left out, unless their folder is named itself.
    Raises AudioError where there are none.
    """
    files: list[Path] = []
    for path in paths:
        files += audio_under(path) if os.path.isdir(path) else [path]
    if not files:
        raise AudioError(
            f"no audio under {', '.join(map(str, paths))}; give audio files (wav, flac, mp3, ogg, ...) or their folders"
        )
    return files


def audio_under(folder: Path) -> list[Path]:
    """The files with a known suffix anywhere under a folder, sorted, without candidates in it.

    See plaudit.files.files_under and plaudit.sidecars.without_candidates.
    """
    audio = [path for path in files_under(folder) if path.suffix.lower() in SUFFIXES]
    return without_candidates(audio, folder)


def read_audio(path: Path | str) -> tuple[np.ndarray, int]:
    """Read an audio file of any format that libsndfile knows: (mono float32 [T], rate in Hz).

    Channels are averaged. A chained Ogg file and MP3 files one after the other in one are read to the end. AudioError
    where the file is missing, empty, not audio, truncated, without samples, or not usable (see `range_problem`).
    """
    (wave,), rate = read_stretches(path, [(0.0, math.inf)])
    return wave, rate


def read_stretches(
    path: Path | str, stretches: Sequence[tuple[float, float]], peak: float | None = None
) -> tuple[list[np.ndarray], int]:
    """Stretches (start, seconds) of an audio file: (mono float32 [T] of each, rate in Hz).

    The file is decoded once, in blocks, and only the stretches are kept; they end where the file ends. peak: all are
    scaled by the factor that gives the whole file, as mono, that peak.
    AudioError as of `read_audio`, for whatever part of the file has the fault.
    """
    path = Path(path)
    extent = _Extent()
    with decoder(path) as decoding:
        most, rate = (decoding.announced or 0) + 1, decoding.rate
        extracts = [_Stretch(round(start * rate), seconds * rate, most) for start, seconds in stretches]
        for block in decoding.blocks():
            for stretch in extracts:
                stretch.take(block, extent.samples)
            extent.add(block)
        moves = decoding.any_channel_moves
    if not extent.samples:
        raise AudioError(f"{path} has a header but no samples; get the file again")
    if extent.bad:
        raise AudioError(f"{path} holds {extent.bad} samples that are NaN or infinite; make it again")
    if problem := range_problem(extent.low, extent.high, extent.samples):
        cancelled = moves and extent.low == extent.high == 0
        raise AudioError(f"{path} {'is silent: its channels cancel each other out' if cancelled else problem}")
    waves = [stretch.wave for stretch in extracts]
    if peak is not None:
        scale = np.float32(peak / max(abs(extent.low), abs(extent.high)))
        waves = [wave * scale for wave in waves]
    return waves, rate


def audio_seconds(path: Path | str) -> float:
    """The length of a file, from its headers if its structure agrees with them; otherwise it is decoded and measured.

    AudioError where it is missing, empty, not audio, truncated, or without samples; reading it may reveal more.
    """
    path = Path(path)
    with decoder(path) as decoding:
        samples, rate = decoding.measured(), decoding.rate
    if samples == 0:
        raise AudioError(f"{path} has a header but no samples; get the file again")
    return samples / rate


def check_finite(wave: np.ndarray, name: str) -> None:
    """AudioError where the waveform [T] called `name` holds NaN or infinity."""
    bad = int(wave.size - np.isfinite(wave).sum())
    if bad:
        raise AudioError(f"{name} holds {bad} samples that are NaN or infinite; make it again")


def range_problem(low: float, high: float, samples: int = 2) -> str:
    """Why `samples` samples between `low` and `high` are no usable audio; "" where they are.

    It must not leave the range of -1 to 1 by far (LOUDEST_PEAK), nor be silent (SILENT_PEAK), be it at 0 or elsewhere.
    """
    peak = max(abs(low), abs(high))
    if not math.isfinite(peak):
        return "holds NaN or infinite samples; make it again"
    if peak > LOUDEST_PEAK:
        problem = f"has a peak of {20 * math.log10(peak):+.0f} dBFS, where samples are to lie between -1 and 1"
        bits = next((bits for bits in (8, 16, 24, 32) if peak <= 1.01 * 2 ** (bits - 1)), None)
        advice = f"if they are {bits}-bit integers, divide them by {2 ** (bits - 1)}" if bits else "make it again"
        return f"{problem}; {advice}"
    if peak < SILENT_PEAK:
        return f"is silent (peak below {SILENT_PEAK:g})"
    if samples > 1 and (high - low) / 2 < SILENT_PEAK:
        return f"is silent: all samples are {high:.3g}"
    return ""


class _Extent:
    """The number of samples, the lowest and highest, and the number of non-finite ones."""

    def __init__(self) -> None:
        self.samples = self.bad = 0
        self.low, self.high = math.inf, -math.inf

    def add(self, block: np.ndarray) -> None:
        """Take a block into account."""
        if not block.size:
            return
        low, high = float(block.min()), float(block.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            self.bad += int(block.size - np.isfinite(block).sum())
        self.samples += block.size
        self.low, self.high = min(self.low, low), max(self.high, high)


class _Stretch:
    """Samples of a file from `start` on, at most `length`; memory is allocated for those in a file of `most`."""

    def __init__(self, start: int, length: float, most: int) -> None:
        self._start, self._end = start, start + length
        self._room = np.empty(max(0, int(min(self._end, most)) - start), np.float32)
        self._filled = 0

    def take(self, block: np.ndarray, place: int) -> None:
        """Copy the overlap with a block that begins at the file's sample `place`."""
        if place >= self._end or place + len(block) <= self._start:
            return
        part = block[max(0, self._start - place) : int(min(len(block), self._end - place))]
        filled = self._filled + len(part)
        if filled > len(self._room):
            self._room = np.concatenate([self._room[: self._filled], np.empty(2 * filled - self._filled, np.float32)])
        self._room[self._filled : filled] = part
        self._filled = filled

    @property
    def wave(self) -> np.ndarray:
        """The samples."""
        return self._room[: self._filled]


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
    total = padded.shape[-1] // down * up
    bins = min(spectrum.shape[-1], total // 2 + 1)
    fade = ((1 - torch.arange(bins, device=wave.device) / (bins - 1)) * 20).clamp(max=1)
    scaled = spectrum[:, :bins] * (fade * up / down)
    start = front // down * up
    return torch.fft.irfft(scaled, n=total)[:, start : start + -(-length * up // down)]


def fit_length(wave: np.ndarray, samples: int) -> np.ndarray:
    """The first `samples` samples of the waveform [T], padded at the end with zeros where it is shorter."""
    return np.pad(wave[:samples], (0, max(0, samples - len(wave))))


def write_wav(path: Path | str, wave: np.ndarray, rate: int, subtype: str = "PCM_16") -> None:
    """Write the waveform [T] as a wav file, whole or not at all; samples beyond +-1 are clipped by PCM subtypes."""
    write_file(Path(path), encode_wav(wave, rate, subtype, f"the waveform for {path}"))


def encode_wav(wave: np.ndarray, rate: int, subtype: str = "PCM_16", name: str = "the waveform") -> bytes:
    """The content of a wav file of the waveform [T]; AudioError, naming `name`, where it holds NaN or infinity."""
    check_finite(wave, name)
    memory = io.BytesIO()
    soundfile.write(memory, np.asarray(wave, dtype=np.float32), rate, subtype, format="WAV")
    return memory.getvalue()


def write_file(path: Path, encoded: bytes) -> None:
    """Write an audio file's content, whole or not at all; AudioError where the disk refuses."""
    try:
        write_atomically(path, encoded)
    except OSError as error:
        raise AudioError(f"{path} cannot be written ({error.strerror}); free space or choose another folder") from None


LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000
"""Sampling rates in Hz outside of which a header is wrong (ours)."""

SHORT = 600.0
"""Seconds up to which a lower rate is accepted (ours): at 1 Hz a minute of music at 44.1 kHz would last 30 days, and
need as much memory as that when it is resampled."""

BLOCK = 1 << 18
"""Samples, of all channels together, that are decoded at once (ours)."""

INTEGERS = {"PCM_16": ("int16", 2.0**-15)}
"""Subtypes that are read as integers, and the value of their unit: libsndfile's conversion to floating point takes ten
times as long, and gives the same values."""

LEAST_BYTES = 25
"""Bytes that a second of audio takes at least (ours). A file that claims to be longer is decoded to measure it."""


class Decoder:
    """The audio of one file; `decoder` opens it.

    rate: of its first stream, to which the others are resampled. any_channel_moves: whether what was decoded so far is
    anything but constant in some channel.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self._path, self._layout = path, layout
        with self._stream(next(iter(self._parts))) as first:
            self.rate, self.any_channel_moves = first.samplerate, False
        if layout.cut:
            raise self._truncated((self.announced or 0) / self.rate)

    @property
    def announced(self) -> int | None:
        """Samples of the file by its headers, None where they cannot be right."""
        total, most = 0.0, 0
        for part in self._parts:
            with self._stream(part) as stream:
                total += stream.frames * self.rate / stream.samplerate
                most += stream.frames
        too_long = total / self.rate > self._path.stat().st_size / LEAST_BYTES
        wrong = too_long or (self._layout.limit is not None and most > self._layout.limit)
        return None if wrong else round(total)

    def measured(self) -> int:
        """Samples of the file: as announced if plausible, else counted by decoding."""
        announced = self.announced
        return sum(map(len, self.blocks())) if announced is None else announced

    def blocks(self) -> Iterator[np.ndarray]:
        """The samples, mean of all channels, float32 [T] at a time.

        AudioError at the end where part of the file is missing.
        """
        decoded = missing = 0.0
        for part in self._parts:
            with self._stream(part) as stream:
                announced, had = stream.frames / stream.samplerate, decoded
                for block in self._at_rate(self._mixed(stream), stream.samplerate):
                    decoded += len(block) / self.rate
                    yield block
                missing = max(missing, announced - (decoded - had))
        if missing > self._layout.slack:
            raise self._truncated(decoded)

    def _truncated(self, seconds: float) -> AudioError:
        return AudioError(f"{self._path} is truncated: {seconds:.2f} s can be read; get the file again")

    @property
    def _parts(self) -> list[Part | None]:
        """Views of the file's streams; None stands for the file as it is."""
        return [*self._layout.parts] or [None]

    @contextmanager
    def _stream(self, part: Part | None) -> Iterator[soundfile.SoundFile]:
        if part is None:
            path = str(self._path)  # soundfile takes names that are not UTF-8 as bytes
            with _Forwards(path if is_utf8(path) else os.fsencode(path)) as stream:
                yield self._believed(stream)
        else:
            with self._path.open("rb") as file, _Forwards(Splice(file, part)) as stream:
                yield self._believed(stream)

    def _believed(self, stream: soundfile.SoundFile) -> soundfile.SoundFile:
        rate = stream.samplerate
        if rate > HIGHEST_RATE or (rate < LOWEST_RATE and stream.frames / rate > SHORT):
            raise AudioError(
                f"{self._path} has a sampling rate of {stream.samplerate} Hz by its header, outside of "
                f"{LOWEST_RATE} to {HIGHEST_RATE}; correct the header"
            )
        return stream

    def _mixed(self, stream: soundfile.SoundFile) -> Iterator[np.ndarray]:
        block, left = max(1, BLOCK // stream.channels), stream.frames  # what is behind the last sample is not read
        kind, scale = INTEGERS.get(stream.subtype, ("float32", None))
        while len(frames := stream.read(min(block, left), kind, always_2d=True)):
            left -= len(frames)
            if not self.any_channel_moves:
                self.any_channel_moves = _moves(frames[:256]) or _moves(frames)
            with np.errstate(invalid="ignore", over="ignore"):  # read_stretches reports infinities
                mixed = reduce(lambda a, b: np.add(a, b, dtype=np.float32), frames.T).astype(np.float32, copy=False)
                if scale is not None:
                    mixed = mixed * np.float32(scale)
                yield mixed / np.float32(stream.channels)  # mean(axis=1) takes ten times as long

    def _at_rate(self, blocks: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
        if rate == self.rate:
            yield from blocks
            return
        resampler = soxr.ResampleStream(rate, self.rate, 1, dtype="float32", quality="HQ")
        for block in blocks:
            yield resampler.resample_chunk(block)
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _moves(frames: np.ndarray) -> bool:
    """Whether anything but a constant is in some channel of frames [T, channels]."""
    return bool((frames != frames[0]).any())


class _Forwards(soundfile.SoundFile):
    """A file that is read once through. soundfile would seek after each block, which fails where lengths are wrong."""

    def seekable(self) -> bool:
        return False


@contextmanager
def decoder(path: Path) -> Iterator[Decoder]:
    """The file opened for decoding; AudioError, in one line, where it cannot be opened or decoded."""
    try:
        if not path.is_file():
            what = "is a folder, not an audio file" if path.is_dir() else "does not exist; check the path"
            raise AudioError(f"{path} {what}")
        if path.stat().st_size == 0:
            raise AudioError(f"{path} is empty (0 bytes); get the file again")
        yield Decoder(path, layout_of(path))
    except OSError as error:  # no permission, a name that is longer than the system takes, links in a circle
        raise AudioError(f"{path} cannot be read ({error.strerror}); check the file") from None
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        # soundfile raises TypeError for headerless .raw files, whose rate is unknown.
        reason = str(error).rpartition(": ")[2].rstrip(".")
        if "does not exist" in reason:  # what the MP3 decoder says of a file without a single frame
            reason = "no MP3 frame in it"
        raise AudioError(f"{path} cannot be decoded ({reason}); it is truncated, damaged or not audio") from None
