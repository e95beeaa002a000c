"""Evaluation of rewards: accuracy on votes, robustness to perturbations, value of calibration."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from plaudit.audio import read_audio, resample
from plaudit.errors import AudioError, VoteError
from plaudit.evaluate.pages.charts import reliability, save_chart
from plaudit.evaluate.pages.report import ReportReliabilityBin
from plaudit.reward.calibration import Calibration, fit_calibration
from plaudit.reward.scored_votes import ScoredVote
from plaudit.reward.scoring import score_waves
from plaudit.reward.training import RewardMetrics, correct, reward_metrics
from plaudit.statistics import Array, Interval, bootstrap_mean, bootstrap_replicates, holm, percentile_interval
from plaudit.statistics import spearman as rank_correlation
from plaudit.storage import write_json
from plaudit.types import Reward

TIE = 0.5


@dataclass(frozen=True)
class GroupAccuracy:
    """Accuracy on the `decided` of `votes` votes of a source or a pair of systems; None where all are ties."""

    name: str
    votes: int
    decided: int
    accuracy: Interval | None


@dataclass(frozen=True)
class SystemFigures:
    """A system against others: clips compared, their mean reward, and the share of votes it won, ties counting half."""

    name: str
    votes: int
    reward: Interval
    win_rate: Interval


@dataclass(frozen=True)
class MarginFigures:
    """Mean and quartiles of |score(A) - score(B)|, and the mean signed margin, which shows a bias towards one side."""

    mean: float
    absolute_mean: float
    quartiles: tuple[float, float, float]


@dataclass(frozen=True)
class RewardEvaluation:
    """A reward on votes; intervals are 95 % bootstrap over votes.

    spearman: between systems' mean rewards and win rates, None for fewer than three systems. same_system: votes between
    two clips of one system. They count for accuracy, but say nothing between systems: they are in no pair, and in no
    system's figures.
    """

    overall: RewardMetrics
    sources: list[GroupAccuracy]
    pairs: list[GroupAccuracy]
    systems: list[SystemFigures]
    spearman: Interval | None
    margins: MarginFigures
    same_system: int


def evaluate_votes(votes: Sequence[ScoredVote], seed: int = 0) -> RewardEvaluation:
    """All figures of scored votes; VoteError where every vote is a tie.

    A vote without the names of both systems counts in no figure of systems.
    """
    margins = torch.tensor([vote.score_a - vote.score_b for vote in votes], dtype=torch.float64)
    targets = torch.tensor([vote.target for vote in votes], dtype=torch.float64)
    overall = reward_metrics(margins, targets, seed)
    absolute = margins.abs()
    with_systems = [vote for vote in votes if vote.system_a and vote.system_b]
    between = [vote for vote in with_systems if vote.system_a != vote.system_b]
    quartiles = torch.quantile(absolute, torch.tensor([0.25, 0.5, 0.75]).double()).tolist()
    return RewardEvaluation(
        overall=overall,
        sources=_groups(votes, lambda vote: vote.source, seed),
        pairs=_groups(between, lambda vote: " - ".join(sorted((vote.system_a, vote.system_b))), seed),
        systems=_systems(between, seed),
        spearman=_rank_agreement(between, seed),
        margins=MarginFigures(margins.mean().item(), absolute.mean().item(), tuple(quartiles)),
        same_system=len(with_systems) - len(between),
    )


def save_evaluation(evaluation: RewardEvaluation, folder: Path) -> None:
    """Write `evaluation.json` and the reliability diagram: `reliability.svg`, `reliability-dark.svg` and, on a light
    card of its own, `reliability.png`."""
    bins = [ReportReliabilityBin(b.confidence, b.accuracy, b.count) for b in evaluation.overall.reliability]
    for suffix in (".svg", ".png"):
        save_chart(reliability(bins), folder / f"reliability{suffix}")
    write_json(folder / "evaluation.json", asdict(evaluation))


def _groups(votes: Sequence[ScoredVote], key: Callable[[ScoredVote], str], seed: int) -> list[GroupAccuracy]:
    """Accuracy of the votes by name, the most numerous first."""
    members: dict[str, list[ScoredVote]] = defaultdict(list)
    for vote in votes:
        members[key(vote)].append(vote)
    groups = []
    for name, group in sorted(members.items(), key=lambda item: (-len(item[1]), item[0])):
        margins = torch.tensor([vote.score_a - vote.score_b for vote in group], dtype=torch.float64)
        targets = torch.tensor([vote.target for vote in group])
        decided = sum(vote.target != TIE for vote in group)
        accuracy = bootstrap_mean(correct(margins, targets), seed) if decided else None
        groups.append(GroupAccuracy(name, len(group), decided, accuracy))
    return groups


def _systems(between: Sequence[ScoredVote], seed: int) -> list[SystemFigures]:
    """Every system's figures, the highest mean reward first."""
    rewards, wins = defaultdict(list), defaultdict(list)
    for vote in between:
        rewards[vote.system_a].append(vote.score_a)
        rewards[vote.system_b].append(vote.score_b)
        wins[vote.system_a].append(vote.target)
        wins[vote.system_b].append(1.0 - vote.target)
    figures = [
        SystemFigures(name, len(rewards[name]), bootstrap_mean(rewards[name], seed), bootstrap_mean(wins[name], seed))
        for name in rewards
    ]
    return sorted(figures, key=lambda system: -system.reward.mean)


