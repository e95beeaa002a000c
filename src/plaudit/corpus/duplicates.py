"""Files of a corpus with the same content, which would leak from one split into another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from plaudit.corpus.manifest import Entry
from plaudit.prefetch import prefetch
from plaudit.settings import Duplicates
from plaudit.storage import file_digest

THREADS = 16
"""Threads that read files; over a network file system they mostly wait (ours)."""


@dataclass(frozen=True)
class Deduplicated:
    """Entries after their duplicates were dealt with, the number of files that are copies, and a note on them."""

    entries: list[Entry]
    copies: int
    notes: list[str]


def deduplicate(entries: Sequence[Entry], choice: Duplicates) -> Deduplicated:
    """Put the entries of files with the same content into the split of the first, drop all but the first, or neither.

    The first is the first with a caption. Only files of the same size are read.
    """
    usable = [entry for entry in entries if entry.path is not None and not entry.problem]
    groups = _same_content(list(dict.fromkeys(entry.path for entry in usable if entry.path is not None)))
    group_of = {path: number for number, group in enumerate(groups) for path in group}
    leaders: dict[int, Entry] = {}
    for entry in sorted(usable, key=lambda entry: not entry.caption.strip()):
        if entry.path in group_of:
            leaders.setdefault(group_of[entry.path], entry)
    copies = sum(len(group) - 1 for group in groups)
    if not copies:
        return Deduplicated(list(entries), 0, [])
    settled = []
    for entry in entries:
        leader = leaders[group_of[entry.path]] if entry.path in group_of else None
        if leader is None or choice == "separate":
            settled.append(entry)
        elif choice == "together":
            settled.append(replace(entry, split=leader.split))
        elif entry.path == leader.path:
            settled.append(entry)
    outcome = {
        "together": "each is in the split of the file that it copies",
        "drop": "they are left out",
        "separate": "they may be in another split than the file that they copy",
    }[choice]
    first = sorted(map(str, next(iter(groups))))
    note = f"{copies} files are copies of others by content, {outcome}; the first: {first[1]} of {first[0]}"
    return Deduplicated(settled, copies, [note])


def _same_content(paths: Sequence[Path]) -> list[set[Path]]:
    """Groups of two files or more with the same bytes, by the first of each."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path, size in zip(paths, prefetch(_size, paths, depth=4 * THREADS, threads=THREADS), strict=True):
        if size:
            by_size[size].append(path)
    doubtful = [path for same in by_size.values() if len(same) > 1 for path in same]
    by_content: dict[str, set[Path]] = defaultdict(set)
    for path, digest in zip(doubtful, prefetch(_digest, doubtful, depth=THREADS, threads=THREADS), strict=True):
        if digest:
            by_content[digest].add(path)
    return [group for group in by_content.values() if len(group) > 1]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError:
        return ""
