"""Training TuneJury's head on votes: Bradley-Terry loss, held-out metrics, several seeds, ablations.

A margin is score(A) - score(B), a target 1 where A was preferred, 0 where B was, 0.5 for a tie. Ties have no right
answer: they are left out of everything here, as in TuneJury (arXiv 2606.17006).
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest
from torch import Tensor
from torch.nn import functional

from plaudit.corpus.manifest import SPLITS
from plaudit.errors import ModelError, VoteError
from plaudit.reward.features import PUBLISHED_BLOCKS, FeatureStore, RewardFeatures
from plaudit.reward.tunejury import PUBLISHED_HIDDEN, TuneJury, TuneJuryHead
from plaudit.reward.votes import audio_loader, named_files, present_votes, read_votes, split_votes
from plaudit.storage import read_json, write_json
from plaudit.types import Vote

CALIBRATION_BINS = 10

CHANCE_LOSS = math.log(2)
"""Cross-entropy per vote of a coin."""


def decided(margins: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Margins and targets [N] of the votes that are not ties; VoteError where all are."""
    keep = targets != 0.5
    if not keep.any():
        raise VoteError(f"all of the {len(targets)} votes are ties; accuracy needs at least one decided vote")
    return margins[keep], targets[keep]


def correct(margins: Tensor, targets: Tensor) -> Tensor:
    """For every decided vote [M]: 1 where the margin has the vote's sign, 0 where not, 0.5 where it is zero."""
    margins, targets = decided(margins, targets)
    return 0.5 + 0.5 * torch.sign(margins.double()) * (2 * targets.double() - 1)


def pairwise_accuracy(margins: Tensor, targets: Tensor) -> float:
    """Share of decided votes that the margin's sign predicts."""
    return correct(margins, targets).mean().item()


@dataclass(frozen=True)
class ReliabilityBin:
    """Votes of similar confidence: how many, the mean confidence, and the share predicted correctly."""

    votes: int
    confidence: float
    accuracy: float


def reliability_table(margins: Tensor, targets: Tensor, bins: int = CALIBRATION_BINS) -> list[ReliabilityBin]:
    """Equal-count bins of |margin|, least confident first; confidence is sigmoid(|margin|), in [0.5, 1]."""
    right = correct(margins, targets)
    confidence = torch.sigmoid(decided(margins, targets)[0].double().abs())
    order = torch.argsort(confidence, stable=True)
    return [
        ReliabilityBin(len(rows), confidence[rows].mean().item(), right[rows].mean().item())
        for rows in torch.tensor_split(order, bins)
        if len(rows)
    ]


def expected_calibration_error(margins: Tensor, targets: Tensor, bins: int = CALIBRATION_BINS) -> float:
    """Mean over votes of their bin's |accuracy - confidence|, by the bins of `reliability_table`."""
    table = reliability_table(margins, targets, bins)
    return sum(b.votes * abs(b.accuracy - b.confidence) for b in table) / sum(b.votes for b in table)


