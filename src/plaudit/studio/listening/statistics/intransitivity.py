"""Circular preferences: a over b, b over c, and c over a."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from plaudit.studio.listening.statistics.answers import Answer


@dataclass(frozen=True)
class Intransitivity:
    """Circular triads, a over b over c over a, of clips of one prompt compared all three by one listener, and of
    systems by the majority of all votes.

    By chance a quarter of the triads is circular. cycles: those of systems, at most ten.
    """

    triads: int
    circular: int
    system_triads: int
    cycles: list[tuple[str, str, str]]

    @property
    def rate(self) -> float | None:
        """The fraction of listeners' triads that is circular; None without triads."""
        return self.circular / self.triads if self.triads else None


def intransitivity(answers: Sequence[Answer]) -> Intransitivity:
    """Triads without ties, after Kendall and Babington Smith (Biometrika 31, 1940)."""
    preferred: dict[tuple[str, str], dict[tuple[str, str], str]] = defaultdict(dict)
    for x in answers:
        if x.winner in ("a", "b"):
            preferred[x.listener, x.prompt].setdefault(x.clips, x.a if x.winner == "a" else x.b)
    triads = circular = 0
    for better in preferred.values():
        total, cycles = _triads(better)
        triads, circular = triads + total, circular + len(cycles)
    balance: dict[tuple[str, str], int] = defaultdict(int)
    for x in answers:
        if x.winner in ("a", "b"):
            first, second = sorted((x.system_a, x.system_b))
            balance[first, second] += 1 if (x.winner == "a") == (x.system_a == first) else -1
    majority = {pair: pair[0] if lead > 0 else pair[1] for pair, lead in balance.items() if lead}
    system_triads, cycles = _triads(majority)
    return Intransitivity(triads, circular, system_triads, cycles[:10])


def _triads(better: dict[tuple[str, str], str]) -> tuple[int, list[tuple[str, str, str]]]:
    """How many three were compared with one another, and those that are circular, in the order of the circle."""
    items = sorted({item for pair in better for item in pair})
    total, cycles = 0, []
    for x, y, z in combinations(items, 3):
        if (x, y) in better and (y, z) in better and (x, z) in better:
            total += 1
            winners = better[x, y], better[y, z], better[x, z]
            if len(set(winners)) == 3:
                cycles.append((x, y, z) if better[x, y] == x else (x, z, y))
    return total, cycles
