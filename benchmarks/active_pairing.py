"""Votes that active pairing needs for the accuracy that random pairing has after a number of votes.

Simulated listeners take part in simulated tests, several at once, with the plans and the choice of pairs that the
studio's tests have (`plaudit.studio.listening.design`, `active`). Systems have normal strengths, and votes follow
Davidson's model. Accuracy is the fraction of two systems whose order the estimated strengths have right. Each seed is
the mean of several tests, each with systems of its own; the ratio of votes is that of the mean accuracies over seeds,
with a bootstrap interval over seeds.

    python -m benchmarks.active_pairing --systems 8 --votes 300 --seeds 20
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import numpy as np
import typer

from plaudit.reward.bradley_terry import fit_bradley_terry
from plaudit.statistics import bootstrap_statistic
from plaudit.studio.listening.active import choose_comparison
from plaudit.studio.listening.design import (
    Exposure,
    Pair,
    PairTable,
    Presentation,
    Slot,
    Stimulus,
    choose_presentation,
    listener_plan,
    open_plan,
    pairs_of,
)

TIE = 0.3
"""Davidson's parameter of the simulated listeners: between equals 13 % of the votes are ties."""

PROMPTS, PAIRS_PER_LISTENER, LISTENERS_AT_ONCE = 20, 20, 8


def table_of(systems: int, prompts: int = PROMPTS) -> PairTable:
    """The regular pairs of a test; systems are called by their numbers."""
    stimuli = [Stimulus(f"{p}-{k}", f"p{p}", str(k)) for p in range(prompts) for k in range(systems)]
    return PairTable.of(
        [Pair(f"{a.id}:{b.id}", "regular", a.prompt, a.id, b.id, a.system, b.system) for a, b in pairs_of(stimuli)]
    )


@dataclass
class SimulatedTest:
    """A test that listeners take part in. tallies: wins, ties, and pairs that are out, [3, K, K].

    given: what each listener got, by position; plans: what they are to get.
    """

    table: PairTable
    systems: int
    active: bool
    random: np.random.Generator
    per_listener: int = PAIRS_PER_LISTENER
    at_once: int = LISTENERS_AT_ONCE
    tallies: np.ndarray = field(init=False)
    plans: list[Sequence[Presentation | Slot]] = field(default_factory=list)
    given: list[dict[int, Presentation]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tallies = np.zeros((3, self.systems, self.systems))
        self.turn = 0
        self._out: list[int] = []
        self._exposure = Exposure(Counter(), Counter(), Counter())

    def ask(self) -> Presentation:
        """The pair that is answered next: of one of the listeners who are there, `turn`. `answer` must follow."""
        while len(self._out) < self.at_once:
            self._enter()
        self.turn = self._out.pop(int(self.random.integers(len(self._out))))
        given = self.given[self.turn]
        return given[max(given)]

    def answer(self, winner: str) -> None:
        """Answer it (a, b or tie), and give that listener the next pair, or let another one come."""
        given = self.given[self.turn]
        i, j = (int(system) for system in given[max(given)].pair.systems)
        wins, ties, pending = self.tallies
        pending[i, j] -= 1
        if winner == "tie":
            ties[[i, j], [j, i]] += 1
        else:
            wins[(i, j) if winner == "a" else (j, i)] += 1
        if len(given) < len(self.plans[self.turn]):
            self._give(self.turn)

    def _enter(self) -> None:
        plan = partial(open_plan, self.table) if self.active else partial(listener_plan, self.table.pairs)
        self.plans.append(plan(self.per_listener, 0, 0, 0, self._exposure, self.random))  # type: ignore[operator]
        self.given.append({})
        for one in self.plans[-1]:
            if isinstance(one, Presentation):
                self._expose(one)
        self._give(len(self.plans) - 1)

    def _give(self, listener: int) -> None:
        given = self.given[listener]
        one = self.plans[listener][len(given)]
        if isinstance(one, Slot):
            chosen = choose_presentation(one, self.table, given, self._exposure, self._choose, self.random)
            assert chosen is not None
            self._expose(chosen)
            one = chosen
        given[len(given)] = one
        self.tallies[2][tuple(int(system) for system in one.pair.systems)] += 1
        self._out.append(listener)

    def _choose(self, comparisons: Sequence[tuple[str, str]]) -> int:
        wins, ties, pending = self.tallies
        places = [[int(a), int(b)] for a, b in comparisons]
        return choose_comparison(wins, ties, pending, places, self.random)

    def _expose(self, one: Presentation) -> None:
        for count in (self._exposure.pairs, self._exposure.right if one.swapped else self._exposure.left):
            count[one.pair.id] += 1  # type: ignore[index]


def vote(strengths: np.ndarray, pair: Pair, random: np.random.Generator) -> str:
    """A vote on a pair by Davidson's model."""
    a, b = (strengths[int(system)] for system in pair.systems)
    weights = np.array([np.exp(a), np.exp(b), TIE * np.exp((a + b) / 2)])
    return str(random.choice(["a", "b", "tie"], p=weights / weights.sum()))


def accuracies(seed: int, tests: int, systems: int, votes: int, active: bool, every: int, spread: float) -> np.ndarray:
    """The mean accuracy over `tests` simulated tests after each `every` votes: [votes // every]."""
    strengths = spread * np.random.default_rng(seed).standard_normal((tests, systems))
    table, looks = table_of(systems), []
    for number, truth in enumerate(strengths):
        random = np.random.default_rng([seed, active, number])
        test = SimulatedTest(table, systems, active, random)
        for count in range(1, votes + 1):
            test.answer(vote(truth, test.ask().pair, random))
            if count % every == 0:
                looks.append(test.tallies[:2].copy())
    tallies = np.array(looks).reshape(tests, -1, 2, systems, systems)
    fitted = fit_bradley_terry(tallies[:, :, 0], tallies[:, :, 1]).strengths
    i, j = np.triu_indices(systems, 1)
    signs = np.sign((strengths[:, None, i] - strengths[:, None, j]) * (fitted[..., i] - fitted[..., j]))
    return np.asarray(((signs + 1) / 2).mean((0, 2)))


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
