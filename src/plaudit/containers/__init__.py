"""The structure of audio files: the streams in a file and their lengths, without decoding it.

Headers are wrong more often than the data behind them: written before the length was known, or copied from another
file. `layout_of` says how to read everything that is there.
"""

from plaudit.containers.find import MPEG_SUFFIXES, layout_of
from plaudit.containers.layout import Layout, Part
from plaudit.containers.splice import Splice

__all__ = ["MPEG_SUFFIXES", "Layout", "Part", "Splice", "layout_of"]
