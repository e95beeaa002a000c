"""The structure of a file: its streams, the tags around them, and a view of byte ranges."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from mmap import mmap
from typing import Any, BinaryIO

Piece = bytes | tuple[int, int]
"""Literal bytes, or a range of the file from one offset up to another."""

Part = tuple[Piece, ...]
"""A stretch of a file that decodes on its own, with corrected headers where they were wrong."""


@dataclass(frozen=True)
class Layout:
    """The streams in a file, one after the other.

    parts: how to read each; empty where the file can be read as it is. cut: the file is truncated, since it ends in the
    middle of a page, or a declared size that is no placeholder exceeds it. limit: the most samples that the streams can
    hold, where known. slack: by how many seconds a stream may decode to less than its header declares.
    """

    parts: list[Part] = field(default_factory=list)
    cut: bool = False
    limit: int | None = None
    slack: float = 0.05


class Splice(io.RawIOBase):
    """The pieces of `file` in their order, readable and seekable; closing it closes the file."""

    def __init__(self, file: BinaryIO, pieces: Sequence[Piece]) -> None:
        self._file, self._pieces = file, tuple(pieces)
        lengths = [len(p) if isinstance(p, bytes) else p[1] - p[0] for p in self._pieces]
        self._ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._ends[-1] if self._ends else 0}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        filled = begin = 0
        for piece, end in zip(self._pieces, self._ends, strict=True):
            if self._place < end and filled < len(view):
                inside, count = self._place - begin, min(end - self._place, len(view) - filled)
                if isinstance(piece, bytes):
                    data = piece[inside : inside + count]
                else:
                    self._file.seek(piece[0] + inside)
                    data = self._file.read(count)
                view[filled : filled + len(data)] = data
                filled += len(data)
                self._place += len(data)
                if len(data) < count:
                    break
            begin = end
        return filled

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def id3_length(data: mmap | bytes, place: int) -> int:
    """Bytes of the ID3v2 tag at `place`, 0 where there is none."""
    header = data[place : place + 10]
    if len(header) < 10 or header[:3] != b"ID3" or any(byte & 0x80 for byte in header[6:10]):
        return 0
    size = 0
    for byte in header[6:10]:
        size = size << 7 | byte
    return 10 + size + (10 if header[5] & 0x10 else 0)


def tag_length(data: mmap, place: int) -> int:
    """Bytes of the tag at `place`, of whatever kind, 0 where there is none."""
    if data[place : place + 3] == b"TAG":
        return 128
    if data[place : place + 8] == b"APETAGEX":
        return 32 + int.from_bytes(data[place + 12 : place + 16], "little")
    return id3_length(data, place)


def leading(data: mmap) -> int:
    """Where the tags at the beginning end."""
    place = 0
    while length := id3_length(data, place):
        place += length
    return min(place, len(data))


def trailing(data: mmap) -> int:
    """Where the tags at the end begin."""
    end = len(data)
    while True:
        length = _length_before(data, end)
        if not length:
            return end
        end = max(0, end - length)


def _length_before(data: mmap, end: int) -> int:
    if end >= 128 and data[end - 128 : end - 125] == b"TAG":
        return 128
    if end >= 32 and data[end - 32 : end - 24] == b"APETAGEX":
        size, flags = (int.from_bytes(data[end + at : end + at + 4], "little") for at in (-20, -12))
        return size + (32 if flags & 1 << 31 else 0)
    if end >= 15 and data[end - 9 : end] == b"LYRICS200":
        digits = data[end - 15 : end - 9]
        return int(digits) + 15 if digits.isdigit() else 0
    return 0
