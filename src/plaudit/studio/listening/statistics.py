"""Statistics of a listening test: strengths, win rates, agreement, attention, and when a comparison is decided.

Everything here is a pure function of `Answer`s, in the order in which they were given. Answers that find both clips
bad prefer neither system: they are counted, and left out of strengths and win rates as Music Arena does. Intervals are
over listeners: a listener's answers resemble each other, so that votes are not independent.

Strengths are on the logit scale: between systems whose strengths differ by d, the stronger one wins a fraction
1 / (1 + exp(-d)) of the votes that are not ties.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.optimize import brentq
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from plaudit.statistics import LEVEL, POWER, Array, Interval, bootstrap_mean, bootstrap_ratio, expanded, prompts_needed
from plaudit.studio.listening.bradley_terry import PRIOR_SD, Ties, fit_bradley_terry
from plaudit.studio.listening.rules import ExclusionRules

Winner = Literal["a", "b", "tie", "both_bad"]
PairKind = Literal["regular", "repeat", "obvious", "practice"]
RESAMPLES = 1000


@dataclass(frozen=True)
class Answer:
    """One listener's answer about clips `a` and `b` of a prompt.

    id: the vote's. expected: the right answer of an obvious pair. swapped: `a` was on the right. response_ms: from the
    moment both sides could be played to the vote; listened_a and listened_b are seconds.
    """

    listener: str
    id: str
    prompt: str
    a: str
    b: str
    system_a: str
    system_b: str
    winner: Winner
    kind: PairKind = "regular"
    swapped: bool = False
    expected: Literal["a", "b"] | None = None
    listened_a: float | None = None
    listened_b: float | None = None
    response_ms: float | None = None

    @property
    def clips(self) -> tuple[str, str]:
        """Both clips, in an order that does not depend on the sides."""
        return (self.a, self.b) if self.a <= self.b else (self.b, self.a)

    @property
    def value(self) -> float:
        """The answer about `clips`: 1 where the first is better, 0 where the second is, 0.5 for a tie; NaN for both
        bad."""
        value = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": math.nan}[self.winner]
        return value if self.a <= self.b else 1.0 - value


def counted(answers: Iterable[Answer], excluded: Iterable[str] = ()) -> list[Answer]:
    """The answers that count for results: of regular pairs between two systems, by listeners who are not excluded, the
    first of each listener about two clips."""
    out, seen, left = [], set(), set(excluded)
    for answer in answers:
        key = (answer.listener, answer.clips)
        if answer.kind == "regular" and answer.system_a != answer.system_b and answer.listener not in left:
            if key not in seen:
                out.append(answer)
            seen.add(key)
    return out


# Strengths


@dataclass(frozen=True)
class Strength:
    """A system's strength with its 95 % interval, and ranks: places that its interval leaves open, best first."""

    system: str
    strength: Interval
    rank: int
    ranks: tuple[int, int]
    votes: int

    @property
    def arena_score(self) -> float:
        """On the scale of Elo ratings around 1000, as arenas publish it."""
        return 1000.0 + 400.0 / math.log(10) * self.strength.mean


@dataclass(frozen=True)
class Board:
    """Systems by strength, the strongest first.

    resampled: what the intervals are over, "listeners" where there are at least two, else "votes".
    groups: sets of systems that were compared with one another, directly or not; with more than one, strengths of
    different groups cannot be compared, and only the prior relates them.
    tie: the logarithm of Davidson's parameter, None without ties.
    """

    strengths: list[Strength]
    votes: int
    ties: int
    both_bad: int
    resampled: Literal["listeners", "votes"]
    groups: list[list[str]]
    tie: float | None


