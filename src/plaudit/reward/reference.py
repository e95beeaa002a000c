"""Where a score lies among those of a reference set."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path

from plaudit.assets import read_json, write_json
from plaudit.errors import ModelError
from plaudit.reward.scoring import ScoredClip


class Reference:
    """The scores of a set of clips by one reward, known by `identity`; `name` says what was compared with."""

    def __init__(self, name: str, identity: str, scores: Sequence[float]) -> None:
        if not scores:
            raise ModelError(f"reference {name} has no scores; give audio that can be scored")
        self.name, self.identity, self.scores = name, identity, sorted(scores)

    @property
    def definition(self) -> str:
        """What a percentile against this reference means."""
        return f"mid-rank among {len(self.scores)} scores of {self.name}: % below, equal ones counted half"

    def percentile(self, score: float) -> float:
        """In 0..100: the share of reference scores below `score`, equal ones counted half."""
        below, not_above = bisect_left(self.scores, score), bisect_right(self.scores, score)
        return 100 * (below + not_above) / 2 / len(self.scores)


def reference_of(name: str, identity: str | None, scored: Sequence[ScoredClip]) -> Reference:
    """The reference that scored clips make; ModelError for a reward that cannot say what its weights are."""
    if identity is None:
        raise ModelError("this reward has no attribute identity, so no reference can be told to be of it; give it one")
    return Reference(name, identity, [row.score for row in scored if row.score is not None])


def save_reference(path: Path, reference: Reference) -> None:
    """Write a reference as JSON, whole or not at all."""
    write_json(path, {"kind": "reference", "reward": reference.identity, "scores": reference.scores})


def load_reference(path: Path, identity: str | None) -> Reference:
    """Read a reference for the reward with `identity`; ModelError where it is damaged or of another reward."""
    content = read_json(path)
    try:
        made_with, scores = content["reward"], [float(score) for score in content["scores"]]
        if content["kind"] != "reference" or not all(map(math.isfinite, scores)):
            raise ValueError("not finite scores")
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ModelError(f"{path} is not a reference; write one with plaudit score --save-reference") from None
    if made_with != identity:
        raise ModelError(f"{path} was made with another reward; make it again with --save-reference and this one")
    return Reference(str(path), made_with, scores)
