"""What the reward owes to each of its inputs and to each source of votes: TuneJury's ablations, seed by seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from plaudit.assets import read_json, write_json
from plaudit.errors import ModelError, VoteError
from plaudit.reward.fit import fit_reward, usable_votes
from plaudit.reward.seeds import Spread, spread
from plaudit.reward.store import FeatureStore
from plaudit.reward.training import RewardSettings
from plaudit.types import Vote

INPUT_ABLATIONS = {
    "A1": ("clap_audio",),
    "A2": ("audio",),
    "A3": ("clap_text",),
    "A4": ("clap_audio", "audio"),
    "A5": ("clap_audio", "clap_text"),
    "A6": ("audio", "clap_text"),
    "A7": ("clap_audio", "audio", "clap_text"),
}
"""TuneJury's: CLAP audio, the second listener, text, their pairs, and all. A3 hears nothing, and both clips of a vote
have the same prompt: its margins are zero and its accuracy a half by construction."""

CODE_VERSION = 1
"""Counts up where the same settings come to mean another training, so that cells made before are made again."""


@dataclass(frozen=True)
class Condition:
    """One row of the table: the blocks that the head sees and, where a source is left out of training, which.

    Such a row is tested on that source's votes alone.
    """

    name: str
    blocks: tuple[str, ...]
    without: str | None = None


@dataclass(frozen=True)
class AblationRow:
    """Figures of a condition on `votes` decided test votes, over the seeds."""

    name: str
    blocks: tuple[str, ...]
    without: str | None
    votes: int
    accuracy: Spread
    calibration_error: Spread
    accuracies: list[float]


def conditions(votes: Sequence[Vote], blocks: tuple[str, ...]) -> list[Condition]:
    """A1 to A7 and, where votes come from more than one source, leaving each out of a reward that sees `blocks`."""
    rows = [Condition(name, own) for name, own in INPUT_ABLATIONS.items()]
    sources = sorted({vote.source for vote in votes})
    if len(sources) > 1:
        rows += [Condition(f"without {source or 'a source'}", blocks, source) for source in sources]
    return rows


def ablate(
    train: Sequence[Vote],
    validation: Sequence[Vote],
    test: Sequence[Vote],
    store: FeatureStore,
    settings: RewardSettings,
    seeds: Sequence[int],
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> list[AblationRow]:
    """Train every condition with every seed on one extraction; cells that are in `folder`/cells are not made again.

    A cell's file is named by a digest of everything it depends on: settings, votes, encoders. A source that cannot be
    left out, because training, validation or test would have no decided vote, has no row.
    """
    usable = {
        "train": usable_votes(train, store),
        "validation": usable_votes(validation, store),
        "test": usable_votes(test, store),
    }
    split = [(condition, _parts(usable, condition)) for condition in conditions(usable["test"], settings.blocks)]
    wanted = [row for row in split if all(any(vote.winner != "tie" for vote in part) for part in row[1])]
    if not wanted:
        raise VoteError("training, validation and test each need a vote that is not a tie; give more votes")
    rows, done = [], 0
    for condition, parts in wanted:
        cells = []
        for seed in seeds:
            cells.append(_cell(condition, parts, store, replace(settings, blocks=condition.blocks, seed=seed), folder))
            done += 1
            if progress is not None:
                progress(done, len(wanted) * len(seeds))
        accuracies = [cell["accuracy"] for cell in cells]
        errors = spread([cell["calibration_error"] for cell in cells])
        rows.append(
            AblationRow(
                condition.name,
                condition.blocks,
                condition.without,
                cells[0]["decided"],
                spread(accuracies),
                errors,
                accuracies,
            )
        )
    return rows


def _parts(usable: dict[str, list[Vote]], condition: Condition) -> tuple[list[Vote], list[Vote], list[Vote]]:
    left_out = condition.without
    if left_out is None:
        return usable["train"], usable["validation"], usable["test"]
    seen, stopping = ([v for v in usable[part] if v.source != left_out] for part in ("train", "validation"))
    return seen, stopping, [vote for vote in usable["test"] if vote.source == left_out]


def _cell(
    condition: Condition,
    parts: tuple[list[Vote], list[Vote], list[Vote]],
    store: FeatureStore,
    settings: RewardSettings,
    folder: Path,
) -> dict[str, Any]:
    made_of = {
        "code": CODE_VERSION,
        "settings": asdict(settings),
        "encoders": store.features.clip_identity,
        "votes": [[asdict(vote) for vote in part] for part in parts],
    }
    path = folder / "cells" / f"{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:24]}.json"
    if path.exists():
        try:
            found: dict[str, Any] = read_json(path)
            return found
        except ModelError:
            path.unlink()
    fitted = fit_reward(*parts, store, settings)
    cell = {"condition": condition.name, "seed": settings.seed, **asdict(fitted.metrics)}
    write_json(path, cell)
    return cell