def bradley_terry(
    answers: Sequence[Answer],
    tie_model: Ties = "davidson",
    prior_sd: float = PRIOR_SD,
    seed: int = 0,
    resamples: int = RESAMPLES,
    systems: Sequence[str] = (),
) -> Board:
    """Strengths of all systems of the answers with bootstrap intervals over listeners.

    systems: further ones, which have no answers yet. Percentile intervals are widened for few listeners as
    plaudit.statistics.expanded says.
    """
    names = sorted({name for x in answers for name in (x.system_a, x.system_b)} | set(systems))
    decisive = [x for x in answers if x.winner != "both_bad"]
    both_bad = len(answers) - len(decisive)
    listeners = sorted({x.listener for x in decisive})
    resampled: Literal["listeners", "votes"] = "listeners" if len(listeners) > 1 else "votes"
    if not names:
        return Board([], 0, 0, both_bad, resampled, [], None)
    row = {name: place for place, name in enumerate(listeners)}
    owners = [row[x.listener] for x in decisive] if resampled == "listeners" else list(range(len(decisive)))
    wins, ties = outcome_counts(decisive, names, owners)
    fit = fit_bradley_terry(wins.sum(0), ties.sum(0), tie_model, prior_sd)
    played = wins.sum(0) + wins.sum(0).T + ties.sum(0)
    low, high, ranks = _strength_intervals(fit.strengths, wins, ties, tie_model, prior_sd, seed, resamples)
    order = np.argsort(-fit.strengths, kind="stable")
    strengths = [
        Strength(
            names[k],
            Interval(float(fit.strengths[k]), float(low[k]), float(high[k])),
            place + 1,
            (int(ranks[0][k]), int(ranks[1][k])),
            int(played[k].sum()),
        )
        for place, k in enumerate(order)
    ]
    labels = connected_components(csr_array(played > 0), directed=False)[1]
    groups = [[name for name, group in zip(names, labels, strict=True) if group == g] for g in range(max(labels) + 1)]
    tie = float(fit.tie) if np.isfinite(fit.tie) else None
    return Board(strengths, len(decisive), sum(x.winner == "tie" for x in decisive), both_bad, resampled, groups, tie)


def outcome_counts(
    answers: Sequence[Answer], systems: Sequence[str], owners: Sequence[int] | None = None
) -> tuple[Array, Array]:
    """Wins and ties as `fit_bradley_terry` takes them, [L, K, K] each, of the answers of each of L owners (one where
    none are given)."""
    place = {name: k for k, name in enumerate(systems)}
    rows = [0] * len(answers) if owners is None else owners
    wins = np.zeros((max(rows, default=0) + 1, len(systems), len(systems)))
    ties = np.zeros_like(wins)
    for owner, x in zip(rows, answers, strict=True):
        a, b = place[x.system_a], place[x.system_b]
        if x.winner == "tie":
            ties[owner, a, b] += 1
            ties[owner, b, a] += 1
        elif x.winner != "both_bad":
            wins[owner, *((a, b) if x.winner == "a" else (b, a))] += 1
    return wins, ties


