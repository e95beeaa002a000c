"""Audio files decoded from their beginning to their end, in blocks, whatever their headers say of their length."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path

import numpy as np
import soundfile
import soxr

from plaudit.containers import Layout, Part, Splice, layout_of
from plaudit.errors import AudioError
from plaudit.writing import is_utf8

LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000
"""Sampling rates in Hz outside of which a header is wrong (ours)."""

SHORT = 600.0
"""Seconds up to which a lower rate is accepted (ours): at 1 Hz a minute of music at 44.1 kHz would last 30 days, and
need as much memory as that when it is resampled."""

BLOCK = 1 << 18
"""Samples, of all channels together, that are decoded at once (ours)."""

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
        """Samples of the file: as announced where that can be right, else as many as there are."""
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
        """None stands for the file as it is."""
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
        while len(frames := stream.read(min(block, left), "float32", always_2d=True)):
            left -= len(frames)
            channels = frames.T
            if not self.any_channel_moves:
                self.any_channel_moves = bool((frames != frames[0]).any())
            with np.errstate(invalid="ignore", over="ignore"):  # infinities are found by whoever looks at the sum
                yield reduce(np.add, channels) / np.float32(len(channels))  # mean(axis=1) takes ten times as long

    def _at_rate(self, blocks: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
        if rate == self.rate:
            yield from blocks
            return
        resampler = soxr.ResampleStream(rate, self.rate, 1, dtype="float32", quality="HQ")
        for block in blocks:
            yield resampler.resample_chunk(block)
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


class _Forwards(soundfile.SoundFile):
    """A file that is read once through. soundfile would seek after each block, which fails where lengths are wrong."""

    def seekable(self) -> bool:
        return False


@contextmanager
def decoder(path: Path) -> Iterator[Decoder]:
    """The file opened for reading; whatever prevents that, or decoding it, as an AudioError of one line."""
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
        # soundfile raises TypeError for headerless .raw files, whose rate nobody can know.
        reason = str(error).rpartition(": ")[2].rstrip(".")
        if "does not exist" in reason:  # what the MP3 decoder says of a file without a single frame
            reason = "no MP3 frame in it"
        raise AudioError(f"{path} cannot be decoded ({reason}); it is truncated, damaged or not audio") from None
