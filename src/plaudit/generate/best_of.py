"""The best of several candidates for each clip that is wanted, by a reward."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from plaudit.assets import read_json, write_json
from plaudit.errors import AudioError
from plaudit.generate.clips import ClipRequest
from plaudit.reward.scoring import Clip, score_clips
from plaudit.types import Reward

CANDIDATES = "candidates"
"""The folder beside the chosen clips where all of them are kept: a run that was stopped continues there."""


def keep_best(
    groups: Sequence[Sequence[ClipRequest]],
    make: Callable[[list[ClipRequest], Path], list[Path]],
    reward: Reward,
    name: str,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Make all candidates, and copy the best of each group to `folder` under its own name; the copies.

    make(requests, folder) writes the candidates' files, in their order. The sidecar of a chosen clip says of how many
    it is the best and all their rewards. Of equal candidates the first is taken; AudioError where none can be scored.
    """
    requests = [request for group in groups for request in group]
    files = make(requests, folder / CANDIDATES)
    clips = [Clip(file, request.prompt) for file, request in zip(files, requests, strict=True)]
    scored = iter(score_clips(clips, reward, progress=progress))
    chosen = []
    for group in groups:
        rows = [next(scored) for _ in group]
        scores = [row.score for row in rows]
        usable = [score for score in scores if score is not None]
        if not usable:
            raise AudioError(f"no candidate for {group[0].prompt[:60]!r} can be scored: {rows[0].error}")
        best = rows[scores.index(max(usable))].clip.file
        target = folder / best.name
        shutil.copyfile(best, target)
        facts = {"reward": name, "candidates": len(group), "rewards": scores}
        write_json(target.with_suffix(".json"), read_json(best.with_suffix(".json")) | {"best_of": facts})
        chosen.append(target)
    return chosen
