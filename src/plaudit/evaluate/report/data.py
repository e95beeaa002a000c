"""What a report is made from, as plain data. Whatever a run does not have is None or empty, and the page says so."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plaudit.errors import RunError
from plaudit.evaluate.evaluator import StageScores
from plaudit.evaluate.statistics import Array
from plaudit.evaluate.sweeps.score import Sweep


@dataclass(frozen=True)
class RunFacts:
    """What was run, and on what.

    name: of the run, the page's title.
    description: one or two sentences for people who did not start it; may be empty.
    recipe: the resolved recipe as YAML.
    finished: when, as text ("2025-05-01 14:03 UTC").
    seconds: of wall-clock time, all stages together, sessions added up.
    peak_memory: bytes, the most that the run held at once; None where it was not measured.
    machine: what it ran on, in the order shown ({"processor": ..., "cores": ..., "memory": ...}).
    versions: of the software ({"plaudit": ..., "python": ..., "torch": ...}).
    step_seconds: wall-clock seconds by step of the run, in the order done; may be empty.
    folder: the run folder's absolute path; empty where there is none.
    """

    name: str
    recipe: str
    finished: str
    seconds: float
    description: str = ""
    peak_memory: int | None = None
    machine: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    step_seconds: dict[str, float] = field(default_factory=dict)
    folder: str = ""


@dataclass(frozen=True)
class StageResult:
    """One row of the table: a model and the scores of what it made of the held-out prompts.

    key: short, unique and safe in a file name ("sft"); title: for people ("SFT").
    scores: on the same prompts and seeds as every other stage.
    note: one sentence on how the clips were sampled ("score 1.5, guidance 4"); may be empty.
    clips: the folder of its clips, `0000.wav` for the first prompt and so on; None where they were not kept.
    model: the absolute path of the model folder that generates such clips; None for a row that is no model's own.
    options: what `plaudit generate` needs besides the model to generate such clips.
    """

    key: str
    title: str
    scores: StageScores
    note: str = ""
    clips: Path | None = None
    model: Path | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Curve:
    """How one quantity went during the training of one stage: steps [N] and values [N]."""

    stage: str
    quantity: str
    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class Sample:
    """A held-out prompt to listen to: its row in every stage's scores, and the clip of each stage by stage key.

    truth: what the prompt describes, by kind ({"genre": "house"}); empty where that is not known.
    """

    row: int
    audio: dict[str, Path]
    truth: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """Candidates [P, M] of the same prompts: their rewards, and what other metrics say of them, by name.

    source: one phrase on where they come from ("candidates of preference tuning").
    """

    source: str
    reward: Array
    others: dict[str, Array]


@dataclass(frozen=True)
class ReliabilityBin:
    """Pairs whose margins are alike: how sure the reward was of them on average, how often right, and how many."""

    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True)
class RewardQuality:
    """How well the reward predicts held-out votes.

    accuracy, accuracy_low, accuracy_high: share of votes (ties left out) predicted, with its 95 % interval.
    ceiling: what knowing the true utility would reach on the same votes; None where that is unknown.
    ece: expected calibration error over `bins`; votes: how many held-out votes without ties.
    source: one phrase on where the votes come from ("simulated listeners").
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    ece: float
    votes: int
    bins: list[ReliabilityBin]
    ceiling: float | None = None
    source: str = ""


@dataclass(frozen=True)
class CorpusFacts:
    """What the models learned from.

    kind: one phrase ("synthetic pieces of the embedded world"); clips: how many were used, by split.
    seconds: length of one clip; quarantined: how many were skipped, by reason.
    flaw_shares: share of clips with each known flaw, in [0, 1]; empty where the truth is unknown.
    """

    kind: str
    clips: dict[str, int]
    seconds: float
    quarantined: dict[str, int] = field(default_factory=dict)
    flaw_shares: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportData:
    """Everything a report shows.

    stages: in the order trained, the baseline first; at least one.
    utility_name: what the true utility is called on the page.
    coverage_scale: the concept coverage of right clips, and that of clips of other prompts, where they are known.
    """

    run: RunFacts
    stages: list[StageResult]
    corpus: CorpusFacts | None = None
    reward: RewardQuality | None = None
    curves: list[Curve] = field(default_factory=list)
    sweeps: list[Sweep] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    choice: Choice | None = None
    utility_name: str = "true utility"
    coverage_scale: tuple[float, float] | None = None


def read_curves(metrics: Path, stage: str, quantities: Sequence[str] = ("loss",)) -> list[Curve]:
    """The curves of the named quantities in a `metrics.jsonl` of rows {"step": ..., "loss": ...}.

    A step written twice (a run that was killed and continued) counts as written last; a torn last line is left out;
    a quantity that no row holds gives no curve. RunError where any other line is not a row.
    """
    lines = metrics.read_text(encoding="utf-8").splitlines()
    found: dict[str, dict[int, float]] = {quantity: {} for quantity in quantities}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            step = int(row["step"])
        except (ValueError, KeyError, TypeError):
            if number == len(lines):
                break
            raise RunError(f"{metrics}, line {number} is not a row of metrics; train the stage again") from None
        for quantity, values in found.items():
            value = row.get(quantity)
            if value is not None and math.isfinite(value):
                values[step] = float(value)
    return [
        Curve(stage, quantity, sorted(values), [values[step] for step in sorted(values)])
        for quantity, values in found.items()
        if values
    ]
