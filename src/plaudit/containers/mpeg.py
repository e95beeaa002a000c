"""MPEG audio, such as MP3: a sequence of frames, perhaps behind a Xing or Info header that declares how many."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from mmap import mmap

from plaudit.containers.layout import Layout, Part, leading, tag_length, trailing

_KBITS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates by version (2 stands for 2.5 as well) and layer."""

_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Sampling rates by the two bits of the version."""

SLACK = 0.5
"""Seconds of a stream that may be missing (ours): a decoder leaves out frames whose beginning was cut off."""

_LEAD = 1 << 18
"""Bytes within which the first frame must begin."""

_SLACK = 2
"""Frames by which encoders' counts differ: some include the header's own frame, or one that flushes the encoder."""

_FRAMES, _BYTES = 1, 2
"""Flags of the header for the fields that it has."""


@dataclass(frozen=True)
class Frame:
    """size: in bytes. kind: version, layer, sampling rate and whether it is mono, the same in all frames of a stream.
    side: bytes of side information. samples: how many it decodes to."""

    size: int
    kind: tuple[int, int, int, bool]
    side: int
    samples: int


@dataclass
class _Stream:
    """Frames of one kind: byte ranges, their number, and the offset of the frame that holds the header, if any."""

    ranges: list[tuple[int, int]]
    frame: Frame
    header: int | None = None
    frames: int = 0

    def add(self, place: int, size: int) -> None:
        begin, end = self.ranges[-1]
        if end == place:
            self.ranges[-1] = (begin, place + size)
        else:
            self.ranges.append((place, place + size))


def layout(data: mmap) -> Layout | None:
    """Each stream of the file is a part with a header that declares the right number of frames.

    A stream begins with a header, or where frames of another kind begin. None where there is no frame.
    """
    begin, end = leading(data), trailing(data)
    streams = _streams(data, begin, end)
    if not streams:
        return None
    parts = [_part(data, stream) for stream in streams]
    right = len(streams) == 1 and all(isinstance(piece, tuple) for piece in parts[0])
    no_more = streams[0].ranges[0][0] == begin and streams[-1].ranges[-1][1] == end
    limit = sum(stream.frames * stream.frame.samples for stream in streams)
    return Layout([] if right and no_more else parts, _is_cut(data, streams[-1]), limit, SLACK)


def frame_at(data: mmap, place: int) -> Frame | None:
    """The frame whose header is at byte `place`."""
    return frame_of(data[place : place + 4])


@lru_cache(1 << 12)
def frame_of(header: bytes) -> Frame | None:
    """The frame that has this header of four bytes; None where it is none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bits, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or bits in (0, 15) or rate == 3:
        return None
    hertz, one = _RATES[version][rate], version == 3
    padding, mono = header[2] >> 1 & 1, header[3] >> 6 == 3
    speed = 1000 * _KBITS[1 if one else 2, layer][bits - 1]
    samples = 384 if layer == 1 else 1152 if layer == 2 or one else 576
    size = (12 * speed // hertz + padding) * 4 if layer == 1 else samples // 8 * speed // hertz + padding
    side = ((17 if mono else 32) if one else (9 if mono else 17)) if layer == 3 else 0
    return Frame(size, (version, layer, hertz, mono), side, samples)


def _streams(data: mmap, begin: int, end: int) -> list[_Stream]:
    streams: list[_Stream] = []
    fresh = True
    place = _next_frame(data, begin, min(end, begin + _LEAD), end)
    while place is not None:
        frame = frame_at(data, place)
        if frame is None or place + frame.size > end:
            place = None if frame is not None and place + frame.size > end else _after_gap(data, place, end)
            continue
        if streams and frame.kind != streams[-1].frame.kind and _next_frame(data, place, place + 1, end) is None:
            place = _after_gap(data, place + 1, end)
            continue
        if fresh and _is_silent_header(data, place, frame):
            place += frame.size
            continue
        heads = _header_at(data, place, frame)
        if fresh or heads or streams[-1].frame.kind != frame.kind:
            fresh = False
            streams.append(_Stream([(place, place + frame.size)], frame, place if heads else None))
            streams[-1].frames = 0 if heads else 1
        else:
            streams[-1].add(place, frame.size)
            streams[-1].frames += 1
        place += frame.size
    return [stream for stream in streams if stream.frames]


def _after_gap(data: mmap, place: int, end: int) -> int | None:
    """The next frame after a tag, padding, or damage."""
    while length := tag_length(data, place):
        place += length
    return _next_frame(data, place, end, end)


def _next_frame(data: mmap, place: int, before: int, end: int) -> int | None:
    """The first position from `place` on with two consecutive frames of a kind, or with a frame that ends the file."""
    place = data.find(b"\xff", place, before)
    while place >= 0:
        frame = frame_at(data, place)
        if frame is not None:
            follower = frame_at(data, place + frame.size)
            if place + frame.size == end or (follower is not None and follower.kind == frame.kind):
                return place
        place = data.find(b"\xff", place + 1, before)
    return None


def _header_at(data: mmap, place: int, frame: Frame) -> bool:
    at = place + 4 + frame.side
    return frame.kind[1] == 3 and data[at : at + 4] in (b"Xing", b"Info")


def _is_silent_header(data: mmap, place: int, frame: Frame) -> bool:
    """Whether this frame holds a VBRI header, which libmpg123 would decode as a frame of silence."""
    return frame.kind[1] == 3 and data[place + 36 : place + 40] == b"VBRI"


def _declared(data: mmap, stream: _Stream) -> tuple[int | None, int | None]:
    """The numbers of frames and bytes that a stream's header declares."""
    if stream.header is None:
        return None, None
    at = stream.header + 4 + stream.frame.side + 4
    flags, *numbers = (int.from_bytes(data[at + i : at + i + 4], "big") for i in (0, 4, 8))
    frames = numbers.pop(0) if flags & _FRAMES else None
    return frames, numbers[0] if flags & _BYTES else None


def _part(data: mmap, stream: _Stream) -> Part:
    """The stream with a correct header; what lies between its frames is left out."""
    frames, size = _declared(data, stream)
    there = sum(end - begin for begin, end in stream.ranges)
    right = frames == stream.frames and (size is None or abs(size - there) < there / 100)
    if stream.frame.kind[1] != 3 or right:
        return tuple(stream.ranges)
    if frames is None or stream.header is None:
        return (_header_frame(data, stream), *stream.ranges)
    (begin, end), *others = stream.ranges
    at = stream.header + 4 + stream.frame.side + 8
    numbers = [stream.frames, *([] if size is None else [there])]
    fixed = b"".join(number.to_bytes(4, "big") for number in numbers)
    return ((begin, at), fixed, (at + len(fixed), end), *others)


def _header_frame(data: mmap, stream: _Stream) -> bytes:
    """A frame without sound that declares how many frames follow."""
    like = bytearray(data[stream.ranges[0][0] : stream.ranges[0][0] + 4])
    like[1] |= 1  # no checksum
    for code in range(1, 15):
        like[2] = code << 4 | like[2] & 0b1100
        frame = frame_of(bytes(like))
        if frame is not None and frame.size >= 4 + stream.frame.side + 12:
            break
    assert frame is not None  # its header is that of a frame
    content = (
        bytes(like) + bytes(stream.frame.side) + b"Xing" + _FRAMES.to_bytes(4, "big") + stream.frames.to_bytes(4, "big")
    )
    return content.ljust(frame.size, b"\0")


def _is_cut(data: mmap, stream: _Stream) -> bool:
    """Whether the header declares more frames and more bytes than there are, at a plausible size per frame."""
    frames, size = _declared(data, stream)
    if frames is None or frames <= stream.frames + _SLACK:
        return False
    present = sum(end - begin for begin, end in stream.ranges)
    typical = present / (stream.frames + 1)
    if size is None:
        size = round(frames * typical)
    return size > present + _SLACK * typical and 0.5 < size / frames / typical < 2
