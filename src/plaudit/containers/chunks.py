"""Formats made of chunks with declared sizes: WAV, RF64, Wave64, AIFF, CAF; and AU, which has one."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap

from plaudit.containers.layout import Layout

_SLACK = 1024
"""Bytes by which audio data may fall short of its declared size (ours): some writers count headers or whole blocks."""

_ROUND_FROM = 1 << 28
"""From this many bytes on, a round number counts as a placeholder (ours)."""

_HEADER = 128
"""Bytes by which a placeholder may differ from a round number, since writers add or subtract headers."""

_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


@dataclass(frozen=True)
class Family:
    """The layout of a format's chunks. first: offset of the first. name: bytes of a chunk's name. size: format of its
    size, which includes `counts` bytes of header. padded: alignment of chunks. data: name of the chunk with the audio,
    whose content has `empty` bytes when there are no samples."""

    first: int
    name: int
    size: struct.Struct
    padded: int
    data: bytes
    counts: int = 0
    empty: int = 0


RIFF = Family(12, 4, struct.Struct("<I"), 2, b"data")
RIFX = Family(12, 4, struct.Struct(">I"), 2, b"data")
W64 = Family(40, 16, struct.Struct("<Q"), 8, _W64_DATA, 24)
AIFF = Family(12, 4, struct.Struct(">I"), 2, b"SSND", empty=8)
CAF = Family(8, 4, struct.Struct(">Q"), 1, b"data", empty=4)

FAMILIES = {b"RIFF": RIFF, b"RF64": RIFF, b"BW64": RIFF, b"RIFX": RIFX, b"riff": W64, b"FORM": AIFF, b"caff": CAF}
AU = {b".snd": struct.Struct(">I"), b"dns.": struct.Struct("<I")}


@dataclass(frozen=True)
class Chunk:
    """field: offset of its size. begin: offset of its content. size: declared size of its content."""

    name: bytes
    field: int
    begin: int
    size: int


def layout(data: mmap) -> Layout | None:
    """The layout of the file; None for another format, or without an audio chunk.

    A placeholder, left by a writer that could not seek back, is replaced by what is left of the file. A file with less
    data than it declares otherwise is truncated.
    """
    magic = data[:4]
    if magic in AU:
        return _au(data, AU[magic])
    family = FAMILIES.get(magic)
    if family is None:
        return None
    chunk = next((chunk for chunk in chunks(data, family) if chunk.name == family.data), None)
    if chunk is None:
        return None
    size, field, write = chunk.size, chunk.field, family.size
    if magic in (b"RF64", b"BW64") and size == 0xFFFFFFFF and data[12:16] == b"ds64":
        field, write = 28, struct.Struct("<Q")  # the size stands in the first chunk
        size = write.unpack(data[28:36])[0]
    there = len(data) - chunk.begin
    empty = size <= family.empty
    if (empty and not _ends_here(data, family, chunk.begin + size)) or (not empty and is_placeholder(size)):
        return _until_the_end(data, field, write, there + family.counts)
    return Layout(cut=size > there + _SLACK)


def chunks(data: mmap, family: Family) -> Iterator[Chunk]:
    """The chunks of a file, up to the first that begins beyond its end."""
    place = family.first
    while place + family.name + family.size.size <= len(data):
        field = place + family.name
        begin = field + family.size.size
        size = max(0, family.size.unpack(data[field:begin])[0] - family.counts)
        yield Chunk(data[place:field], field, begin, size)
        place = begin + size
        place += -place % family.padded


def is_placeholder(size: int) -> bool:
    """Whether a size stands for an unknown one: zero, the largest that a field can hold or nearly, or a large round
    number."""
    if size == 0 or size >= 1 << 48:
        return True
    if any(abs(size - most) <= 1 << 16 for most in (1 << 31, 1 << 32)):
        return True
    steps = ((_ROUND_FROM, 1 << 20), (500_000_000, 1_000_000))
    return any(size >= least and min(size % step, -size % step) <= _HEADER for least, step in steps)


def _ends_here(data: mmap, family: Family, place: int) -> bool:
    """Whether there is nothing but whole chunks from `place` on."""
    while place + family.name + family.size.size <= len(data):
        name = data[place : place + 4]
        begin = place + family.name + family.size.size
        size = max(0, family.size.unpack(data[begin - family.size.size : begin])[0] - family.counts)
        if not all(32 <= byte < 127 for byte in name) or begin + size > len(data):
            return False
        place = begin + size
        place += -place % family.padded
    return len(data) - place < family.name + family.size.size


def _until_the_end(data: mmap, field: int, write: struct.Struct, there: int) -> Layout:
    """The file with a size that reaches to its end: the largest number, if that does not fit the field."""
    size = min(there, (1 << 8 * write.size) - 1)
    corrected = (0, field), write.pack(size), (field + write.size, len(data))
    return Layout([corrected])


def _au(data: mmap, write: struct.Struct) -> Layout | None:
    if len(data) < 24:
        return None
    begin, size = (write.unpack(data[at : at + 4])[0] for at in (4, 8))
    there = len(data) - begin
    if there > 0 and is_placeholder(size):
        return _until_the_end(data, 8, write, there)
    return Layout(cut=size > there + _SLACK)
