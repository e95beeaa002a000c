"""Prompts of an evaluation, drawn from the captions of a data set."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from plaudit.corpus.manifest import Entry
from plaudit.errors import CorpusError


def draw_prompts(entries: Sequence[Entry], count: int, seed: int) -> list[str]:
    """The captions of `count` tracks, one each, in the order of their files; tracks and captions are drawn by `seed`.

    CorpusError where there are fewer tracks.
    """
    captions: dict[Path, list[str]] = {}
    for entry in entries:
        if entry.path is not None and not entry.problem:
            captions.setdefault(entry.path, []).append(entry.caption)
    if len(captions) < count:
        raise CorpusError(f"the data set has {len(captions)} captioned tracks for {count} prompts; lower --count")
    dice = random.Random(seed)
    tracks = sorted(dice.sample(sorted(captions), count))
    return [dice.choice(sorted(captions[track])) for track in tracks]
