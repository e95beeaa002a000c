"""Training TuneJury's head on votes, from the settings down to the Bradley-Terry loss.

A margin is score(A) - score(B), a target 1 where A was preferred, 0 where B was, 0.5 for a tie. Ties have no right
answer: metrics leave them out, as TuneJury does (arXiv 2606.17006).
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from scipy.stats import binomtest
from torch import Tensor
from torch.nn import functional

from plaudit.errors import VoteError
from plaudit.reward.features import PUBLISHED_BLOCKS, FeatureStore, RewardFeatures
from plaudit.reward.tunejury import PUBLISHED_HIDDEN, TuneJury, TuneJuryHead, save_reward
from plaudit.reward.votes import usable_votes
from plaudit.statistics import Array, ReliabilityBin, bootstrap_statistic, expected_calibration_error, reliability_bins
from plaudit.storage import write_json
from plaudit.types import Vote

CHANCE_LOSS = math.log(2)
"""Cross-entropy per vote of guessing at random."""

TARGETS = {"a": 1.0, "b": 0.0, "tie": 0.5}
"""The loss's target for each winner of a vote."""


@dataclass(frozen=True)
class RewardSettings:
    """Settings of a training; `batch_size` counts pairs. The defaults are TuneJury's sizes with changes of ours, which
    PUBLISHED_REWARD takes back.

    blocks: the features it is trained on, as RewardFeatures names them.
    clap_through: a rate in Hz that CLAP's audio is resampled to first.
    output_scale (ours): factor of the network's output; Kaiming initialization by fan out gives a layer of one output
    weights so large that, at 1, the first epochs only shrink them.
    standardize (ours): inputs are standardized by the training set's mean and standard deviation.
    calibrate (ours): scores are scaled so that validation margins are calibrated log-odds.
    joint_sides (ours): both sides of a batch share the statistics of batch normalization, in one forward; otherwise
    each side has a forward of its own.
    even_batches (ours): batches of almost equal size; otherwise the last one has the rest.
    centre (ours): the mean score of the training clips is zero.
    min_improvement: how much lower than the best a validation loss must be to count.
    even_bins (ours): bins of the calibration error whose counts differ by one at most; otherwise the last takes the
    rest.
    """

    blocks: tuple[str, ...] = PUBLISHED_BLOCKS
    clap_through: int | None = None
    hidden: tuple[int, ...] = PUBLISHED_HIDDEN
    dropout: float = 0.5
    learning_rate: float = 1e-4
    weight_decay: float = 1e-3
    batch_size: int = 32
    patience: int = 30
    max_epochs: int = 500
    output_scale: float = 1.0
    standardize: bool = False
    calibrate: bool = False
    joint_sides: bool = True
    even_batches: bool = True
    centre: bool = True
    min_improvement: float = 0.0
    even_bins: bool = True
    seed: int = 0


PUBLISHED_REWARD = RewardSettings(
    clap_through=16000,
    max_epochs=1000,
    joint_sides=False,
    even_batches=False,
    centre=False,
    min_improvement=1e-4,
    even_bins=False,
)
"""TuneJury's training for some 17,500 votes (arXiv 2606.17006), as its code has it (yonghyunk1m/TuneJury e28474e), but
for CLAP's crop of longer clips: here the centre, there at random."""

SYNTHETIC_REWARD = RewardSettings(
    blocks=(*PUBLISHED_BLOCKS, "clap_match"),
    hidden=(256, 128),
    dropout=0.3,
    learning_rate=1e-3,
    batch_size=256,
    patience=8,
    max_epochs=60,
    standardize=True,
    calibrate=True,
)
"""The synthetic world's: some 10,000 votes on 800 features, learned in about a minute on one core (ours)."""

REWARD_PRESETS = {"published": PUBLISHED_REWARD, "synthetic": SYNTHETIC_REWARD}
"""Settings by name, as for `--preset`."""


@dataclass(frozen=True)
class SeedStatistics:
    """Mean and standard deviation (over n - 1; zero for one value) of a metric over seeds."""

    mean: float
    std: float


def seed_statistics(values: Sequence[float]) -> SeedStatistics:
    """Mean and standard deviation of a metric [seeds]."""
    return SeedStatistics(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)


