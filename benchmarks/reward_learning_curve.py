"""Accuracy of the reward on held-out votes by number of training votes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from matplotlib.axes import Axes

from benchmarks.synthetic_world import CORPUS_SEED, World, few_votes_batch, measure_corpus, synthetic_features
from plaudit.evaluate.pages.charts import Series, lines, save_chart
from plaudit.reward.training import SYNTHETIC_REWARD, RewardSettings, SeedStatistics, fit_seeds, seed_statistics
from plaudit.statistics import Interval
from plaudit.storage import write_json
from plaudit.synthetic.corpus import SyntheticCorpus
from plaudit.synthetic.listeners import noise_ceiling, sample_vote_pairs

VOTES = [100, 300, 1000, 3000, 10000]


@dataclass(frozen=True)
class Point:
    """Accuracy on held-out votes and calibration error of rewards from `votes` votes, over seeds."""

    votes: int
    accuracy: SeedStatistics
    calibration_error: SeedStatistics
    accuracies: list[float]


@dataclass(frozen=True)
class LearningCurve:
    """Points by number of votes. ceiling: the accuracy of the true utility on the same held-out votes."""

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

    Early stopping uses a tenth as many votes on the same clips. Each seed draws votes and weights; the held-out votes
    are the same for all.
    """
    seen, others = world.corpus.clips[:train_clips], world.corpus.clips[train_clips:]
    pairs = sample_vote_pairs(others, test_votes, seed=1000, group="test")
    test = world.votes(pairs, seed=1000)
    points = []
    for count in counts:
        accuracies, errors = [], []
        for seed in seeds:
            train = world.votes(sample_vote_pairs(seen, count, seed, group="train"), seed)
            stop = world.votes(sample_vote_pairs(seen, max(20, count // 10), seed + 500, group="stop"), seed + 500)
            fit = replace(settings, batch_size=few_votes_batch(settings.batch_size, count))
            fitted = fit_seeds(train, stop, test, world.store, fit, [seed]).best
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


def main(
    output: Annotated[Path, typer.Option("-o", "--output")] = Path("out/reward-studies"),
    clips: Annotated[int, typer.Option(help="A fifth of them is held out.")] = 1500,
    votes: Annotated[list[int], typer.Option(help="Numbers of training votes; repeat.")] = VOTES,
    seeds: int = 3,
    test_votes: int = 2000,
) -> None:
    """Train rewards on growing numbers of votes, and write learning-curve.json and learning-curve.svg.

    The ceiling is the accuracy of the true utility, which listener noise limits.
    """
    world = measure_corpus(SyntheticCorpus(clips, 10.0, CORPUS_SEED), synthetic_features(), output)
    curve = learning_curve(world, clips * 4 // 5, votes, range(seeds), test_votes)
    write_json(output / "learning-curve.json", asdict(curve))
    draw(curve, output / "learning-curve.svg")
    print(f"ceiling {curve.ceiling:.3f} on {curve.held_out} votes")


if __name__ == "__main__":
    typer.run(main)
