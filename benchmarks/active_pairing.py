"""Votes that active pairing needs for the accuracy that random pairing has after a number of votes.

Simulated systems with normal strengths, votes by Davidson's model. Accuracy is the fraction of two systems whose order
the estimated strengths have right. Each seed is the mean of several tests, each with systems of its own; the ratio of
votes is that of the mean accuracies over seeds, with a bootstrap interval over seeds.

    python -m benchmarks.active_pairing --systems 8 --votes 300 --seeds 20
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import numpy as np
import typer

from plaudit.statistics import bootstrap_statistic
from plaudit.studio.listening.active import EXPLORATION, RANKING_PRIOR_SD, ranking_information
from plaudit.studio.listening.statistics import fit_bradley_terry

TIE = 0.3
"""Davidson's parameter of the simulated listeners: between equals 13 % of the votes are ties."""


def accuracies(seed: int, tests: int, systems: int, votes: int, active: bool, every: int, spread: float) -> np.ndarray:
    """The mean accuracy over `tests` simulated tests after each `every` votes: [votes // every]."""
    strengths = spread * np.random.default_rng(seed).standard_normal((tests, systems))
    random = np.random.default_rng([seed, active])
    wins, ties = np.zeros((2, tests, systems, systems))
    pairs = np.stack(np.triu_indices(systems, 1), axis=1)
    rows, right = np.arange(tests), []
    for number in range(1, votes + 1):
        chosen = random.integers(len(pairs), size=tests)
        if active:
            posterior = fit_bradley_terry(wins, ties, prior_sd=RANKING_PRIOR_SD)
            information = ranking_information(posterior, pairs) + 1e-10 * random.random((tests, len(pairs)))
            chosen = np.where(random.random(tests) < EXPLORATION, chosen, information.argmax(1))
        i, j = pairs[chosen].T
        a, b = strengths[rows, i], strengths[rows, j]
        weights = np.stack([np.exp(a), np.exp(b), TIE * np.exp((a + b) / 2)], axis=1)
        shares = weights.cumsum(1) / weights.sum(1, keepdims=True)
        outcome = (random.random((tests, 1)) > shares).sum(1)
        wins[rows, np.where(outcome == 0, i, j), np.where(outcome == 0, j, i)] += outcome < 2
        ties[rows, i, j] += outcome == 2
        ties[rows, j, i] += outcome == 2
        if number % every == 0:
            fitted = fit_bradley_terry(wins, ties).strengths
            gaps = [x[:, pairs[:, 0]] - x[:, pairs[:, 1]] for x in (strengths, fitted)]
            right.append(float(((np.sign(gaps[0] * gaps[1]) + 1) / 2).mean()))
    return np.array(right)


def ratio_of_votes(random: np.ndarray, active: np.ndarray, look: int) -> float:
    """Active pairing's votes for random pairing's accuracy at a look, relative to random pairing's; curves [looks].

    Counted from where active pairing's accuracy stays at least that, between looks linearly.
    """
    accuracy = random[look]
    below = np.flatnonzero(active < accuracy)
    if not len(below):
        return 1 / (look + 1)
    last = int(below[-1])
    if last + 1 == len(active):
        return float("inf")
    return float((last + 1 + (accuracy - active[last]) / (active[last + 1] - active[last])) / (look + 1))


def compare(
    systems: int, votes: int, seeds: int, tests: int = 10, every: int = 10, spread: float = 1.0
) -> dict[str, Any]:
    """Mean accuracy of both ways at each look, and the ratios of votes after half and all of random pairing's."""
    curves = {
        name: np.array([accuracies(s, tests, systems, votes, name == "active", every, spread) for s in range(seeds)])
        for name in ("random", "active")
    }
    random, active = curves["random"], curves["active"]
    looks = random.shape[1]
    ratios = []
    for look in (looks // 2 - 1, looks - 1):

        def ratio(rows: np.ndarray, look: int = look) -> float:
            return min(ratio_of_votes(random[rows].mean(0), active[rows].mean(0), look), 2.0)

        interval = bootstrap_statistic(ratio, seeds, seed=0)
        ratios.append(
            {
                "votes": (look + 1) * every,
                "accuracy": float(random[:, look].mean()),
                "ratio": interval.mean,
                "low": interval.low,
                "high": interval.high,
            }
        )
    return {
        "systems": systems,
        "seeds": seeds,
        "tests": tests,
        "spread": spread,
        "every": every,
        "accuracy": {name: curve.mean(0).tolist() for name, curve in curves.items()},
        "ratios": ratios,
    }


def main(
    systems: Annotated[int, typer.Option()] = 8,
    votes: Annotated[int, typer.Option()] = 300,
    seeds: Annotated[int, typer.Option()] = 20,
    tests: Annotated[int, typer.Option(help="Simulated tests of each seed.")] = 10,
    every: Annotated[int, typer.Option(help="Votes between two looks.")] = 10,
    spread: Annotated[float, typer.Option(help="Standard deviation of the systems' strengths.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Votes that active pairing needs for the accuracy of random pairing, in simulated listening tests."""
    figures = compare(systems, votes, seeds, tests, every, spread)
    if as_json:
        print(json.dumps(figures))
        return
    for row in figures["ratios"]:
        print(
            f"accuracy {row['accuracy']:.3f}: random {row['votes']} votes, active {row['ratio']:.2f} times as many "
            f"({row['low']:.2f} to {row['high']:.2f})"
        )


if __name__ == "__main__":
    typer.run(main)