@dataclass(frozen=True)
class SeededRewards:
    """One fitted reward per seed, and the seed whose validation loss is least."""

    fitted: dict[int, FittedReward]
    best_seed: int

    @property
    def best(self) -> FittedReward:
        """The reward to keep, chosen without the test votes."""
        return self.fitted[self.best_seed]

    @property
    def chance_signs(self) -> list[str]:
        """Those of the reward to keep."""
        return self.best.chance_signs

    @property
    def accuracy(self) -> SeedStatistics:
        """Of the accuracy on test votes."""
        return seed_statistics([fitted.metrics.accuracy for fitted in self.fitted.values()])

    @property
    def calibration_error(self) -> SeedStatistics:
        """Of the calibration error on test votes."""
        return seed_statistics([fitted.metrics.calibration_error for fitted in self.fitted.values()])

    def to_dict(self) -> dict[str, Any]:
        """The statistics over seeds, and the training and test metrics of each, as JSON values."""
        return {
            "best_seed": self.best_seed,
            "better_than_chance": not self.chance_signs,
            "accuracy": asdict(self.accuracy),
            "calibration_error": asdict(self.calibration_error),
            "seeds": {
                str(seed): {
                    "validation_loss": fitted.validation_loss,
                    "best_epoch": fitted.history.best_epoch,
                    "epochs": [asdict(epoch) for epoch in fitted.history.epochs],
                    "test": asdict(fitted.metrics),
                }
                for seed, fitted in self.fitted.items()
            },
        }

    def save(self, folder: Path, record: dict[str, Any], clap: str, audio: str) -> None:
        """Write the best seed's reward, with the statistics over seeds among its facts, and `record` as training.json.

        clap and audio: the names that its encoders are loaded by.
        """
        facts = ("best_seed", "accuracy", "calibration_error", "better_than_chance")
        self.best.reward.facts["seeds"] = {key: value for key, value in self.to_dict().items() if key in facts}
        write_json(folder / "training.json", record)
        save_reward(self.best.reward, folder, clap, audio)


def fit_seeds(
    train: Sequence[Vote],
    validation: Sequence[Vote],
    test: Sequence[Vote],
    store: FeatureStore,
    settings: RewardSettings,
    seeds: Sequence[int],
    progress: Callable[[int, RewardEpoch], None] | None = None,
) -> SeededRewards:
    """fit_reward once per seed; progress(seed, epoch). VoteError for no seed or one given twice."""
    if not seeds or len(set(seeds)) < len(seeds):
        raise VoteError(f"seeds {list(seeds)} must be one or more different numbers")

    def fit(seed: int) -> FittedReward:
        advance = None if progress is None else partial(progress, seed)
        return fit_reward(train, validation, test, store, replace(settings, seed=seed), advance)

    fitted = {seed: fit(seed) for seed in seeds}
    return SeededRewards(fitted, min(fitted, key=lambda seed: fitted[seed].validation_loss))


@dataclass(frozen=True)
class FittedReward:
    """A trained reward, its training history, and its metrics on test votes.

    validation_loss: of the finished head, calibration included; what several seeds are chosen by.
    """

    reward: TuneJury
    history: RewardHistory
    metrics: RewardMetrics
    validation_loss: float

    @property
    def chance_signs(self) -> list[str]:
        """Evidence that it predicts held-out votes no better than chance, a phrase each."""
        return chance_signs(self.metrics, self.validation_loss)


def chance_signs(metrics: RewardMetrics, validation_loss: float) -> list[str]:
    """Evidence that a reward predicts held-out votes no better than chance, a phrase each."""
    signs = []
    if metrics.accuracy_low <= 0.5:
        interval = f"{metrics.accuracy_low:.3f} to {metrics.accuracy_interval[1]:.3f}"
        signs.append(f"accuracy {metrics.accuracy:.3f} on {metrics.decided} votes, 95 % interval {interval}")
    if validation_loss >= CHANCE_LOSS:
        signs.append(f"validation loss {validation_loss:.3f}, that of a coin is {CHANCE_LOSS:.3f}")
    return signs


def fit_reward(
    train: Sequence[Vote],
    validation: Sequence[Vote],
    test: Sequence[Vote],
    store: FeatureStore,
    settings: RewardSettings,
    progress: Callable[[RewardEpoch], None] | None = None,
) -> FittedReward:
    """Train on `train`, stop and calibrate on `validation`, report on `test`; all clips must be in `store`.

    settings.blocks may be any whose clip features the store holds. VoteError where one of the three is all ties.
    """
    encoders = store.features.clap, store.features.audio_encoder
    features = RewardFeatures(*encoders, settings.blocks, settings.clap_through)
    fitting, stopping, held_out = (comparisons(votes, store, features) for votes in (train, validation, test))
    for name, part in (("training", fitting), ("validation", stopping), ("test", held_out)):
        if not (part.target != TARGETS["tie"]).any():
            raise VoteError(f"all of the {len(part)} {name} votes are ties; give votes that prefer one side")
    head, history = train_head(fitting, stopping, settings, progress)
    metrics = reward_metrics(margins(head, held_out), held_out.target, settings.seed, settings.even_bins)
    validation_loss = vote_loss(head, stopping)
    facts = {
        "votes": {"train": len(fitting), "validation": len(stopping), "test": len(held_out)},
        "best_epoch": history.best_epoch,
        "metrics": asdict(metrics),
    }
    return FittedReward(finished_reward(head, features, fitting, settings, facts), history, metrics, validation_loss)


