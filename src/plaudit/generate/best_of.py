"""The best of several candidates for each clip that is wanted, by a reward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from plaudit.assets import read_json, write_json
from plaudit.audio import write_file
from plaudit.errors import AudioError
from plaudit.generate.clips import ClipRequest
from plaudit.reward.scoring import Clip, score_clips
from plaudit.types import Reward

CANDIDATES = "candidates"
"""The folder beside the chosen clips where all of them are kept: a run that was stopped continues there."""


def stream_best(
    groups: Sequence[Sequence[ClipRequest]], files: Iterator[Path], reward: Reward, name: str, folder: Path
) -> Iterator[Path]:
    """Copy the best of each group to `folder` under its own name, as soon as its candidates are there; the copies.

    `files` are those of all candidates, group by group, and may be made while they are asked for. The sidecar of a
    chosen clip says of how many it is the best and all their rewards. Of equal candidates the first is taken;
    AudioError where none can be scored.
    """
    for group in groups:
        made = list(islice(files, len(group)))
        rows = score_clips([Clip(file, request.prompt) for file, request in zip(made, group, strict=True)], reward)
        scores = [row.score for row in rows]
        usable = [score for score in scores if score is not None]
        if not usable:
            raise AudioError(f"no candidate for {group[0].prompt[:60]!r} can be scored: {rows[0].error}")
        best = rows[scores.index(max(usable))].clip.file
        target = folder / best.name
        write_file(target, best.read_bytes())
        facts = {"reward": name, "candidates": len(group), "rewards": scores}
        write_json(target.with_suffix(".json"), read_json(best.with_suffix(".json")) | {"best_of": facts})
        yield target
