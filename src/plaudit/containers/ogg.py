"""Ogg: pages, and the links of a chained file (RFC 3533)."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from mmap import mmap

from plaudit.containers.layout import Layout

MAGIC = b"OggS"
HEADER = struct.Struct("<4sBBqIIIB")
"""Capture pattern, version, flags, granule position, serial number, sequence number, checksum, number of segments."""

FIRST = 2
"""Flag of the first page of a stream."""

SLACK = 0.05
"""Seconds that a file with damaged pages may lack (ours). If all pages are intact, nothing is missing: the last granule
position, from which libsndfile computes lengths, is often late."""

LARGEST_PACKET = 1 << 16
"""Samples that a packet of FLAC, the codec with the longest, decodes to at most."""

_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class Page:
    """An intact page, from byte `start` of the file up to `end`."""

    start: int
    end: int
    flags: int
    granule: int
    serial: int
    sequence: int
    packets: int


def layout(data: mmap) -> Layout:
    """Each link of the chain is a part. The file is truncated if the last page begins but does not end."""
    links: list[list[Page]] = []
    for page in pages(data):
        begins = bool(page.flags & FIRST)
        if not links or (begins and not links[-1][-1].flags & FIRST):
            links.append([])
        links[-1].append(page)
    if not links:
        return Layout(cut=True)
    is_intact = len(links) == 1 and links[0][0].start == 0 and links[0][-1].end == len(data)
    parts = [] if is_intact else [((link[0].start, link[-1].end),) for link in links]
    damaged = any(_is_damaged(link) for link in links)
    limit = sum(_most_samples(data, link) for link in links)
    return Layout([part for part in parts], _is_cut(data, links[-1]), limit, SLACK if damaged else math.inf)


def pages(data: mmap) -> Iterator[Page]:
    """The intact pages of a file; anything between them is skipped."""
    place = data.find(MAGIC)
    while place >= 0:
        page = _page_at(data, place)
        if page is not None:
            yield page
        following = place + 1 if page is None else page.end
        place = data.find(MAGIC, following)


def checksum(page: bytes) -> int:
    """Ogg's CRC-32 of a page whose checksum field is zero: zlib's, with bytes and result in reverse bit order."""
    reflected = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)


def _page_at(data: mmap, place: int) -> Page | None:
    header = data[place : place + HEADER.size]
    if len(header) < HEADER.size:
        return None
    _, version, flags, granule, serial, sequence, stored, segments = HEADER.unpack(header)
    lacing = data[place + HEADER.size : place + HEADER.size + segments]
    end = place + HEADER.size + segments + sum(lacing)
    if version != 0 or len(lacing) < segments or end > len(data):
        return None
    if checksum(header[:22] + bytes(4) + data[place + 26 : end]) != stored:
        return None
    packets = sum(length < 255 for length in lacing)
    return Page(place, end, flags, granule, serial, sequence, packets)


def _is_damaged(link: list[Page]) -> bool:
    """Whether pages are missing or damaged between the first audio page and the last. The recording of a broadcast may
    start with any page after its headers."""
    if any(after.start != before.end for before, after in pairwise(link)):
        return True
    last: dict[int, Page] = {}
    for page in link:
        before = last.get(page.serial)
        if before is not None and before.granule > 0 and page.sequence != before.sequence + 1:
            return True
        last[page.serial] = page
    return False


def _is_cut(data: mmap, link: list[Page]) -> bool:
    """Whether the last intact page is followed by the beginning of its successor."""
    last = link[-1]
    tail = data[last.end : last.end + HEADER.size]
    expected = MAGIC + b"\0"
    if not tail or tail[: len(expected)] != expected[: len(tail)]:
        return False
    following = struct.pack("<II", last.serial, (last.sequence + 1) & 0xFFFFFFFF)
    return tail[14:22] == following[: len(tail[14:22])]


def _most_samples(data: mmap, link: list[Page]) -> int:
    """A bound on a link's samples: no packet advances the granule position by more than its codec can decode, and those
    of the last page, whose position is the one that may be wrong, by little more than those before."""
    body = data[link[0].start + HEADER.size + data[link[0].start + 26] :][:32]
    if body[:7] == b"\x01vorbis":
        largest = 1 << (body[28] >> 4)
    elif body[:8] == b"OpusHead":
        largest = 5760
    else:
        largest = LARGEST_PACKET
    ending = [page for page in link if page.granule >= 0 and page.packets]
    most = 0
    usual = 0.0
    for before, page in pairwise(ending):
        moved = page.granule - before.granule
        bound = largest * page.packets
        if page is ending[-1] and usual:
            bound = min(bound, largest + math.ceil(usual * page.packets))
        most += min(bound, moved) if moved >= 0 else 0
        if 0 < moved <= bound:
            usual = max(usual, moved / page.packets)
    return most + largest