def finished_reward(
    head: TuneJuryHead, features: RewardFeatures, train: Comparisons, settings: RewardSettings, facts: dict[str, Any]
) -> TuneJury:
    """The reward of a trained head, with `facts` about its training for its `config.json`."""
    with torch.inference_mode():
        scores = torch.cat(
            [head(side[i : i + 4096]) for side in (train.a, train.b) for i in range(0, len(train), 4096)]
        )
    known = {
        "settings": asdict(settings),
        "train_scores": {"mean": scores.mean().item(), "std": scores.std().item()},
    }
    return TuneJury(head, features, {**known, **facts})


@dataclass(frozen=True)
class Comparisons:
    """Votes as inputs of the head: features of both sides [N, D] and targets [N]."""

    a: Tensor
    b: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.target)

    def take(self, rows: NDArray[Any]) -> Comparisons:
        """Those of some rows, given by numbers or a mask."""
        chosen = torch.from_numpy(rows)
        return Comparisons(self.a[chosen], self.b[chosen], self.target[chosen])


def comparisons(votes: Sequence[Vote], store: FeatureStore, features: RewardFeatures | None = None) -> Comparisons:
    """Inputs and targets of the votes; one that names a quarantined clip is left out.

    features: the head's input; by default all that was extracted. VoteError where no vote is left; CorpusError for a
    clip that was never extracted.
    """
    usable = usable_votes(votes, store)
    features = features or store.features
    columns = features.columns_of(store.features)
    prompts = [vote.prompt for vote in usable]
    a, b = (
        features.with_prompts(store.rows(side)[:, columns], prompts)
        for side in ([vote.a for vote in usable], [vote.b for vote in usable])
    )
    return Comparisons(a, b, torch.tensor([TARGETS[vote.winner] for vote in usable]))


@dataclass(frozen=True)
class RewardEpoch:
    """Mean losses per vote of one pass over the training votes and, after it, over the validation votes."""

    epoch: int
    train_loss: float
    validation_loss: float


@dataclass
class RewardHistory:
    """All epochs of a training, the one whose weights were kept, and the temperature that its scores were divided by
    to be calibrated."""

    epochs: list[RewardEpoch] = field(default_factory=list)
    best_epoch: int = 0
    temperature: float = 1.0


def train_head(
    train: Comparisons,
    validation: Comparisons,
    settings: RewardSettings,
    progress: Callable[[RewardEpoch], None] | None = None,
    start: TuneJuryHead | None = None,
) -> tuple[TuneJuryHead, RewardHistory]:
    """Fit a head to `train`, keeping the epoch of least validation loss; the same seed gives the same weights.

    start: a head to train further, instead of a new one, which keeps its scaling of inputs; where no epoch is better
    on `validation`, it stays as it is.

    Stops `patience` epochs after the best one. Returns the head in evaluation mode. VoteError for no votes.
    """
    if len(train) < 2 or len(validation) == 0:
        raise VoteError(f"{len(train)} training and {len(validation)} validation votes are too few; collect more")
    with _new_head(train, settings, start) as (head, generator):
        to_beat = math.inf if start is None else vote_loss(head, validation)
        history = _fit(head, train, validation, settings, generator, progress, to_beat)
    if settings.calibrate:
        history.temperature = calibrate_temperature(margins(head, validation), validation.target)
    _finish(head, train, settings, history.temperature)
    return head, history


def train_head_without_validation(
    train: Comparisons,
    epochs: int,
    temperature: float,
    settings: RewardSettings,
    progress: Callable[[int], None] | None = None,
    start: TuneJuryHead | None = None,
) -> TuneJuryHead:
    """Fit a head to `train` for so many epochs, and divide its scores by a temperature; otherwise as train_head."""
    with _new_head(train, settings, start) as (head, generator):
        optimizer = _optimizer(head, settings)
        for epoch in range(1, epochs + 1):
            if not math.isfinite(_train_epoch(head, train, settings, optimizer, generator)):
                raise VoteError(_DIVERGED)
            if progress is not None:
                progress(epoch)
    _finish(head, train, settings, temperature)
    return head


