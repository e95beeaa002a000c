"""The structure of audio files: the streams in a file and their lengths, without decoding it.

Headers are wrong more often than the data behind them: written before the length was known, or copied from another
file. `layout_of` locates everything that can be read.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from plaudit.containers import chunks, flac, mpeg, ogg
from plaudit.containers.layout import Layout, Part, Splice, leading

__all__ = ["MPEG_SUFFIXES", "Layout", "Part", "Splice", "layout_of"]

MPEG_SUFFIXES = (".mp3", ".mp2", ".mpga")
"""Files that are searched for MPEG frames even if they do not begin with one."""


def layout_of(path: Path) -> Layout:
    """The streams in a file; an empty layout for other formats."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        begin = leading(data)
        magic = data[begin : begin + 4]
        if magic == ogg.MAGIC and not begin:
            return ogg.layout(data)
        if magic == flac.MAGIC:
            return flac.layout(data)
        layout = chunks.layout(data)
        if layout is None and (path.suffix.lower() in MPEG_SUFFIXES or mpeg.frame_at(data, begin) is not None):
            layout = mpeg.layout(data)
        return layout or Layout()
