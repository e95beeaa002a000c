"""How many votes a reward needs: held-out accuracy against the ceiling that the listeners' own noise sets.

`python -m benchmarks.reward_learning_curve` writes learning-curve.json and learning-curve.svg.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from matplotlib.axes import Axes

from benchmarks.synthetic_world import CORPUS_SEED, World, few_votes_batch, heard, synthetic_features
from plaudit.evaluate.pages.charts import Series, lines, save_chart
from plaudit.reward.training import SYNTHETIC_REWARD, RewardSettings, SeedStatistics, fit_seeds, seed_statistics
from plaudit.statistics import Interval
from plaudit.storage import write_json
from plaudit.synthetic.corpus import SyntheticCorpus
from plaudit.synthetic.listeners import noise_ceiling, sample_vote_pairs


@dataclass(frozen=True)
class Point:
    """A reward from `votes` votes: over the seeds, its accuracy on held-out votes and its calibration error."""

    votes: int
    accuracy: SeedStatistics
    calibration_error: SeedStatistics
    accuracies: list[float]


@dataclass(frozen=True)
class LearningCurve:
    """Points by number of votes. ceiling: accuracy on the same held-out votes of knowing every clip's true utility."""

    ceiling: float
    held_out: int
    points: list[Point]


def learning_curve(
    world: World,
    train_clips: int,
    counts: Sequence[int],
    seeds: Sequence[int],
    test_votes: int,
    settings: RewardSettings = SYNTHETIC_REWARD,
    say: Callable[[str], None] = print,
) -> LearningCurve:
    """Train on votes between the first `train_clips` clips of `world`, test on votes between the others.

    A tenth as many votes on the same clips say when to stop. A seed draws other votes and other weights; the held-out
    votes are the same for all.
    """
    seen, others = world.corpus.clips[:train_clips], world.corpus.clips[train_clips:]
    pairs = sample_vote_pairs(others, test_votes, seed=1000, group="test")
    test = world.votes(pairs, seed=1000)
    points = []
    for count in counts:
        accuracies, errors = [], []
        for seed in seeds:
            train = world.votes(sample_vote_pairs(seen, count, seed, group="train"), seed)
            beside = world.votes(sample_vote_pairs(seen, max(20, count // 10), seed + 500, group="stop"), seed + 500)
            own = replace(settings, batch_size=few_votes_batch(settings.batch_size, count))
            fitted = fit_seeds(train, beside, test, world.store, own, [seed]).best
            accuracies.append(fitted.metrics.accuracy)
            errors.append(fitted.metrics.calibration_error)
        points.append(Point(count, seed_statistics(accuracies), seed_statistics(errors), accuracies))
        say(f"{count} votes: accuracy {points[-1].accuracy.mean:.3f} +- {points[-1].accuracy.std:.3f}")
    return LearningCurve(noise_ceiling(*world.utilities(pairs), test), len(test), points)


def draw(curve: LearningCurve, path: Path) -> None:
    """The curve with one standard deviation over seeds, under its ceiling."""
    x = [float(point.votes) for point in curve.points]
    learned = [point.accuracy for point in curve.points]
    reward = [Interval(a.mean, a.mean - a.std, a.mean + a.std) for a in learned]
    ceiling = [Interval(curve.ceiling, curve.ceiling, curve.ceiling)] * len(x)

    def both(axes: Axes) -> None:
        axes.set_xscale("log")
        lines([Series("ceiling", 0, x, ceiling), Series("reward", 1, x, reward)], "training votes")(axes)
        axes.set_ylabel("held-out accuracy")
        axes.set_xticks(x, [f"{point.votes:,}" for point in curve.points])
        axes.minorticks_off()

    save_chart(both, path)


def main() -> None:
    """Run at the size asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/reward-studies"))
    parser.add_argument("--clips", type=int, default=1500, help="a fifth of them is held out")
    parser.add_argument("--votes", type=int, nargs="+", default=[100, 300, 1000, 3000, 10000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test-votes", type=int, default=2000)
    asked = parser.parse_args()
    world = heard(SyntheticCorpus(asked.clips, 10.0, CORPUS_SEED), synthetic_features(), asked.output)
    curve = learning_curve(world, asked.clips * 4 // 5, asked.votes, range(asked.seeds), asked.test_votes)
    write_json(asked.output / "learning-curve.json", asdict(curve))
    draw(curve, asked.output / "learning-curve.svg")
    print(f"ceiling {curve.ceiling:.3f} on {curve.held_out} votes")


if __name__ == "__main__":
    main()