def bootstrap_interval(
    statistic: Callable[[Tensor], float],
    size: int,
    generator: torch.Generator,
    samples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap: statistic(rows) over `samples` draws of `size` rows out of `size`, with replacement."""
    draws = [statistic(torch.randint(size, (size,), generator=generator)) for _ in range(samples)]
    tail = (1 - level) / 2
    low, high = torch.quantile(torch.tensor(draws, dtype=torch.float64), torch.tensor([tail, 1 - tail]).double())
    return low.item(), high.item()


@dataclass(frozen=True)
class RewardMetrics:
    """A reward on held-out votes; intervals are 95 % bootstrap over votes."""

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
        """The lower end of the accuracy's interval: of the bootstrap's and of Wilson's the lower one.

        The bootstrap of a few votes that were all predicted has no width.
        """
        right = binomtest(math.floor(self.accuracy * self.decided + 1e-9), self.decided)
        return min(self.accuracy_interval[0], right.proportion_ci(0.95, "wilson").low)


def reward_metrics(margins: Tensor, targets: Tensor, seed: int = 0) -> RewardMetrics:
    """All figures of margins [N] against targets [N]; VoteError where every vote is a tie."""
    clear, sides = decided(margins, targets)
    right = correct(clear, sides)
    generator = torch.Generator().manual_seed(seed)
    return RewardMetrics(
        votes=len(targets),
        decided=len(sides),
        accuracy=right.mean().item(),
        accuracy_interval=bootstrap_interval(lambda rows: right[rows].mean().item(), len(right), generator),
        calibration_error=expected_calibration_error(clear, sides),
        calibration_error_interval=bootstrap_interval(
            lambda rows: expected_calibration_error(clear[rows], sides[rows]), len(sides), generator, samples=200
        ),
        loss=functional.binary_cross_entropy_with_logits(margins, targets.to(margins.dtype)).item(),
        reliability=reliability_table(clear, sides),
    )


def calibrate_temperature(margins: Tensor, targets: Tensor, largest: float = 20.0) -> float:
    """The temperature T for which sigmoid(margin / T) fits the decided votes best (ours; Guo et al. 2017).

    Cross-entropy is convex in 1/T, so its slope is bisected; T stays within [1 / largest, largest].
    """
    clear, sides = decided(margins.double(), targets.double())
    low, high = 1 / largest, largest
    for _ in range(60):
        inverse = math.sqrt(low * high)
        slope = ((torch.sigmoid(clear * inverse) - sides) * clear).mean().item()
        low, high = (low, inverse) if slope > 0 else (inverse, high)
    return 1 / math.sqrt(low * high)


@dataclass(frozen=True)
class Comparisons:
    """Votes as the head sees them: features of both sides [N, D] and target [N], 1 for A, 0 for B, 0.5 for a tie."""

    a: Tensor
    b: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class RewardSettings:
    """What the head sees and how it is trained. The defaults are TuneJury's; `batch_size` counts pairs.

    blocks: the features it is trained on, as RewardFeatures names them.
    output_scale (ours): what the network's output is multiplied by; Kaiming by fan out starts a layer of one output
    so loud that, at 1, the first epochs only quieten it.
    standardize (ours): inputs are brought to zero mean and unit variance by the training set's statistics.
    calibrate (ours): scores are scaled so that validation margins are calibrated log-odds.
    """

    blocks: tuple[str, ...] = PUBLISHED_BLOCKS
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
    seed: int = 0


PUBLISHED_REWARD = RewardSettings()
"""TuneJury's (arXiv 2606.17006): some 17,500 votes, raw features, no calibration."""

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
"""Settings by the name that commands know them by."""


@dataclass(frozen=True)
class RewardEpoch:
    """Mean losses per vote of one pass over the training votes and, after it, over the validation votes."""

    epoch: int
    train_loss: float
    validation_loss: float


@dataclass
class RewardHistory:
    """All epochs of a training, and which of them the head was kept from."""

    epochs: list[RewardEpoch] = field(default_factory=list)
    best_epoch: int = 0


def preference_loss(score_a: Tensor, score_b: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of sigmoid(score(A) - score(B)) against the target; mean over pairs."""
    return functional.binary_cross_entropy_with_logits(score_a - score_b, target)


def margins(head: TuneJuryHead, comparisons: Comparisons, batch_size: int = 4096) -> Tensor:
    """score(A) - score(B) [N] of a head in evaluation mode."""
    chunks = range(0, len(comparisons), batch_size)
    with torch.no_grad():
        parts = [head(comparisons.a[i : i + batch_size]) - head(comparisons.b[i : i + batch_size]) for i in chunks]
    return torch.cat(parts)


def train_reward(
    train: Comparisons,
    validation: Comparisons,
    settings: RewardSettings,
    progress: Callable[[RewardEpoch], None] | None = None,
) -> tuple[TuneJuryHead, RewardHistory]:
    """Fit a head to `train`, keeping the epoch of least validation loss; the same seed gives the same weights.

    Stops `patience` epochs after the best one. The score is only defined up to a constant: it is chosen so that the
    mean score of the training clips is zero (ours). Returns the head in evaluation mode. VoteError for no votes.
    """
    if len(train) < 2 or len(validation) == 0:
        raise VoteError(f"{len(train)} training and {len(validation)} validation votes are too few; collect more")
    # Dropout draws from the global generator alone, so that one is seeded here and given back untouched.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        generator = torch.Generator().manual_seed(settings.seed)
        head = TuneJuryHead(train.a.shape[1], settings.hidden, settings.dropout, generator)
        head.scale.fill_(settings.output_scale)
        if settings.standardize:
            _standardize(head, train)
        history = _fit(head, train, validation, settings, generator, progress)
    head.eval()
    if settings.calibrate:
        temperature = calibrate_temperature(margins(head, validation), validation.target)
        head.scale.div_(temperature)
    head.offset.copy_(_mean_output(head, train))
    return head, history


def _fit(
    head: TuneJuryHead,
    train: Comparisons,
    validation: Comparisons,
    settings: RewardSettings,
    generator: torch.Generator,
    progress: Callable[[RewardEpoch], None] | None,
) -> RewardHistory:
    optimizer = torch.optim.AdamW(head.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    history, best_loss, best_state = RewardHistory(), math.inf, copy.deepcopy(head.state_dict())
    for epoch in range(1, settings.max_epochs + 1):
        head.train()
        total = 0.0
        for rows in _batches(len(train), settings.batch_size, generator):
            # One forward for both sides: batch normalization must not tell A from B.
            score_a, score_b = head(torch.cat([train.a[rows], train.b[rows]])).chunk(2)
            loss = preference_loss(score_a, score_b, train.target[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        head.eval()
        validation_margins = margins(head, validation)
        validation_loss = preference_loss(validation_margins, torch.zeros_like(validation_margins), validation.target)
        if not math.isfinite(validation_loss.item()):
            raise VoteError("training of the reward diverged; check the features for NaN or lower learning_rate")
        history.epochs.append(RewardEpoch(epoch, total / len(train), validation_loss.item()))
        if progress is not None:
            progress(history.epochs[-1])
        if validation_loss.item() < best_loss:
            best_loss, history.best_epoch = validation_loss.item(), epoch
            best_state = copy.deepcopy(head.state_dict())
        elif epoch - history.best_epoch >= settings.patience:
            break
    head.load_state_dict(best_state)
    return history


def _batches(size: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """All rows once, shuffled, in batches of almost equal size, since batch statistics of a small rest are poor."""
    order = torch.randperm(size, generator=generator)
    return list(torch.tensor_split(order, math.ceil(size / batch_size)))


def _standardize(head: TuneJuryHead, train: Comparisons) -> None:
    """Give the head the mean and standard deviation of its inputs; a constant input keeps its scale."""
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


TARGETS = {"a": 1.0, "b": 0.0, "tie": 0.5}
"""What a vote's winner means to the loss."""


def comparisons(votes: Sequence[Vote], store: FeatureStore, features: RewardFeatures | None = None) -> Comparisons:
    """The votes whose clips are both in `store`; one that names a quarantined clip is left out.

    features: what the head sees of what was extracted; by default all of it. VoteError where no vote is left;
    CorpusError for a clip that was never extracted.
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


def usable_votes(votes: Sequence[Vote], store: FeatureStore) -> list[Vote]:
    """The votes that name no quarantined clip, in their order; VoteError where none is left."""
    unusable = store.quarantine
    usable = [vote for vote in votes if vote.a not in unusable and vote.b not in unusable]
    if not usable:
        raise VoteError(f"none of {len(votes)} votes compares two usable clips; check their audio")
    return usable


@dataclass(frozen=True)
class FittedReward:
    """A trained reward, how its training went, and its figures on votes it never saw.

    validation_loss: of the finished head, calibration included; what several seeds are chosen by.
    """

    jury: TuneJury
    history: RewardHistory
    metrics: RewardMetrics
    validation_loss: float

    @property
    def chance_signs(self) -> list[str]:
        """What says that it predicts held-out votes no better than chance, a phrase each; empty where nothing does."""
        signs, metrics = [], self.metrics
        if metrics.accuracy_low <= 0.5:
            interval = f"{metrics.accuracy_low:.3f} to {metrics.accuracy_interval[1]:.3f}"
            signs.append(f"accuracy {metrics.accuracy:.3f} on {metrics.decided} votes, 95 % interval {interval}")
        if self.validation_loss >= CHANCE_LOSS:
            signs.append(f"validation loss {self.validation_loss:.3f}, that of a coin is {CHANCE_LOSS:.3f}")
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
    features = RewardFeatures(store.features.clap, store.features.listener, settings.blocks)
    seen, stopping, held_out = (comparisons(votes, store, features) for votes in (train, validation, test))
    for name, part in (("training", seen), ("validation", stopping), ("test", held_out)):
        if not (part.target != TARGETS["tie"]).any():
            raise VoteError(f"all of the {len(part)} {name} votes are ties; give votes that prefer one side")
    head, history = train_reward(seen, stopping, settings, progress)
    metrics = reward_metrics(margins(head, held_out), held_out.target, settings.seed)
    gaps = margins(head, stopping)
    validation_loss = preference_loss(gaps, torch.zeros_like(gaps), stopping.target).item()
    with torch.inference_mode():
        scores = torch.cat([head(side[i : i + 4096]) for side in (seen.a, seen.b) for i in range(0, len(seen), 4096)])
    facts = {
        "settings": asdict(settings),
        "votes": {"train": len(seen), "validation": len(stopping), "test": len(held_out)},
        "train_scores": {"mean": scores.mean().item(), "std": scores.std().item()},
        "best_epoch": history.best_epoch,
        "metrics": asdict(metrics),
    }
    return FittedReward(TuneJury(head, features, facts), history, metrics, validation_loss)


@dataclass(frozen=True)
class SeedStatistics:
    """Mean and standard deviation (over n - 1; zero for one value) of a figure over seeds."""

    mean: float
    std: float


def seed_statistics(values: Sequence[float]) -> SeedStatistics:
    """The spread of a figure [number of seeds]."""
    return SeedStatistics(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)


@dataclass(frozen=True)
class SeededRewards:
    """One fitted reward per seed, and the seed whose validation loss is least."""

    fitted: dict[int, FittedReward]
    best_seed: int

    @property
    def best(self) -> FittedReward:
        """The reward to keep. Test votes have no say in it."""
        return self.fitted[self.best_seed]

    @property
    def accuracy(self) -> SeedStatistics:
        """Of the accuracy on test votes."""
        return seed_statistics([fitted.metrics.accuracy for fitted in self.fitted.values()])

    @property
    def calibration_error(self) -> SeedStatistics:
        """Of the calibration error on test votes."""
        return seed_statistics([fitted.metrics.calibration_error for fitted in self.fitted.values()])


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

    def told(seed: int) -> Callable[[RewardEpoch], None] | None:
        return None if progress is None else lambda epoch: progress(seed, epoch)

    fitted = {
        seed: fit_reward(train, validation, test, store, replace(settings, seed=seed), told(seed)) for seed in seeds
    }
    return SeededRewards(fitted, min(fitted, key=lambda seed: fitted[seed].validation_loss))


@dataclass(frozen=True)
class ExtractedVotes:
    """Lists of votes whose clips are in `store`, or in its quarantine; `told` are lines about what was left out."""

    votes: list[list[Vote]]
    store: FeatureStore
    told: list[str]


def extract_vote_features(
    parts: Sequence[list[Vote]],
    audio: Path,
    encoders: RewardFeatures,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> ExtractedVotes:
    """Hear every clip that the votes of all `parts` name, once, into the feature store `folder`, whatever is there.

    audio: as named_files takes it. All clip features of the two encoders are extracted, so that any blocks can be
    trained on later. Votes that name missing clips are left out; VoteError where a part has none left.
    """
    files = named_files(audio, [clip for votes in parts for vote in votes for clip in (vote.a, vote.b)])
    present = present_votes(parts, files)
    store = FeatureStore(folder, RewardFeatures(encoders.clap, encoders.listener))
    wanted = [clip for votes in present.parts for vote in votes for clip in (vote.a, vote.b)]
    store.extract(wanted, audio_loader(files), progress=progress)
    unusable = [clip for clip in dict.fromkeys(wanted) if clip in store.quarantine]
    told = [present.told] if present.missing else []
    if unusable:
        reason = store.quarantine[unusable[0]]
        told.append(f"{len(unusable)} clips could not be heard; their votes are left out (the first: {reason})")
    return ExtractedVotes(present.parts, store, told)


def hear_training_votes(
    files: Sequence[Path],
    audio: Path,
    encoders: RewardFeatures,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> ExtractedVotes:
    """`extract_vote_features` for training, validation and test votes, from one file that is split or from three files.

    Only votes whose clips can be used are split, so that no part depends on clips that are not there. Votes may prefer
    the same side throughout: the head is not given which side a clip is on. VoteError for another number of files.
    """
    if len(files) not in (1, len(SPLITS)):
        raise VoteError(f"{len(files)} files of votes; give one, which is split, or one each for {', '.join(SPLITS)}")
    parts = [read_votes(file) for file in files]
    if len(parts) > 1:
        return extract_vote_features(parts, audio, encoders, folder, progress)
    split_votes(parts[0])  # too few votes are refused before their audio is encoded
    heard = extract_vote_features(parts, audio, encoders, folder, progress)
    split = split_votes(usable_votes(heard.votes[0], heard.store))
    notes = [*heard.told, split.note] if split.note else heard.told
    return ExtractedVotes([split.train, split.validation, split.test], heard.store, notes)


INPUT_ABLATIONS = {
    "A1": ("clap_audio",),
    "A2": ("audio",),
    "A3": ("clap_text",),
    "A4": ("clap_audio", "audio"),
    "A5": ("clap_audio", "clap_text"),
    "A6": ("audio", "clap_text"),
    "A7": ("clap_audio", "audio", "clap_text"),
}
"""TuneJury's: CLAP audio, the second listener, text, their pairs, and all. A3 hears nothing, and both clips of a vote
have the same prompt: its margins are zero and its accuracy a half by construction."""

CODE_VERSION = 1
"""Counts up where the same settings come to mean another training, so that cells made before are made again."""


@dataclass(frozen=True)
class AblationCondition:
    """One row of the table: the blocks that the head sees and, where a source is left out of training, which.

    Such a row is tested on that source's votes alone.
    """

    name: str
    blocks: tuple[str, ...]
    without: str | None = None


@dataclass(frozen=True)
class AblationRow:
    """Figures of a condition on `votes` decided test votes, over the seeds."""

    name: str
    blocks: tuple[str, ...]
    without: str | None
    votes: int
    accuracy: SeedStatistics
    calibration_error: SeedStatistics
    accuracies: list[float]


def conditions(votes: Sequence[Vote], blocks: tuple[str, ...]) -> list[AblationCondition]:
    """A1 to A7 and, where votes come from more than one source, leaving each out of a reward that sees `blocks`."""
    rows = [AblationCondition(name, own) for name, own in INPUT_ABLATIONS.items()]
    sources = sorted({vote.source for vote in votes})
    if len(sources) > 1:
        rows += [AblationCondition(f"without {source or 'a source'}", blocks, source) for source in sources]
    return rows


def ablate(
    train: Sequence[Vote],
    validation: Sequence[Vote],
    test: Sequence[Vote],
    store: FeatureStore,
    settings: RewardSettings,
    seeds: Sequence[int],
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> list[AblationRow]:
    """Train every condition with every seed on one extraction; cells that are in `folder`/cells are not made again.

    A cell's file is named by a digest of everything it depends on: settings, votes, encoders. A source that cannot be
    left out, because training, validation or test would have no decided vote, has no row.
    """
    usable = {
        "train": usable_votes(train, store),
        "validation": usable_votes(validation, store),
        "test": usable_votes(test, store),
    }
    split = [(condition, _parts(usable, condition)) for condition in conditions(usable["test"], settings.blocks)]
    wanted = [row for row in split if all(any(vote.winner != "tie" for vote in part) for part in row[1])]
    if not wanted:
        raise VoteError("training, validation and test each need a vote that is not a tie; give more votes")
    rows, done = [], 0
    for condition, parts in wanted:
        cells = []
        for seed in seeds:
            cells.append(_cell(condition, parts, store, replace(settings, blocks=condition.blocks, seed=seed), folder))
            done += 1
            if progress is not None:
                progress(done, len(wanted) * len(seeds))
        accuracies = [cell["accuracy"] for cell in cells]
        errors = seed_statistics([cell["calibration_error"] for cell in cells])
        rows.append(
            AblationRow(
                condition.name,
                condition.blocks,
                condition.without,
                cells[0]["decided"],
                seed_statistics(accuracies),
                errors,
                accuracies,
            )
        )
    return rows


def _parts(usable: dict[str, list[Vote]], condition: AblationCondition) -> tuple[list[Vote], list[Vote], list[Vote]]:
    left_out = condition.without
    if left_out is None:
        return usable["train"], usable["validation"], usable["test"]
    seen, stopping = ([v for v in usable[part] if v.source != left_out] for part in ("train", "validation"))
    return seen, stopping, [vote for vote in usable["test"] if vote.source == left_out]


def _cell(
    condition: AblationCondition,
    parts: tuple[list[Vote], list[Vote], list[Vote]],
    store: FeatureStore,
    settings: RewardSettings,
    folder: Path,
) -> dict[str, Any]:
    made_of = {
        "code": CODE_VERSION,
        "settings": asdict(settings),
        "encoders": store.features.clip_identity,
        "votes": [[asdict(vote) for vote in part] for part in parts],
    }
    path = folder / "cells" / f"{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:24]}.json"
    if path.exists():
        try:
            found: dict[str, Any] = read_json(path)
            return found
        except ModelError:
            path.unlink()
    fitted = fit_reward(*parts, store, settings)
    cell = {"condition": condition.name, "seed": settings.seed, **asdict(fitted.metrics)}
    write_json(path, cell)
    return cell
