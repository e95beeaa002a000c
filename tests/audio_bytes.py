"""Audio files as bytes, to be cut, joined and falsified: what downloads, broadcasts and simple writers leave."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import soundfile

from plaudit.containers.ogg import checksum

RATE = 44100
ID3 = b"ID3\3\0\0\0\0\x01\0" + b"\xff\xfb\x90\0" * 32
"""A tag that holds what looks like the headers of frames."""
TAG = b"TAG" + bytes(125)
APE = b"APETAGEX" + struct.pack("<IIII8x", 2000, 64, 1, 0) + bytes(32)


def sound(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """A tone that swells, over noise."""
    t = np.arange(round(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * (220 + 60 * seed) * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 2 * t))
    return (tone + 0.05 * np.random.default_rng(seed).standard_normal(len(t))).astype(np.float32)


def encoded(wave: np.ndarray, kind: str, subtype: str | None = None, rate: int = RATE, quality: float = 0.3) -> bytes:
    """A whole file."""
    memory = io.BytesIO()
    channels = 1 if wave.ndim == 1 else wave.shape[1]
    more = {"compression_level": quality, "bitrate_mode": "VARIABLE"} if kind == "MP3" else {}
    with soundfile.SoundFile(memory, "w", rate, channels, subtype, format=kind, **more) as file:
        for start in range(0, len(wave), 1 << 16):  # libsndfile's Vorbis encoder overflows its stack on more
            file.write(wave[start : start + (1 << 16)])
    return memory.getvalue()


def written(folder: Path, name: str, data: bytes) -> Path:
    """The bytes as a file."""
    (folder / name).write_bytes(data)
    return folder / name


def without_header(mp3: bytes) -> bytes:
    """An MP3 file of 44.1 kHz without its first frame, which holds the number of frames."""
    assert b"Xing" in mp3[:200] or b"Info" in mp3[:200]
    kbits = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)[mp3[2] >> 4]
    return mp3[144_000 * kbits // RATE + (mp3[2] >> 1 & 1) :]


def with_frames(mp3: bytes, frames: int, size: int | None = None) -> bytes:
    """An MP3 file whose header declares so many frames, and so many bytes."""
    at = max(mp3.find(b"Xing"), mp3.find(b"Info")) + 8
    declared = struct.pack(">I", frames) + (mp3[at + 4 : at + 8] if size is None else struct.pack(">I", size))
    return mp3[:at] + declared + mp3[at + 8 :]


def with_total(flac: bytes, samples: int) -> bytes:
    """A FLAC file whose header declares so many samples; 0 means unknown."""
    facts = int.from_bytes(flac[18:26], "big") >> 36 << 36 | samples
    return flac[:18] + facts.to_bytes(8, "big") + flac[26:]


def with_sizes(wav: bytes, riff: int, data: int) -> bytes:
    """A plain WAV file whose header declares these sizes."""
    assert wav[36:40] == b"data"
    return wav[:4] + struct.pack("<I", riff) + wav[8:40] + struct.pack("<I", data) + wav[44:]


def with_size(file: bytes, name: bytes, form: str, size: int, skip: int = 0) -> bytes:
    """A file whose chunk called `name` declares this size."""
    at = file.find(name) + len(name) + skip
    declared = struct.pack(form, size)
    return file[:at] + declared + file[at + len(declared) :]


def ogg_pages(ogg: bytes) -> list[int]:
    """Where the pages begin."""
    places = [ogg.find(b"OggS")]
    while (place := ogg.find(b"OggS", places[-1] + 1)) >= 0:
        places.append(place)
    return places


def with_late_end(ogg: bytes, samples: int) -> bytes:
    """An Ogg file whose last granule position is so many samples late."""
    at = ogg_pages(ogg)[-1]
    page = bytearray(ogg[at:])
    page[6:14] = struct.pack("<q", struct.unpack("<q", page[6:14])[0] + samples)
    page[22:26] = bytes(4)
    page[22:26] = struct.pack("<I", checksum(bytes(page)))
    return ogg[:at] + bytes(page)
