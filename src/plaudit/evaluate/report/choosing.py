"""What choosing the best of N candidates by the reward does to everything else, as N grows."""

from __future__ import annotations

from dataclasses import dataclass

from plaudit.evaluate.overoptimization import Parting, best_of_n, find_parting
from plaudit.evaluate.report.data import Choice
from plaudit.evaluate.statistics import Interval, bootstrap_mean

SEED = 0


@dataclass(frozen=True)
class ChoiceRow:
    """Means over prompts of the best of n, for each n of counts: of the reward that chooses, and of other metrics.

    partings: where reward and the metric part as n grows; None where they do not.
    """

    source: str
    prompts: int
    counts: list[int]
    reward: list[Interval]
    others: dict[str, list[Interval]]
    partings: dict[str, Parting | None]

    @property
    def labels(self) -> list[str]:
        """What each point is called."""
        return [f"best of {n}" if n > 1 else "any one" for n in self.counts]


def summarize_choice(choice: Choice) -> ChoiceRow:
    """Expected values over all ways to draw n of the candidates; n doubles up to all of them."""
    candidates = choice.reward.shape[1]
    counts = sorted({*(2**power for power in range(candidates.bit_length())), candidates})
    counts = [n for n in counts if n <= candidates]
    reward = best_of_n(choice.reward, choice.reward, counts)
    others = {name: best_of_n(choice.reward, values, counts) for name, values in choice.others.items()}
    return ChoiceRow(
        source=choice.source,
        prompts=len(choice.reward),
        counts=counts,
        reward=[bootstrap_mean(point, SEED) for point in reward],
        others={name: [bootstrap_mean(point, SEED) for point in series] for name, series in others.items()},
        partings={name: find_parting(name, reward, series, SEED) for name, series in others.items()},
    )
