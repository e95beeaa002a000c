"""Candidates for the same prompt in the order of their scores, and the best of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plaudit.reward.scoring import ScoredClip
from plaudit.writing import copy_file


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

    A file appears whole or not at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prompts = {prompt: number for number, prompt in enumerate(dict.fromkeys(r.scored.clip.prompt for r in ranked), 1)}
    width, places = len(str(len(prompts))), len(str(max((r.rank for r in ranked), default=1)))
    copies = []
    for entry in ranked:
        clip = entry.scored.clip
        group = f"{prompts[clip.prompt]:0{width}d}-" if len(prompts) > 1 else ""
        target = folder / f"{group}{entry.rank:0{places}d}-{clip.file.name}"
        copy_file(clip.file, target)
        copies.append(target)
    return copies