def _strength_intervals(
    estimate: Array, wins: Array, ties: Array, tie_model: Ties, prior_sd: float, seed: int, resamples: int
) -> tuple[Array, Array, tuple[Array, Array]]:
    owners, systems = len(wins), wins.shape[-1]
    if owners < 2:
        wide = np.full(systems, np.inf)
        return -wide, wide, (np.ones(systems), np.full(systems, systems))
    counts = np.random.default_rng(seed).multinomial(owners, np.full(owners, 1 / owners), size=resamples)
    replicates = [
        fit_bradley_terry(
            np.tensordot(part, wins, 1), np.tensordot(part, ties, 1), tie_model, prior_sd
        ).strengths
        for part in np.array_split(counts.astype(np.float64), max(1, resamples // 250))
    ]  # fmt: skip
    drawn = np.concatenate(replicates)
    level = expanded(owners)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(drawn, tails, axis=0)
    gaps = drawn[:, :, None] - drawn[:, None, :]
    least, most = np.quantile(gaps, tails, axis=0)  # of i over j
    best = 1 + (most < 0).sum(1)  # how many are surely better
    worst = systems - (least > 0).sum(1)
    return np.minimum(low, estimate), np.maximum(high, estimate), (best, worst)


# Win rates


@dataclass(frozen=True)
class PairRecord:
    """Answers between two systems; rate: the share won by `first`, a tie counting half, None without such answers."""

    first: str
    second: str
    wins: int
    losses: int
    ties: int
    both_bad: int
    rate: Interval | None


def win_rates(answers: Sequence[Answer], seed: int = 0, resamples: int = RESAMPLES) -> list[PairRecord]:
    """Each two systems that were compared, with bootstrap intervals over listeners."""
    groups: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for x in answers:
        groups[min(x.system_a, x.system_b), max(x.system_a, x.system_b)].append(x)
    records = []
    for (first, second), group in sorted(groups.items()):
        outcome = Counter(
            x.winner if x.winner in ("tie", "both_bad") else x.system_a if x.winner == "a" else x.system_b
            for x in group
        )
        scored = _scores(group, first)
        rate = bootstrap_ratio(*_by_listener(scored), seed, resamples) if scored else None
        records.append(
            PairRecord(first, second, outcome[first], outcome[second], outcome["tie"], outcome["both_bad"], rate)
        )
    return records


def _scores(answers: Iterable[Answer], first: str) -> list[tuple[str, float]]:
    """Listener and score of `first`: 1 for a win, 0.5 for a tie; both bad left out."""
    value = {"a": 1.0, "b": 0.0, "tie": 0.5}
    return [
        (x.listener, value[x.winner] if x.system_a == first else 1.0 - value[x.winner])
        for x in answers
        if x.winner != "both_bad"
    ]


def _by_listener(scored: Iterable[tuple[str, float]]) -> tuple[Array, Array]:
    """Sums and counts of each listener's scores; each vote by itself where there is only one listener."""
    pairs = list(scored)
    if len({listener for listener, _ in pairs}) < 2:
        return np.array([value for _, value in pairs]), np.ones(len(pairs))
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for listener, value in pairs:
        sums[listener] += value
        counts[listener] += 1
    return np.array(list(sums.values())), np.array(list(counts.values()), dtype=np.float64)


# Agreement


def krippendorff_alpha(
    values: ArrayLike, metric: Literal["nominal", "ordinal", "interval"] = "nominal"
) -> float | None:
    """Krippendorff's alpha of values [coders, units], NaN where a coder gave none (Krippendorff, "Computing
    Krippendorff's Alpha-Reliability", 2011).

    1: perfect agreement, 0: that of chance. None where no unit has two values, or all values are the same.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"alpha needs coders by units, not shape {table.shape}")
    known = np.isfinite(table)
    pairable = known.sum(0) >= 2
    table, known = table[:, pairable], known[:, pairable]
    if not table.size:
        return None
    levels, codes = np.unique(table[known], return_inverse=True)
    counts = np.zeros((table.shape[1], len(levels)))  # of each level in each unit
    np.add.at(counts, (np.nonzero(known)[1], codes), 1.0)
    coincidences = (counts[:, :, None] * (counts[:, None, :] - np.eye(len(levels)))) / (
        counts.sum(1)[:, None, None] - 1
    )
    observed = coincidences.sum(0)
    marginal = observed.sum(1)
    distance = _distances(levels, marginal, metric)
    total = marginal.sum()
    expected = (np.outer(marginal, marginal) - np.diag(marginal)) / (total - 1)
    disagreement = (expected * distance).sum()
    return float(1 - (observed * distance).sum() / disagreement) if disagreement > 0 else None


def _distances(levels: Array, marginal: Array, metric: str) -> Array:
    if metric == "nominal":
        return 1.0 - np.eye(len(levels))
    if metric == "interval":
        return np.asarray((levels[:, None] - levels[None, :]) ** 2)
    if metric != "ordinal":
        raise ValueError(f"a metric is nominal, ordinal or interval, not {metric!r}")
    middle = np.cumsum(marginal) - marginal / 2  # mean rank of each level
    return np.asarray((middle[:, None] - middle[None, :]) ** 2)


@dataclass(frozen=True)
class Agreement:
    """How much listeners agree about the same pairs.

    alpha: ordinal Krippendorff's alpha of a < tie < b, both bad left out, whichever clip is called a; None where no
    pair has two answers. agreeing: of two listeners' answers about a pair, neither of which is a tie, the fraction that
    is the same, with its interval over pairs; what a reward's accuracy on these votes is to be compared with.
    pairs: how many have at least two answers.
    """

    alpha: float | None
    agreeing: Interval | None
    pairs: int


def listener_agreement(answers: Sequence[Answer], seed: int = 0) -> Agreement:
    """Agreement about pairs of clips that several listeners compared."""
    pairs = sorted({x.clips for x in answers})
    listeners = sorted({x.listener for x in answers})
    row, column = ({name: k for k, name in enumerate(names)} for names in (listeners, pairs))
    table = np.full((len(listeners), len(pairs)), np.nan)
    for x in reversed(answers):  # the first answer of a listener stands
        table[row[x.listener], column[x.clips]] = x.value
    # Which clip is first is arbitrary: each pair also counts mirrored, so that the answer does not change alpha (ours).
    alpha = krippendorff_alpha(np.concatenate([table, 1.0 - table], axis=1), "ordinal") if answers else None
    first, second = (table == 1.0).sum(0), (table == 0.0).sum(0)
    decided = first + second
    both = decided >= 2
    same = (first * (first - 1) + second * (second - 1))[both] / (decided * (decided - 1))[both]
    several = int((np.isfinite(table).sum(0) >= 2).sum())
    return Agreement(alpha, bootstrap_mean(same, seed) if both.any() else None, several)


def repeat_agreement(answers: Sequence[Answer], seed: int = 0) -> tuple[dict[str, tuple[int, int]], Interval | None]:
    """Hidden repeats answered the same: by listener (same, repeats), and over all with an interval over listeners.

    A repeat is an answer about two clips that the listener compared before, whichever the sides.
    """
    first: dict[tuple[str, tuple[str, str]], Answer] = {}
    counts: dict[str, tuple[int, int]] = {}
    scored = []
    for x in answers:
        if x.kind in ("obvious", "practice"):
            continue
        before = first.setdefault((x.listener, x.clips), x)
        if before is not x:
            same = before.value == x.value or before.winner == x.winner == "both_bad"
            right, total = counts.get(x.listener, (0, 0))
            counts[x.listener] = right + same, total + 1
            scored.append((x.listener, float(same)))
    return counts, bootstrap_ratio(*_by_listener(scored), seed, RESAMPLES) if scored else None


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


# Listeners


@dataclass(frozen=True)
class ListenerFigures:
    """Time and attention of a listener.

    seconds, listened: median seconds to an answer, and median seconds heard of both sides together.
    obvious: obvious pairs right, and how many there were; repeats: the same answer given again, and how many.
    left: the fraction of decided answers that chose the left side; p_side: two-sided binomial p-value of that.
    """

    listener: str
    answers: int
    ties: int
    both_bad: int
    seconds: float | None
    listened: float | None
    obvious: tuple[int, int]
    repeats: tuple[int, int]
    left: float | None
    p_side: float | None


def listener_figures(answers: Sequence[Answer]) -> list[ListenerFigures]:
    """Of every listener, in the order of their first answers; practice pairs are left out."""
    groups: dict[str, list[Answer]] = {}
    for x in answers:
        if x.kind != "practice":
            groups.setdefault(x.listener, []).append(x)
    repeats = repeat_agreement(answers)[0]
    figures = []
    for listener, group in groups.items():
        obvious = [x for x in group if x.kind == "obvious" and x.expected is not None]
        decided = [x for x in group if x.winner in ("a", "b")]
        left = sum((x.winner == "a") != x.swapped for x in decided)
        figures.append(
            ListenerFigures(
                listener=listener,
                answers=len(group),
                ties=sum(x.winner == "tie" for x in group),
                both_bad=sum(x.winner == "both_bad" for x in group),
                seconds=_median(x.response_ms / 1000 for x in group if x.response_ms is not None),
                listened=_median(
                    x.listened_a + x.listened_b for x in group if x.listened_a is not None and x.listened_b is not None
                ),
                obvious=(sum(x.winner == x.expected for x in obvious), len(obvious)),
                repeats=repeats.get(listener, (0, 0)),
                left=left / len(decided) if decided else None,
                p_side=float(stats.binomtest(left, len(decided)).pvalue) if decided else None,
            )
        )
    return figures


def _median(values: Iterable[float]) -> float | None:
    sample = list(values)
    return float(np.median(sample)) if sample else None


SIDE_P = 0.01
"""A preference for one side excludes a listener only where it is this improbable by chance."""


def exclusions(figures: Sequence[ListenerFigures], rules: ExclusionRules) -> dict[str, list[str]]:
    """The listeners to leave out, each with the reasons."""
    out: dict[str, list[str]] = {}
    for f in figures:
        reasons = []
        for name, (right, total), least in (
            ("obvious pairs right", f.obvious, rules.min_obvious),
            ("repeats answered the same", f.repeats, rules.min_repeats),
        ):
            if least is not None and total and right / total < least:
                reasons.append(f"{right} of {total} {name}, below {least:.0%}")
        for name, value, bound in (
            ("s to an answer", f.seconds, rules.min_seconds),
            ("s heard of a pair", f.listened, rules.min_listened),
        ):
            if bound is not None and value is not None and value < bound:
                reasons.append(f"median {value:.1f} {name}, below {bound:g} s")
        if rules.max_one_side is not None and f.left is not None and f.p_side is not None and f.p_side < SIDE_P:
            share, side = max((f.left, "left"), (1 - f.left, "right"))
            if share > rules.max_one_side:
                reasons.append(f"chose the {side} side {share:.0%} of the time, above {rules.max_one_side:.0%}")
        if rules.min_answers is not None and f.answers < rules.min_answers:
            reasons.append(f"{f.answers} answers, below {rules.min_answers}")
        if reasons:
            out[f.listener] = reasons
    return out


# Decisions while votes come in

Verdict = Literal["first", "second", "equivalent", "open"]
ALPHA = 1 - LEVEL
MARGIN = 0.1
"""The least difference of a win rate from one half that is asked about by default (ours): 60 % against 40 %."""

HORIZON = 100
"""The number of votes at which confidence sequences are tightest, where none is planned (ours)."""


@dataclass(frozen=True)
class Decision:
    """The comparison of two systems at this moment, valid whenever and however often it is looked at.

    rate: the share of votes that `first` wins, ties counting half, with the interval of its confidence sequence.
    verdict: which one is better; "equivalent" where the interval lies within the margin about one half; else "open".
    needed: how many more votes until it is decided with the power asked for, if the rate stays as it is; zero where it
    is decided, None where no number that is worth collecting would do, or nothing is known yet.
    planned: votes that a test of a fixed number would need for a difference of the margin.
    """

    first: str
    second: str
    votes: int
    listeners: int
    rate: Interval
    verdict: Verdict
    needed: int | None
    planned: int

    @property
    def about(self) -> Literal["listeners", "one listener"]:
        """Whom it is about: people like these listeners, or, where only one has voted, that listener alone."""
        return "listeners" if self.listeners > 1 else "one listener"


MOST_VOTES = 100_000
"""Where more would be needed, the answer is that no number of votes is enough (ours)."""


def boundary(votes: float, alpha: float = ALPHA, horizon: int = HORIZON) -> float:
    """How many standard errors a confidence sequence reaches to either side after so many votes.

    The normal-mixture boundary, valid at all times at once: Robbins, Annals of Mathematical Statistics 41, 1970; for
    means whose variance is estimated, Waudby-Smith et al., "Time-uniform central limit theory and asymptotic
    confidence sequences", Annals of Statistics 52, 2024, equation 5, with their choice of the mixture's width for
    `horizon`.
    """
    log = -2 * math.log(alpha)
    width = (log + math.log1p(log)) / horizon  # rho squared
    scaled = votes * width
    return math.sqrt((scaled + 1) / scaled * math.log((scaled + 1) / alpha**2))


def confidence_sequence(scored: Sequence[tuple[str, float]], alpha: float = ALPHA, horizon: int = HORIZON) -> Interval:
    """The mean of scores in [0, 1], each of a listener, with an interval that holds at every time of looking.

    Its standard error is over listeners (cluster-robust), at least that of independent votes. For few listeners the
    boundary is turned from a normal quantile into Student's of the same tail (ours). With a single listener it is over
    votes, and says something about that listener only.
    """
    if not scored:
        return Interval(0.5, 0.0, 1.0)
    mean, error, freedom = _mean_and_error(scored)
    if not error > 0:
        return Interval(mean, 0.0, 1.0)
    reach = _reach(len(scored), freedom, alpha, horizon) * error
    return Interval(mean, max(0.0, mean - reach), min(1.0, mean + reach))


def _reach(votes: float, freedom: float, alpha: float, horizon: int) -> float:
    normal = boundary(votes, alpha, horizon)
    return float(stats.t.isf(stats.norm.sf(normal), freedom))


def _mean_and_error(scored: Sequence[tuple[str, float]]) -> tuple[float, float, int]:
    """Mean, standard error and its degrees of freedom.

    One vote for either side is added to the variance (not the mean): a few votes that are all the same would have
    none.
    """
    values = np.array([value for _, value in scored])
    mean = float(values.mean())
    square = float(((values - mean) ** 2).sum()) + (1 - mean) ** 2 + mean**2
    independent = square / (len(values) + 2) / len(values)
    sums, counts = _by_listener(scored)
    clusters = len(sums)
    robust = float(((sums - counts * mean) ** 2).sum()) / len(values) ** 2 * clusters / max(1, clusters - 1)
    return mean, math.sqrt(max(independent, robust)), max(1, clusters - 1)


def decide(
    answers: Sequence[Answer],
    pairs: Sequence[tuple[str, str]] | None = None,
    margin: float = MARGIN,
    power: float = POWER,
    horizon: int = HORIZON,
) -> list[Decision]:
    """The state of each comparison of two systems: those given, or all that have answers.

    Read together, so that alpha is divided among them (Bonferroni). Only direct comparisons of the two count.
    """
    if not 0 < margin < 0.5:
        raise ValueError(f"the margin is a difference of a win rate from one half, above 0 and below 0.5, not {margin}")
    if not 0 < power < 1:
        raise ValueError(f"power is above 0 and below 1, not {power}")
    groups: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for x in answers:
        groups[min(x.system_a, x.system_b), max(x.system_a, x.system_b)].append(x)
    compared = sorted(groups) if pairs is None else list(pairs)
    alpha = ALPHA / max(1, len(compared))
    return [
        _decision(first, second, _scores(groups[min(first, second), max(first, second)], first), margin, power, alpha,
                  horizon)
        for first, second in compared
    ]  # fmt: skip


def _decision(
    first: str, second: str, scored: list[tuple[str, float]], margin: float, power: float, alpha: float, horizon: int
) -> Decision:
    rate = confidence_sequence(scored, alpha, horizon)
    verdict: Verdict = "open"
    if rate.low > 0.5 or rate.high < 0.5:
        verdict = "first" if rate.low > 0.5 else "second"
    elif rate.low > 0.5 - margin and rate.high < 0.5 + margin:
        verdict = "equivalent"
    planned = prompts_needed(margin / 0.5, power, alpha) or MOST_VOTES  # a vote without ties has a deviation of 1/2
    return Decision(
        first=first,
        second=second,
        votes=len(scored),
        listeners=len({listener for listener, _ in scored}),
        rate=rate,
        verdict=verdict,
        needed=0 if verdict != "open" else votes_needed(scored, margin, power, alpha, horizon),
        planned=planned,
    )


def votes_needed(
    scored: Sequence[tuple[str, float]], margin: float, power: float, alpha: float = ALPHA, horizon: int = HORIZON
) -> int | None:
    """How many more votes until the confidence sequence excludes one half, or lies within the margin about it,
    whichever is sooner, with probability `power`, if rate, spread and votes per listener stay as they are.

    None without votes, or where it is more than MOST_VOTES.
    """
    if len(scored) < 2:
        return None
    mean, error, freedom = _mean_and_error(scored)
    votes = len(scored)
    per_vote = error * math.sqrt(votes)
    away = abs(mean - 0.5)
    distance = max(away, margin - away)
    slack = float(stats.norm.ppf(power))

    def short(total: float) -> float:
        later = max(1.0, freedom * total / votes)
        return (_reach(total, later, alpha, horizon) + slack) * per_vote / math.sqrt(total) - distance

    if short(MOST_VOTES) > 0:
        return None
    if short(votes) <= 0:
        return 1  # the next vote can decide it
    return max(1, math.ceil(brentq(short, votes, MOST_VOTES)) - votes)


# A reward's opinion


@dataclass(frozen=True)
class RewardOpinion:
    """How a reward's preferences compare with the votes: accuracy on those that prefer one clip, with an interval over
    listeners, and on how many."""

    accuracy: Interval | None
    votes: int


def reward_opinion(answers: Sequence[Answer], score: Callable[[str], float | None], seed: int = 0) -> RewardOpinion:
    """score: the reward of a clip, None where it has none. Equal rewards are half right."""
    scored = []
    for x in answers:
        a, b = score(x.a), score(x.b)
        if x.winner in ("a", "b") and a is not None and b is not None:
            scored.append((x.listener, 0.5 if a == b else float((a > b) == (x.winner == "a"))))
    return RewardOpinion(bootstrap_ratio(*_by_listener(scored), seed, RESAMPLES) if scored else None, len(scored))


# All of it


@dataclass(frozen=True)
class Summary:
    """All figures of a preference test."""

    answers: int
    counted: int
    board: Board
    win_rates: list[PairRecord]
    agreement: Agreement
    repeats: Interval | None
    intransitivity: Intransitivity
    listeners: list[ListenerFigures]
    excluded: dict[str, list[str]]
    decisions: list[Decision]


def summarize(
    answers: Sequence[Answer],
    rules: ExclusionRules | None = None,
    systems: Sequence[str] = (),
    pairs: Sequence[tuple[str, str]] | None = None,
    margin: float = MARGIN,
    power: float = POWER,
    horizon: int = HORIZON,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Summary:
    """Every figure of answers in the order in which they were given; `pairs` are the comparisons asked about."""
    figures = listener_figures(answers)
    excluded = exclusions(figures, rules or ExclusionRules())
    kept = counted(answers, excluded)
    return Summary(
        answers=len(answers),
        counted=len(kept),
        board=bradley_terry(kept, seed=seed, resamples=resamples, systems=systems),
        win_rates=win_rates(kept, seed, resamples),
        agreement=listener_agreement(kept, seed),
        repeats=repeat_agreement([x for x in answers if x.listener not in excluded], seed)[1],
        intransitivity=intransitivity(kept),
        listeners=figures,
        excluded=excluded,
        decisions=decide(kept, pairs, margin, power, horizon),
    )