def _rank_agreement(between: Sequence[ScoredVote], seed: int) -> Interval | None:
    """Spearman's correlation of mean reward and win rate over systems; votes are resampled."""
    names = sorted({name for vote in between for name in (vote.system_a, vote.system_b)})
    if len(names) < 3:
        return None
    place = {name: index for index, name in enumerate(names)}
    systems = np.array([[place[vote.system_a], place[vote.system_b]] for vote in between])  # [N, 2]
    scores = np.array([[vote.score_a, vote.score_b] for vote in between])
    wins = np.array([[vote.target, 1.0 - vote.target] for vote in between])

    def agreement(rows: NDArray[np.int64]) -> float:
        members = systems[rows].ravel()
        counts = np.bincount(members, minlength=len(names))
        present = counts > 0
        means: list[Array] = [
            np.bincount(members, values[rows].ravel(), len(names))[present] / counts[present]
            for values in (scores, wins)
        ]
        return rank_correlation(*means)

    return percentile_interval(agreement(np.arange(len(between))), bootstrap_replicates(agreement, len(between), seed))


Wave = NDArray[np.float32]
Expectation = Literal["stays", "falls", "free"]

TOLERANCE = 0.2
"""Changes of the reward below this count as none, in standard deviations of the reward over the clips."""

HEADROOM = 0.5
"""Clips are first turned down to this peak, so that +6 dB does not clip."""

NOISE_DB, TRIMMED, DRIVE = 10.0, 0.95, 8.0
"""Level of the noise below the clip in dB, fraction of the clip left by trimming, and gain before clipping."""


@dataclass(frozen=True)
class Perturbation:
    """A change of a clip, apply(wave [T], rate, random), and how a sound reward responds.

    stays: the change is barely audible. falls: the change is damage. free: no expectation; shown without a verdict.
    """

    name: str
    expected: Expectation
    apply: Callable[[Wave, int, np.random.Generator], Wave]


def noisy(wave: Wave, rate: int, random: np.random.Generator) -> Wave:
    """White noise NOISE_DB below the clip's level."""
    level = np.sqrt(np.mean(np.square(wave, dtype=np.float64)))
    noise = random.standard_normal(len(wave)) * level * 10 ** (-NOISE_DB / 20)
    return np.asarray(wave + noise, dtype=np.float32)


def clipped(wave: Wave, rate: int, random: np.random.Generator) -> Wave:
    """Clipped at the peak divided by DRIVE, at the original level."""
    ceiling = np.abs(wave).max() / DRIVE
    cut = np.clip(wave, -ceiling, ceiling)
    gain = np.sqrt(np.mean(np.square(wave)) / np.mean(np.square(cut)))
    return np.asarray(cut * gain, dtype=np.float32)


