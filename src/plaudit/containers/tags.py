"""Tags before and after the audio of a file: ID3, APE, Lyrics3."""

from __future__ import annotations

from mmap import mmap


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
