"""TuneJury's training as published against ours: accuracy and calibration error on held-out votes, paired by seed."""

from __future__ import annotations

import json as jsonlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.synthetic_world import CORPUS_SEED, World, measure_corpus, synthetic_features
from plaudit.reward.training import (
    PUBLISHED_REWARD,
    SYNTHETIC_REWARD,
    RewardSettings,
    SeedStatistics,
    fit_reward,
    seed_statistics,
)
from plaudit.statistics import PairedDifference, paired_difference
from plaudit.synthetic.corpus import SyntheticCorpus
from plaudit.synthetic.listeners import noise_ceiling, sample_vote_pairs

DETAILS: dict[str, dict[str, Any]] = {
    "a forward for each side": {"joint_sides": False},
    "a small last batch": {"even_batches": False},
    "improvements from 1e-4 on": {"min_improvement": 1e-4},
    "the last bin takes the rest": {"even_bins": False},
}
"""The published details that can move accuracy or calibration error."""

TUNEJURY_REWARD = replace(PUBLISHED_REWARD, joint_sides=True, even_batches=True, min_improvement=0.0, even_bins=True)
"""The published sizes and rates with our details."""


@dataclass(frozen=True)
class PresetRow:
    """Metrics of a training by seed, and their differences from the published one with the same votes and seed."""

    name: str
    accuracies: list[float]
    calibration_errors: list[float]
    epochs: list[int]
    accuracy: SeedStatistics
    calibration_error: SeedStatistics
    accuracy_gain: PairedDifference | None
    calibration_error_change: PairedDifference | None


def compare(
    world: World,
    train_clips: int,
    votes: int,
    test_votes: int,
    seeds: Sequence[int],
    trainings: Mapping[str, RewardSettings],
    say: Callable[[str], None] = print,
) -> tuple[float, list[PresetRow]]:
    """The accuracy of the true utility on the held-out votes, and a row for each training; the first is compared with.

    Trained on votes between the first `train_clips` clips, tested on votes between the others. A seed draws votes and
    weights; the held-out votes are the same for all.
    """
    seen, others = world.corpus.clips[:train_clips], world.corpus.clips[train_clips:]
    pairs = sample_vote_pairs(others, test_votes, seed=1000, group="test")
    test = world.votes(pairs, seed=1000)
    parts = {}
    for seed in seeds:
        train = world.votes(sample_vote_pairs(seen, votes, seed, group="train"), seed)
        stop = world.votes(sample_vote_pairs(seen, max(20, votes // 10), seed + 500, group="stop"), seed + 500)
        parts[seed] = (train, stop)
    rows: list[PresetRow] = []
    for name, settings in trainings.items():
        fitted = [fit_reward(*parts[seed], test, world.store, replace(settings, seed=seed)) for seed in seeds]
        accuracies = [one.metrics.accuracy for one in fitted]
        errors = [one.metrics.calibration_error for one in fitted]
        first = rows[0] if rows else None
        rows.append(
            PresetRow(
                name,
                accuracies,
                errors,
                [len(one.history.epochs) for one in fitted],
                seed_statistics(accuracies),
                seed_statistics(errors),
                _difference(accuracies, first.accuracies) if first else None,
                _difference(errors, first.calibration_errors) if first else None,
            )
        )
        say(f"{name}: accuracy {rows[-1].accuracy.mean:.3f}, ECE {rows[-1].calibration_error.mean:.3f}")
    return noise_ceiling(*world.utilities(pairs), test), rows


def _difference(a: Sequence[float], b: Sequence[float]) -> PairedDifference | None:
    """The paired difference; None where every seed has the same."""
    return paired_difference(a, b) if len({x - y for x, y in zip(a, b, strict=True)}) > 1 else None


def main(
    clips: Annotated[int, typer.Option(help="A fifth of them is held out.")] = 600,
    votes: Annotated[int, typer.Option(help="Training votes.")] = 1500,
    test_votes: int = 2000,
    seeds: int = 5,
    details: Annotated[bool, typer.Option("--details", help="Ours with each published detail alone.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Keeps the clips' features. Default: a temporary one.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train rewards on synthetic votes with each preset and print accuracy and calibration error over seeds.

    Differences are from the first row, seed by seed. The synthetic CLAP takes audio at 16 kHz, so that the published
    way through 16 kHz makes no difference here.
    """
    say: Callable[[str], None] = (lambda line: typer.echo(line, err=True)) if json else print
    trainings = {"published": PUBLISHED_REWARD, "its sizes, our details": TUNEJURY_REWARD, "ours": SYNTHETIC_REWARD}
    if details:
        alone = {name: replace(SYNTHETIC_REWARD, **change) for name, change in DETAILS.items()}
        trainings = {"ours": SYNTHETIC_REWARD, **alone}
    with tempfile.TemporaryDirectory() as temporary:
        world = measure_corpus(
            SyntheticCorpus(clips, 10.0, CORPUS_SEED), synthetic_features(), folder or Path(temporary), say
        )
        ceiling, rows = compare(world, clips * 4 // 5, votes, test_votes, range(seeds), trainings, say)
    if json:
        print(jsonlib.dumps({"ceiling": ceiling, "votes": votes, "rows": [asdict(row) for row in rows]}, indent=2))
        return
    print(f"ceiling {ceiling:.3f}; mean over {seeds} seeds, difference from {rows[0].name} with its 95 % interval")
    for row in rows:
        parts = [f"{row.name:28}", f"{row.accuracy.mean:.4f} ± {row.accuracy.std:.4f}"]
        parts += [_text(row.accuracy_gain), f"{row.calibration_error.mean:.4f} ± {row.calibration_error.std:.4f}"]
        print("  ".join([*parts, _text(row.calibration_error_change)]))


def _text(gap: PairedDifference | None) -> str:
    if gap is None:
        return " " * 28
    value = gap.difference
    return f"{value.mean:+.4f} [{value.low:+.4f}, {value.high:+.4f}] p {gap.p_t:.3f}"


if __name__ == "__main__":
    typer.run(main)
