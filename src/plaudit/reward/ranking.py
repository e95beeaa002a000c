"""Candidates for the same prompt in the order of their scores, and the best of each."""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plaudit.errors import AudioError
from plaudit.reward.scoring import ScoredClip
from plaudit.sidecars import sidecar_path
from plaudit.writing import create_file


@dataclass(frozen=True)
class Ranked:
    """A candidate's place among those of its prompt (1 is best, of `candidates`), and its lead over the next.

    margin: score minus that of the next candidate, kept or not; None for the last.
    """

    scored: ScoredClip
    rank: int
    candidates: int
    margin: float | None


def rank_clips(scored: Sequence[ScoredClip], keep: int) -> list[Ranked]:
    """The best `keep` of each prompt, prompts in order of appearance; equal scores stay in the order given.

    Clips without a score have no rank.
    """
    groups: dict[str, list[tuple[float, ScoredClip]]] = {}
    for row in scored:
        if row.score is not None:
            groups.setdefault(row.clip.prompt, []).append((row.score, row))
    ranked = []
    for group in groups.values():
        order = sorted(group, key=lambda pair: -pair[0])
        for place, (score, row) in enumerate(order[:keep], start=1):
            margin = score - order[place][0] if place < len(order) else None
            ranked.append(Ranked(row, place, len(order), margin))
    return ranked


def copy_ranked(ranked: Sequence[Ranked], folder: Path) -> list[Path]:
    """Copy each file as `<rank>-<name>`, or `<prompt>-<rank>-<name>` with several prompts, counted from 1.

    A file's sidecar is copied with it. A file appears whole or not at all, and none is replaced: AudioError, before
    anything is copied, where a name is taken by another file.
    """
    prompts = {prompt: number for number, prompt in enumerate(dict.fromkeys(r.scored.clip.prompt for r in ranked), 1)}
    width, places = len(str(len(prompts))), len(str(max((r.rank for r in ranked), default=1)))
    copies, pairs = [], []
    for entry in ranked:
        clip = entry.scored.clip
        group = f"{prompts[clip.prompt]:0{width}d}-" if len(prompts) > 1 else ""
        target = folder / f"{group}{entry.rank:0{places}d}-{clip.file.name}"
        copies.append(target)
        pairs.append((clip.file, target))
        if clip.file.suffix != ".json" and sidecar_path(clip.file).is_file():
            pairs.append((sidecar_path(clip.file), sidecar_path(target)))
    if taken := [target for source, target in pairs if target.exists() and not _same(source, target)]:
        raise AudioError(f"{taken[0]} is there and is another file; copy into another folder, nothing was copied")
    for source, target in pairs:
        _copy(source, target)
    return copies


def _copy(source: Path, target: Path) -> None:
    try:
        create_file(target, source.read_bytes())
    except FileExistsError:
        if not _same(source, target):
            raise AudioError(f"{target} was written by another process meanwhile; copy into another folder") from None


def _same(source: Path, target: Path) -> bool:
    return target.is_file() and filecmp.cmp(source, target, shallow=False)