def resample_and_back(wave: Wave, rate: int, other: int) -> Wave:
    """Resampled to another rate and back."""
    return np.asarray(resample(resample(wave, rate, other), other, rate), dtype=np.float32)


def _upwards(wave: Wave, rate: int, random: np.random.Generator) -> Wave:
    return resample_and_back(wave, rate, 44100 if rate < 44100 else 48000 if rate < 48000 else 2 * rate)


PERTURBATIONS = (
    Perturbation("louder by 6 dB", "stays", lambda wave, rate, random: wave * np.float32(10 ** (6 / 20))),
    Perturbation("quieter by 6 dB", "stays", lambda wave, rate, random: wave * np.float32(10 ** (-6 / 20))),
    Perturbation("resampled up and back", "stays", _upwards),
    Perturbation("cut to 95 %", "stays", lambda wave, rate, random: wave[: round(TRIMMED * len(wave))]),
    Perturbation("noise at 10 dB", "falls", noisy),
    Perturbation("clipped", "falls", clipped),
    Perturbation("half the length", "free", lambda wave, rate, random: wave[: len(wave) // 2]),
    Perturbation("half the bandwidth", "free", lambda wave, rate, random: resample_and_back(wave, rate, rate // 2)),
    Perturbation("reversed", "free", lambda wave, rate, random: wave[::-1].copy()),
)


@dataclass(frozen=True)
class ProbeRow:
    """The effect of a change on the reward, in standard deviations of the reward over the clips.

    clips: how many could be scored after the change. change: mean difference, None where none could.
    moved: mean absolute difference, in which signs do not cancel. passed: None without an expectation.
    """

    name: str
    expected: Expectation
    clips: int
    change: Interval | None
    moved: float | None
    passed: bool | None


@dataclass(frozen=True)
class ProbeResult:
    """Rows by change. mean, deviation: of the reward over the unchanged clips. skipped: errors of unusable files."""

    clips: int
    mean: float
    deviation: float
    rows: list[ProbeRow]
    silence_refused: bool
    skipped: list[str]


def probe_files(
    paths: Sequence[Path], prompt: str, reward: Reward, progress: Callable[[int, int], None], seed: int = 0
) -> ProbeResult:
    """Score each file as it is and after every change; AudioError where fewer than two differ in reward."""
    originals: list[float] = []
    differences: list[list[float]] = [[] for _ in PERTURBATIONS]
    skipped: list[str] = []
    for index, path in enumerate(paths):
        try:
            wave, rate = read_audio(path)
            wave = np.asarray(wave * min(1.0, HEADROOM / np.abs(wave).max()), dtype=np.float32)
            original = _score(reward, wave, rate, prompt)
        except AudioError as error:
            skipped.append(str(error))
        else:
            originals.append(original)
            for place, change in enumerate(PERTURBATIONS):
                random = np.random.default_rng([seed, index, place])
                try:
                    differences[place].append(_score(reward, change.apply(wave, rate, random), rate, prompt) - original)
                except AudioError:  # too little was left to score; the row's count shows it
                    continue
        progress(index + 1, len(paths))
    deviation = float(np.std(originals, ddof=1)) if len(originals) > 1 else 0.0
    if deviation == 0.0:
        raise AudioError(f"{len(originals)} of {len(paths)} clips can be scored and do not differ in reward; give more")
    rows = [
        _row(change, np.array(moved) / deviation, seed)
        for change, moved in zip(PERTURBATIONS, differences, strict=True)
    ]
    mean = float(np.mean(originals))
    return ProbeResult(len(originals), mean, deviation, rows, _refuses_silence(reward), skipped)


def _row(change: Perturbation, moved: NDArray[np.float64], seed: int) -> ProbeRow:
    if not len(moved):
        return ProbeRow(change.name, change.expected, 0, None, None, None)
    interval, absolute = bootstrap_mean(moved, seed), float(np.abs(moved).mean())
    passed = {
        "stays": absolute < TOLERANCE,
        "falls": interval.high < 0 and interval.mean < -TOLERANCE,
        "free": None,
    }[change.expected]
    return ProbeRow(change.name, change.expected, len(moved), interval, absolute, passed)


def _score(reward: Reward, wave: Wave, rate: int, prompt: str) -> float:
    return score_waves(reward, [torch.from_numpy(wave)], rate, [prompt]).item()


def _refuses_silence(reward: Reward) -> bool:
    try:
        score_waves(reward, [torch.zeros(5 * 16000)], 16000, [""])
    except AudioError:
        return True
    return False


STUDY_RESAMPLES = 5000


@dataclass(frozen=True)
class StudyRow:
    """Accuracy after calibration on `votes` votes, mean of the splits, and the gain over no calibration.

    splits: each split's accuracy. The intervals and the p-value of the gain (sign flips, corrected by Holm over the
    rows) take the vote as the unit: one that is in several splits' test halves counts once (ours).
    """

    votes: int
    accuracy: Interval
    splits: list[float]
    gain: Interval
    p_value: float
    p_holm: float


def calibration_study(
    votes: Sequence[ScoredVote],
    anchor: str | None,
    sizes: Sequence[int],
    seeds: Sequence[int],
    test: int,
    seed: int = 0,
) -> list[StudyRow]:
    """One row per number of fitting votes; the votes are decided ones, in the order that is shuffled.

    For each seed, Python's random.Random(seed) shuffles the votes; the first `test` are for fitting, of which a row
    takes the first so many, and the next `test` for testing (published). VoteError where there are too few.
    """
    fitting = test
    if len(votes) < fitting + test:
        raise VoteError(f"{len(votes)} decided votes are fewer than the {fitting + test} that two halves need")
    if max(sizes) > fitting:
        raise VoteError(f"{max(sizes)} votes are more than the {fitting} that are kept for fitting")
    sizes = sorted({0, *sizes})
    right = np.full((len(sizes), len(seeds), len(votes)), np.nan)
    for split, number in enumerate(seeds):
        order = list(range(len(votes)))
        random.Random(number).shuffle(order)
        held_out = order[fitting : fitting + test]
        for row, size in enumerate(sizes):
            calibration = fit_calibration([votes[i] for i in order[:size]], anchor)
            right[row, split, held_out] = [_right(calibration, votes[i]) for i in held_out]
    raw = [_calibration_study_row(right, row, np.random.default_rng(seed)) for row in range(len(sizes))]
    corrected = [1.0, *holm([p for _, _, p in raw[1:]])] if len(raw) > 1 else [1.0]
    return [
        StudyRow(size, accuracy, np.nanmean(right[row], axis=1).tolist(), gain, p, p_holm)
        for row, (size, (accuracy, gain, p), p_holm) in enumerate(zip(sizes, raw, corrected, strict=True))
    ]


def _right(calibration: Calibration, vote: ScoredVote) -> float:
    return float((calibration.margin(vote) > 0) == (vote.target == 1))


def _calibration_study_row(right: Array, row: int, rng: np.random.Generator) -> tuple[Interval, Interval, float]:
    """(accuracy, gain over no vote, p-value of the gain); every test of a vote has the same weight."""
    tested = ~np.isnan(right[0])
    used = tested.any(axis=0)
    times = tested.sum(axis=0)[used]
    correct = np.nansum(right[row], axis=0)[used]
    gained = correct - np.nansum(right[0], axis=0)[used]
    draws = rng.integers(0, len(times), size=(STUDY_RESAMPLES, len(times)))
    weights = times[draws].sum(axis=1)
    accuracy = percentile_interval(correct.sum() / times.sum(), correct[draws].sum(axis=1) / weights)
    gain = percentile_interval(gained.sum() / times.sum(), gained[draws].sum(axis=1) / weights)
    flips = rng.choice([-1.0, 1.0], size=(STUDY_RESAMPLES, len(times))) @ gained
    p = (1 + np.count_nonzero(np.abs(flips) >= abs(gained.sum()) - 1e-9)) / (1 + STUDY_RESAMPLES)
    return accuracy, gain, float(p)