@contextmanager
def _new_head(
    train: Comparisons, settings: RewardSettings, start: TuneJuryHead | None
) -> Iterator[tuple[TuneJuryHead, torch.Generator]]:
    """A head to train within the block, new or a copy of `start` in evaluation mode, and a generator for batches."""
    # Dropout draws from the global generator alone: it is seeded here, and restored afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        generator = torch.Generator().manual_seed(settings.seed)
        if start is None:
            head = TuneJuryHead(train.a.shape[1], settings.hidden, settings.dropout, generator)
            head.scale.fill_(settings.output_scale)
            if settings.standardize:
                _standardize(head, train)
        else:
            head = copy.deepcopy(start).eval()
        yield head, generator


def _finish(head: TuneJuryHead, train: Comparisons, settings: RewardSettings, temperature: float) -> None:
    """Calibrate and centre a trained head, in evaluation mode."""
    head.eval()
    if settings.calibrate:
        head.scale.div_(temperature)
    if settings.centre:
        head.offset.copy_(_mean_output(head, train))


_DIVERGED = "training of the reward diverged; check the features for NaN or lower learning_rate"


def _optimizer(head: TuneJuryHead, settings: RewardSettings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(head.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)


def _fit(
    head: TuneJuryHead,
    train: Comparisons,
    validation: Comparisons,
    settings: RewardSettings,
    generator: torch.Generator,
    progress: Callable[[RewardEpoch], None] | None,
    best_loss: float,
) -> RewardHistory:
    """Train until the validation loss has not fallen for `patience` epochs, and go back to the best epoch."""
    optimizer = _optimizer(head, settings)
    history, best_state = RewardHistory(), copy.deepcopy(head.state_dict())
    for epoch in range(1, settings.max_epochs + 1):
        train_loss = _train_epoch(head, train, settings, optimizer, generator)
        head.eval()
        validation_loss = vote_loss(head, validation)
        if not math.isfinite(validation_loss):
            raise VoteError(_DIVERGED)
        history.epochs.append(RewardEpoch(epoch, train_loss, validation_loss))
        if progress is not None:
            progress(history.epochs[-1])
        if validation_loss < best_loss - settings.min_improvement:
            best_loss, history.best_epoch = validation_loss, epoch
            best_state = copy.deepcopy(head.state_dict())
        elif epoch - history.best_epoch >= settings.patience:
            break
    head.load_state_dict(best_state)
    head.eval()
    return history


def _train_epoch(
    head: TuneJuryHead,
    train: Comparisons,
    settings: RewardSettings,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> float:
    """Train on all votes once; their mean loss."""
    head.train()
    total = 0.0
    for rows in _batches(len(train), settings, generator):
        if settings.joint_sides:
            score_a, score_b = head(torch.cat([train.a[rows], train.b[rows]])).chunk(2)
        else:
            score_a, score_b = head(train.a[rows]), head(train.b[rows])
        loss = preference_loss(score_a, score_b, train.target[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(rows)
    return total / len(train)


def _batches(size: int, settings: RewardSettings, generator: torch.Generator) -> list[Tensor]:
    """All rows once, shuffled, in batches.

    Even ones have no small last batch, whose statistics would be poor. A rest of one row has none at all: it joins the
    batch before it (ours; the published code fails there).
    """
    order = torch.randperm(size, generator=generator)
    if settings.even_batches:
        return list(torch.tensor_split(order, math.ceil(size / settings.batch_size)))
    batches = list(order.split(settings.batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _standardize(head: TuneJuryHead, train: Comparisons) -> None:
    """Set the mean and standard deviation of the head's inputs; a constant input keeps its scale."""
    both = torch.cat([train.a, train.b])
    std = both.std(0)
    head.input_mean.copy_(both.mean(0))
    head.input_std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))


def _mean_output(head: TuneJuryHead, train: Comparisons) -> Tensor:
    """Mean of the network's output over both sides of the training votes, before offset and scale."""
    with torch.no_grad():
        chunks = [side[i : i + 4096] for side in (train.a, train.b) for i in range(0, len(train), 4096)]
        scores = torch.cat([head(chunk) for chunk in chunks])
    return scores.mean() / head.scale + head.offset


def preference_loss(score_a: Tensor, score_b: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of sigmoid(score(A) - score(B)) against the target; mean over pairs."""
    return functional.binary_cross_entropy_with_logits(score_a - score_b, target)


def margins(head: TuneJuryHead, comparisons: Comparisons, batch_size: int = 4096) -> Tensor:
    """score(A) - score(B) [N] of a head in evaluation mode."""
    chunks = range(0, len(comparisons), batch_size)
    with torch.no_grad():
        parts = [head(comparisons.a[i : i + batch_size]) - head(comparisons.b[i : i + batch_size]) for i in chunks]
    return torch.cat(parts)


def vote_loss(head: TuneJuryHead, comparisons: Comparisons) -> float:
    """The preference loss of a head in evaluation mode."""
    gaps = margins(head, comparisons)
    return preference_loss(gaps, torch.zeros_like(gaps), comparisons.target).item()


def calibrate_temperature(margins: Tensor, targets: Tensor, largest: float = 20.0) -> float:
    """The temperature T for which sigmoid(margin / T) fits the votes that are no ties best (ours; Guo et al. 2017).

    Cross-entropy is convex in 1/T, so its slope is bisected; T stays within [1 / largest, largest].
    """
    keep = _decided(targets.numpy())
    clear, sides = margins.double()[keep], targets.double()[keep]
    low, high = 1 / largest, largest
    for _ in range(60):
        inverse = math.sqrt(low * high)
        slope = ((torch.sigmoid(clear * inverse) - sides) * clear).mean().item()
        low, high = (low, inverse) if slope > 0 else (inverse, high)
    return 1 / math.sqrt(low * high)


def correct(margins: ArrayLike, targets: ArrayLike) -> Array:
    """For every vote that is not a tie: 1 where the margin has the vote's sign, 0 where not, 0.5 where it is zero.

    margins, targets: [N]. VoteError where all votes are ties.
    """
    sides = np.asarray(targets, dtype=np.float64)
    keep = _decided(sides)
    return 0.5 + 0.5 * np.sign(np.asarray(margins, dtype=np.float64)[keep]) * (2 * sides[keep] - 1)


def confidence(margins: ArrayLike, targets: ArrayLike) -> Array:
    """sigmoid(|margin|), in [0.5, 1], of every vote that is not a tie."""
    return np.asarray(expit(np.abs(np.asarray(margins, dtype=np.float64)[_decided(targets)])))


def _decided(targets: ArrayLike) -> Array:
    """Which votes [N] are no ties; VoteError where all are."""
    keep = np.asarray(targets) != TARGETS["tie"]
    if not keep.any():
        raise VoteError(f"all of the {len(keep)} votes are ties; accuracy needs at least one decided vote")
    return keep


@dataclass(frozen=True)
class RewardMetrics:
    """Metrics of a reward on held-out votes; intervals are 95 % bootstrap over votes."""

    votes: int
    decided: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    calibration_error: float
    calibration_error_interval: tuple[float, float]
    loss: float
    reliability: list[ReliabilityBin]

    @property
    def accuracy_low(self) -> float:
        """The lower limit of the accuracy: the lower one of the bootstrap's and of Wilson's interval.

        The bootstrap of a few votes that were all predicted correctly has no width.
        """
        right = binomtest(math.floor(self.accuracy * self.decided + 1e-9), self.decided)
        return min(self.accuracy_interval[0], right.proportion_ci(0.95, "wilson").low)


def reward_metrics(margins: ArrayLike, targets: ArrayLike, seed: int = 0, even_bins: bool = True) -> RewardMetrics:
    """All metrics of margins [N] against targets [N]; VoteError where every vote is a tie."""
    gaps, sides = (np.asarray(values, dtype=np.float64) for values in (margins, targets))
    right, sure = correct(gaps, sides), confidence(gaps, sides)

    def calibration_error(rows: NDArray[np.signedinteger[Any]]) -> float:
        return expected_calibration_error(sure[rows], right[rows], even=even_bins)

    accuracy = bootstrap_statistic(lambda rows: float(right[rows].mean()), len(right), seed, 1000)
    error = bootstrap_statistic(calibration_error, len(right), seed, 200)
    return RewardMetrics(
        votes=len(sides),
        decided=len(right),
        accuracy=accuracy.mean,
        accuracy_interval=(accuracy.low, accuracy.high),
        calibration_error=error.mean,
        calibration_error_interval=(error.low, error.high),
        loss=float(np.mean(np.logaddexp(0, gaps) - sides * gaps)),
        reliability=reliability_bins(sure, right, even=even_bins),
    )
