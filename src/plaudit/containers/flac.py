"""FLAC: the number of samples, from the last frame instead of the header (RFC 9639)."""

from __future__ import annotations

from mmap import mmap

from plaudit.containers.layout import Layout, Part, Piece, leading, trailing

MAGIC = b"fLaC"

_FACTS = b"\0\0\0\x22", b"\x80\0\0\x22"
"""How the first block of a stream's metadata begins, which may be the last: it has 34 bytes."""

_SEARCHED = 1 << 21
"""Bytes at the end that are searched for the last frame; the largest frame that encoders make has less."""

_BLOCKS = {1: 192, **{code: 576 << (code - 2) for code in range(2, 6)}, **{code: 1 << code for code in range(8, 16)}}
"""Samples of a frame by the code in its header; of codes 6 and 7 the number follows."""


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte << 1) ^ (0x107 if byte & 0x80 else 0)
        table.append(byte)
    return table


_CRC8 = _table()


def layout(data: mmap) -> Layout:
    """Each stream of the file is a part; a wrong number of samples in its header is corrected."""
    begin, end = leading(data), trailing(data)
    starts = _starts(data, begin, end)
    parts = [_part(data, start, stop) for start, stop in zip(starts, [*starts[1:], end], strict=True)]
    is_intact = len(parts) == 1 and all(not isinstance(piece, bytes) for piece in parts[0])
    return Layout([] if is_intact else parts)


def _starts(data: mmap, begin: int, end: int) -> list[int]:
    """Offsets at which streams begin."""
    places = []
    place = data.find(MAGIC, begin, end)
    while place >= 0:
        if data[place + 4 : place + 8] in _FACTS:
            places.append(place)
        place = data.find(MAGIC, place + 1, end)
    return places


def _part(data: mmap, start: int, end: int) -> Part:
    """The stream from byte `start` on, with the right number of samples in its header."""
    facts = int.from_bytes(data[start + 18 : start + 26], "big")
    declared, block = facts & (2**36 - 1), int.from_bytes(data[start + 10 : start + 12], "big")
    first = _first_frame(data, start, end)
    begins = None if first is None else _frame(data, first, block)
    last = None if first is None else _last_frame(data, first, end, block)
    pieces: list[Piece] = [(start, end)]
    if begins is not None and last is not None:
        there = last[0] + last[1] - begins[0]
        if there != declared and 0 < there < 2**36:
            corrected = (facts >> 36 << 36 | there).to_bytes(8, "big")
            pieces = [(start, start + 18), corrected, (start + 26, end)]
    return tuple(pieces)


def _first_frame(data: mmap, start: int, end: int) -> int | None:
    """The offset at which the metadata ends."""
    place, last = start + 4, False
    while not last:
        if place + 4 > end:
            return None
        last = bool(data[place] & 0x80)
        place += 4 + int.from_bytes(data[place + 1 : place + 4], "big")
    return place if place < end else None


def _last_frame(data: mmap, first: int, end: int, block: int) -> tuple[int, int] | None:
    """The first sample of the last frame, and how many it has.

    A candidate counts if the frame before it ends where it starts: the 8-bit checksum of a frame header alone would
    match random data in one of a few thousand files.
    """
    seen: set[tuple[int, int]] = set()
    lowest = max(first, end - _SEARCHED)
    place = data.rfind(b"\xff", lowest, end)
    while place >= 0:
        frame = _frame(data, place, block)
        if frame is not None:
            follower = next((one for one in seen if one[0] == sum(frame)), None)
            if follower is not None or place == first:
                return follower or frame
            seen.add(frame)
        place = data.rfind(b"\xff", lowest, place)
    return None


def _frame(data: mmap, place: int, block: int) -> tuple[int, int] | None:
    """The number of the first sample of the frame at byte `place`, and of its samples; None where there is no frame.

    block: samples of each frame but the last, where frames are numbered and not their samples.
    """
    header = data[place : place + 16]
    if len(header) < 6 or header[0] != 0xFF or header[1] & 0xFE != 0xF8 or header[3] & 1:
        return None
    size_code, rate_code = header[2] >> 4, header[2] & 15
    if size_code == 0 or rate_code == 15 or header[3] >> 4 > 10:
        return None
    number, at = _number(header, 4)
    if number is None:
        return None
    size = _BLOCKS.get(size_code, 0)
    if size_code in (6, 7):
        width = size_code - 5
        size = int.from_bytes(header[at : at + width], "big") + 1
        at += width
    at += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if at >= len(header) or _crc8(header[:at]) != header[at]:
        return None
    variable = header[1] & 1
    return (number if variable else number * (block or size)), size


def _number(header: bytes, at: int) -> tuple[int | None, int]:
    """The number written as UTF-8 writes a character, and where it ends."""
    first = header[at]
    if first < 0x80:
        return first, at + 1
    more = f"{first:08b}".find("0") - 1
    if not 1 <= more <= 6 or at + 1 + more > len(header):
        return (0 if first == 0xFF else None), at + 1
    number = first & (0x3F >> more)
    for byte in header[at + 1 : at + 1 + more]:
        if byte >> 6 != 2:
            return None, at
        number = number << 6 | byte & 0x3F
    return number, at + 1 + more


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = _CRC8[crc ^ byte]
    return crc
