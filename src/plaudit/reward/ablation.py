"""Ablations of TuneJury's head: rewards of some of its inputs, and rewards trained without one source of votes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from plaudit.errors import ModelError, VoteError
from plaudit.reward.features import FeatureStore
from plaudit.reward.training import RewardSettings, SeedStatistics, fit_reward, seed_statistics
from plaudit.reward.votes import usable_votes
from plaudit.storage import digest_of, read_json, write_json
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
"""TuneJury's: CLAP audio, the second audio encoder, text, their pairs, and all. A3 has no audio, and both clips of a
vote have the same prompt: its margins are zero and its accuracy a half by construction."""

CODE_VERSION = 1
"""Increased where the same settings come to mean another training, so that earlier cells are trained again."""


@dataclass(frozen=True)
class AblationCondition:
    """One row of the table: the head's blocks and the source that is left out of training, if any.

    A row without a source is tested on that source's votes alone.
    """

    name: str
    blocks: tuple[str, ...]
    without: str | None = None


@dataclass(frozen=True)
class AblationRow:
    """Metrics of a condition on `votes` test votes that are not ties, over the seeds."""

    name: str
    blocks: tuple[str, ...]
    without: str | None
    votes: int
    accuracy: SeedStatistics
    calibration_error: SeedStatistics
    accuracies: list[float]


def conditions(votes: Sequence[Vote], blocks: tuple[str, ...]) -> list[AblationCondition]:
    """A1 to A7 and, where votes come from more than one source, leaving each out of a reward of `blocks`."""
    rows = [AblationCondition(name, inputs) for name, inputs in INPUT_ABLATIONS.items()]
    sources = sorted({vote.source for vote in votes})
    if len(sources) > 1:
        rows += [AblationCondition(f"without {source or 'a source'}", blocks, source) for source in sources]
    return rows


def run_ablation(
    train: Sequence[Vote],
    validation: Sequence[Vote],
    test: Sequence[Vote],
    store: FeatureStore,
    settings: RewardSettings,
    seeds: Sequence[int],
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> list[AblationRow]:
    """Train every condition with every seed on the stored features; cells in `folder`/cells are not trained again.

    A cell's file is named by a digest of everything it depends on: settings, votes, encoders. A source that cannot be
    left out, because training, validation or test would have ties alone, has no row.
    """
    usable = [usable_votes(part, store) for part in (train, validation, test)]
    split = [(condition, _parts(usable, condition.without)) for condition in conditions(usable[2], settings.blocks)]
    split = [row for row in split if all(any(vote.winner != "tie" for vote in part) for part in row[1])]
    if not split:
        raise VoteError("training, validation and test each need a vote that is not a tie; give more votes")
    rows, done = [], 0
    for condition, parts in split:
        cells = []
        for seed in seeds:
            cells.append(_cell(condition, parts, store, replace(settings, blocks=condition.blocks, seed=seed), folder))
            done += 1
            if progress is not None:
                progress(done, len(split) * len(seeds))
        accuracies = [cell["accuracy"] for cell in cells]
        errors = seed_statistics([cell["calibration_error"] for cell in cells])
        rows.append(
            AblationRow(
                condition.name,
                condition.blocks,
                condition.without,
                cells[0]["decided"],
                seed_statistics(accuracies),
                errors,
                accuracies,
            )
        )
    return rows


def _parts(usable: list[list[Vote]], left_out: str | None) -> list[list[Vote]]:
    """Training, validation and test votes of a condition."""
    if left_out is None:
        return usable
    train, validation = ([vote for vote in part if vote.source != left_out] for part in usable[:2])
    return [train, validation, [vote for vote in usable[2] if vote.source == left_out]]


def _cell(
    condition: AblationCondition, parts: list[list[Vote]], store: FeatureStore, settings: RewardSettings, folder: Path
) -> dict[str, Any]:
    identity = {
        "code": CODE_VERSION,
        "settings": asdict(settings),
        "encoders": store.features.clip_identity,
        "votes": [[asdict(vote) for vote in part] for part in parts],
    }
    path = folder / "cells" / f"{digest_of(identity)[:24]}.json"
    if path.exists():
        try:
            done: dict[str, Any] = read_json(path)
            return done
        except ModelError:
            path.unlink()
    train, validation, test = parts
    fitted = fit_reward(train, validation, test, store, settings)
    cell = {"condition": condition.name, "seed": settings.seed, **asdict(fitted.metrics)}
    write_json(path, cell)
    return cell
