"""The best of several candidates for each clip that is wanted, by a reward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from plaudit.errors import AudioError
from plaudit.generate.clips import ClipRequest, publish_clip
from plaudit.generate.names import distinct_names, facts_of
from plaudit.reward.scoring import Clip, score_clips
from plaudit.sidecars import read_sidecar
from plaudit.types import Reward


def stream_best_of(
    groups: Sequence[Sequence[ClipRequest]], files: Iterator[Path], reward: Reward, name: str, folder: Path
) -> Iterator[Path]:
    """Copy the best of each group to `folder` as soon as its candidates are there; the copies.

    `files` are those of all candidates, group by group, and may be made while they are asked for. The sidecar of a
    chosen clip says of how many it is the best and all their rewards. Of equal candidates the first is taken. Names are
    those of `plaudit.generate.names`, so that nothing of another clip is replaced. AudioError where none can be scored.
    """
    names: Iterator[str] | None = None
    for group in groups:
        candidates = list(islice(files, len(group)))
        clips = [Clip(file, request.prompt) for file, request in zip(candidates, group, strict=True)]
        rows = score_clips(clips, reward)
        scores = [row.score for row in rows]
        usable = [score for score in scores if score is not None]
        if not usable:
            raise AudioError(f"no candidate for {group[0].prompt[:60]!r} can be scored: {rows[0].error}")
        place = scores.index(max(usable))
        best = candidates[place]
        sidecar = read_sidecar(best)
        if names is None:  # all candidates differ in prompt and seed alone
            requests = list(chain.from_iterable(groups))
            shared = facts_of(sidecar)
            facts = [{**shared, "prompt": request.prompt, "seed": request.seed} for request in requests]
            names = iter(distinct_names(folder, requests, facts))
        target = folder / f"{list(islice(names, len(group)))[place]}{best.suffix}"
        sidecar["best_of"] = {"reward": name, "candidates": len(group), "rewards": scores}
        yield publish_clip(target, best.read_bytes(), group[place], sidecar)
