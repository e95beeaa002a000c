"""The report of a run: its data, the numbers on it, the stage it recommends, and the page with its clips and files."""

from __future__ import annotations

import json
import math
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from plaudit.audio import read_audio
from plaudit.errors import AudioError, RunError
from plaudit.evaluate.changes import CHANGE_SEED, CLIP_METRICS, Change, changes_between, clip_values, corrected
from plaudit.evaluate.evaluator import StageScores
from plaudit.evaluate.overoptimization import Divergence, best_of_n, find_divergence, regressions_under_reward
from plaudit.evaluate.pages import charts, text
from plaudit.evaluate.pages.html import csv_of, data_address, rendered, replaced_page
from plaudit.evaluate.pages.sweep import Sweep, SweepRow, sweep_row
from plaudit.evaluate.pages.text import (
    IN_SENTENCES,
    change_rows,
    clip_rows,
    markdown_table,
    number,
    signed,
    span,
    stage_rows,
    sweep_rows,
    table_cells,
)
from plaudit.evaluate.results_table import CLIPS, MetricResult
from plaudit.statistics import Array, Interval, bootstrap_mean, bootstrap_statistic, spearman, win_rate
from plaudit.storage import write_atomically, write_json


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
class BestOfN:
    """Candidates [P, M] of the same prompts: their rewards, and what other metrics say of them, by name.

    source: one phrase on where they come from ("candidates of preference tuning").
    """

    source: str
    reward: Array
    others: dict[str, Array]


@dataclass(frozen=True)
class ReportReliabilityBin:
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
    bins: list[ReportReliabilityBin]
    ceiling: float | None = None
    source: str = ""


@dataclass(frozen=True)
class CorpusFacts:
    """What the models learned from.

    kind: one phrase ("synthetic pieces of the synthetic world"); clips: how many were used, by split.
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
    choice: BestOfN | None = None
    utility_name: str = "true utility"
    coverage_scale: tuple[float, float] | None = None


def read_curves(metrics: Path, stage: str, quantities: Sequence[str] = ("loss",)) -> list[Curve]:
    """The curves of the named quantities in a `metrics.jsonl` of rows {"step": ..., "loss": ...}.

    A step written twice (a run that was killed and continued) counts as written last; a torn last line is left out;
    a quantity that no row holds gives no curve. RunError where any other line is not a row.
    """
    lines = metrics.read_text(encoding="utf-8").splitlines()
    found: dict[str, dict[int, float]] = {quantity: {} for quantity in quantities}
    for place, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            step = int(row["step"])
        except (ValueError, KeyError, TypeError):
            if place == len(lines):
                break
            raise RunError(f"{metrics}, line {place} is not a row of metrics; train the stage again") from None
        for quantity, values in found.items():
            value = row.get(quantity)
            if value is not None and math.isfinite(value):
                values[step] = float(value)
    return [
        Curve(stage, quantity, sorted(values), [values[step] for step in sorted(values)])
        for quantity, values in found.items()
        if values
    ]


BEST_OF_N_SEED = 0


@dataclass(frozen=True)
class BestOfNRow:
    """Means over prompts of the best of n, for each n of counts: of the reward that chooses, and of other metrics.

    partings: where reward and the metric part as n grows; None where they do not.
    """

    source: str
    prompts: int
    counts: list[int]
    reward: list[Interval]
    others: dict[str, list[Interval]]
    divergences: dict[str, Divergence | None]

    @property
    def labels(self) -> list[str]:
        """What each point is called."""
        return [f"best of {n}" if n > 1 else "any one" for n in self.counts]


def summarize_best_of_n(choice: BestOfN) -> BestOfNRow:
    """Expected values over all ways to draw n of the candidates; n doubles up to all of them."""
    candidates = choice.reward.shape[1]
    counts = sorted({*(2**power for power in range(candidates.bit_length())), candidates})
    counts = [n for n in counts if n <= candidates]
    reward = best_of_n(choice.reward, choice.reward, counts)
    others = {name: best_of_n(choice.reward, values, counts) for name, values in choice.others.items()}
    return BestOfNRow(
        source=choice.source,
        prompts=len(choice.reward),
        counts=counts,
        reward=[bootstrap_mean(point, BEST_OF_N_SEED) for point in reward],
        others={name: [bootstrap_mean(point, BEST_OF_N_SEED) for point in series] for name, series in others.items()},
        divergences={name: find_divergence(name, reward, series, BEST_OF_N_SEED) for name, series in others.items()},
    )


@dataclass(frozen=True)
class StageRow:
    """The numbers of one stage. What has no value (no truth, no previous stage) is None or empty.

    agreement: rank correlation over clips of reward and true utility; it falls where the reward is exploited.
    concepts: share of the prompts' concepts that are heard. sets: further metrics of the clips as a set.
    regressions_under_reward: the metrics that got worse while reward rose, both beyond chance.
    """

    key: str
    title: str
    note: str
    clips: int
    reward: Interval
    clap: Interval
    frechet: Interval
    utility: Interval | None
    agreement: Interval | None
    wins_previous: Interval | None
    wins_baseline: Interval | None
    changes: list[Change]
    regressions_under_reward: list[str] = field(default_factory=list)
    concepts: Interval | None = None
    sets: list[MetricResult] = field(default_factory=list)


@dataclass(frozen=True)
class Results:
    """All numbers of a report.

    overall: the last stage against the first; without tests, since those are for the questions asked stage by stage.
    partings: where reward and another metric part along the stages, by metric; None where they do not.
    choice: what choosing the best of N does; None where there are no candidates.
    wins_by: the metric that decides which of two clips wins; tests: how many p-values were corrected together.
    metrics: those that the clips of every stage have by themselves.
    """

    stages: list[StageRow]
    overall: list[Change]
    sweeps: list[SweepRow]
    wins_by: str
    tests: int
    reward: RewardQuality | None
    divergences: dict[str, Divergence | None] = field(default_factory=dict)
    choice: BestOfNRow | None = None
    metrics: tuple[str, ...] = CLIP_METRICS

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain JSON values."""
        return asdict(self)


def summarize(data: ReportData) -> Results:
    """Work out every number of a report; RunError where stages were not evaluated on the same prompts."""
    if not data.stages:
        raise RunError("a report needs at least one evaluated stage; run an evaluation first")
    prompts = data.stages[0].scores.prompts
    for stage in data.stages:
        if stage.scores.prompts != prompts:
            raise RunError(f"stage {stage.title} was evaluated on other prompts than the first; evaluate it again")
    scores = [stage.scores for stage in data.stages]
    known = [metric for metric in CLIP_METRICS if all(clip_values(one, metric) is not None for one in scores)]
    rows = [_stage_row(stage, scores[0], known) for stage in data.stages]
    groups, tests = corrected([changes_between(now, before, known) for before, now in pairwise(scores)])
    for place, changes in enumerate(groups, start=1):
        wins = _wins(scores[place], scores[place - 1], known)
        rows[place] = replace(
            rows[place], changes=changes, regressions_under_reward=regressions_under_reward(changes), wins_previous=wins
        )
    overall = changes_between(scores[-1], scores[0], known) if len(scores) > 2 else []
    return Results(
        stages=rows,
        overall=[Change(change.metric, change.difference) for change in overall],
        sweeps=[sweep_row(sweep) for sweep in data.sweeps if sweep.judged],
        wins_by="utility" if "utility" in known else "reward",
        tests=tests,
        reward=data.reward,
        divergences=_divergences(scores, known),
        choice=None if data.choice is None else summarize_best_of_n(data.choice),
        metrics=tuple(known),
    )


def _divergences(stages: list[StageScores], known: list[str]) -> dict[str, Divergence | None]:
    """Along the stages, for metrics that every clip has; two points are no series."""
    if len(stages) < 3:
        return {}
    found = {}
    for metric in known:
        if metric != "reward":
            values = np.stack([getattr(stage, metric) for stage in stages])  # [S, B]
            there = ~np.isnan(values).any(axis=0)
            reward = np.stack([stage.reward for stage in stages])
            if there.sum() > 1:
                found[metric] = find_divergence(metric, reward[:, there], values[:, there], CHANGE_SEED)
    return found


def _stage_row(stage: StageResult, baseline: StageScores, known: list[str]) -> StageRow:
    """A stage by itself and against the baseline; what came before it is not yet known."""
    scores = stage.scores
    values = {name: getattr(scores, name) for name in known}
    means = {name: bootstrap_mean(found[~np.isnan(found)], CHANGE_SEED) for name, found in values.items()}
    return StageRow(
        key=stage.key,
        title=stage.title,
        note=stage.note,
        clips=len(scores),
        reward=means["reward"],
        clap=means["clap"],
        frechet=scores.frechet_interval,
        utility=means.get("utility"),
        agreement=_agreement(scores) if "utility" in known else None,
        wins_previous=None,
        wins_baseline=None if scores is baseline else _wins(scores, baseline, known),
        changes=[],
        concepts=means.get("concepts"),
        sets=scores.sets,
    )


def _wins(scores: StageScores, other: StageScores, known: list[str]) -> Interval:
    """By true utility where that is known, else by reward."""
    metric = "utility" if "utility" in known else "reward"
    return win_rate(getattr(scores, metric), getattr(other, metric), CHANGE_SEED)


def _agreement(scores: StageScores) -> Interval:
    reward, utility = scores.reward, scores.utility
    assert utility is not None
    return bootstrap_statistic(lambda rows: spearman(reward[rows], utility[rows]), len(reward), CHANGE_SEED)


PROMPT = "slow sad piano in a minor key"
"""The prompt of the commands on the page."""


@dataclass(frozen=True)
class Recommendation:
    """The stage whose model to use, and why, in sentences.

    command: generates a clip with it. next_steps: (what for, command) of what to do afterwards.
    """

    key: str
    title: str
    reason: str
    command: str
    next_steps: list[tuple[str, str]]


def recommend(data: ReportData, results: Results) -> Recommendation | None:
    """The stage of the highest mean true utility or, where that is not known, of the highest mean reward.

    Without a known truth, a stage whose reward came at the cost of another metric is passed over where another is left.
    None where no stage has a model.
    """
    pairs = [(s, row) for s, row in zip(data.stages, results.stages, strict=True) if s.model is not None]
    if not pairs:
        return None
    metric = "utility" if "utility" in results.metrics else "reward"
    paid = {} if metric == "utility" else _paid_since_the_first(data, results)
    eligible = [pair for pair in pairs if pair[0].key not in paid] or pairs
    order = sorted(eligible, key=lambda pair: -_mean(pair[1], metric))
    stage, row = order[0]
    sentences = [_lead(metric, data.utility_name, row)]
    first, runner = data.stages[0], order[1][0] if len(order) > 1 else None
    if stage is not first:
        sentences.append(f"That is {_gap(stage, first, metric)} against {first.title}{_doubt(stage, first, metric)}.")
    if runner is not None and runner is not first and (doubt := _doubt(stage, runner, metric)):
        sentences.append(f"Its lead over {runner.title} is {_gap(stage, runner, metric)}{doubt}.")
    for other, other_row in pairs:
        if other.key in paid and _mean(other_row, metric) > _mean(row, metric):
            names = " and ".join(IN_SENTENCES.get(name, name) for name in paid[other.key])
            sentences.append(f"{other.title} has more reward, but its {names} got worse.")
    if metric == "reward":
        sentences.append("The reward is a prediction of preference: listen before you rely on it.")
    return Recommendation(stage.key, stage.title, " ".join(sentences), _generate(stage), _next_steps(data, stage))


def _paid_since_the_first(data: ReportData, results: Results) -> dict[str, list[str]]:
    """By stage, the metrics that got worse since the first stage while reward rose, both beyond chance."""
    first, *others = data.stages
    groups, _ = corrected([changes_between(one.scores, first.scores, results.metrics) for one in others])
    found = {stage.key: regressions_under_reward(changes) for stage, changes in zip(others, groups, strict=True)}
    return {key: metrics for key, metrics in found.items() if metrics}


def _mean(row: StageRow, metric: str) -> float:
    interval = row.utility if metric == "utility" else row.reward
    assert interval is not None
    return interval.mean


def _lead(metric: str, utility_name: str, row: StageRow) -> str:
    interval = row.utility if metric == "utility" else row.reward
    assert interval is not None
    name = utility_name if metric == "utility" else "reward"
    return f"Its clips have the highest mean {name} of the stages, {number(interval.mean)} {span(interval)}."


def _gap(stage: StageResult, other: StageResult, metric: str) -> str:
    difference = changes_between(stage.scores, other.scores, [metric])[0].difference
    return f"{signed(difference.mean)} {span(difference)}"


def _doubt(stage: StageResult, other: StageResult, metric: str) -> str:
    """What to add to a difference that may be chance."""
    difference = changes_between(stage.scores, other.scores, [metric])[0].difference
    return "" if difference.excludes_zero else ", which is within chance"


def _generate(stage: StageResult, *more: str) -> str:
    how = ["--model", str(stage.model), *stage.options, *more, "-o", "clips"]
    return shlex.join(["plaudit", "generate", PROMPT, *how])


def _next_steps(data: ReportData, stage: StageResult) -> list[tuple[str, str]]:
    model, run = str(stage.model), data.run.folder
    steps = [
        ("Keep the best of several candidates", _generate(stage, "--best-of", "8")),
        ("Train it further on your own audio", shlex.join([
            "plaudit", "run", "folder", "--set", "corpus.folder=music", "--set", "corpus.table=music/captions.csv",
            "--set", f"backbone.start_from={model}",
        ])),
        ("Prepare it for others", shlex.join(["plaudit", "models", "export", model, "-o", "for-the-hub"])),
    ]  # fmt: skip
    if run:
        compared = f"{shlex.join(['plaudit', 'compare', run])} OTHER-RUN -o comparison"
        steps.insert(1, ("Compare this run with another", compared))
    return steps


REPORT_NUMBERS = "report.json"
"""The file of every number of a report."""

SHOWN = 3
"""Prompts whose players are visible at once; the others are folded away."""


@dataclass(frozen=True)
class StagePlayer:
    """One clip on the page; `picture` is None where the clip cannot be drawn, and `note` says why.

    truth: its true utility in words; empty where that is not known. recommended: whether it is of the stage to use.
    """

    stage: str
    colour: int
    audio: str
    picture: str | None
    note: str
    truth: str
    scores: list[str]
    recommended: bool


@dataclass(frozen=True)
class PromptPlayers:
    """A prompt, what it describes where that is known, and the clip of each stage."""

    prompt: str
    truth: dict[str, str]
    players: list[StagePlayer]


def write_report(data: ReportData, folder: Path) -> Path:
    """Write `index.html`, `report.json`, `clips.csv`, `table.md`, `audio/` and pictures of it into `folder`.

    Returns the page's path. A report that is there stays until the new one is complete; files of others stay.
    RunError where stages do not fit together or a clip to listen to is missing.
    """
    folder = Path(folder)
    results = summarize(data)
    with replaced_page(folder) as draft:
        _write_into(draft, folder, data, results)
    return folder / "index.html"


def _write_into(draft: Path, folder: Path, data: ReportData, results: Results) -> None:
    """Write the report into `draft`, which takes the place of `folder`."""
    utility, use = data.utility_name, recommend(data, results)
    chosen = None if use is None else use.key
    prompts = [_prompt_players(draft, n, sample, data, chosen) for n, sample in enumerate(data.samples)]
    flags, clips = text.divergence_finding(results, utility), clip_rows(data, folder)
    write_json(draft / REPORT_NUMBERS, _numbers(data, results, flags, use) | {"clips": clips})
    write_atomically(draft / CLIPS, csv_of(clips))
    write_atomically(draft / "table.md", markdown_table(results, utility))
    page = rendered(
        "report.html",
        data=data,
        results=results,
        use=use,
        cells=table_cells(results, utility),
        tables=_downloads(data, results),
        summary=text.overall_finding(results, utility),
        findings=text.stage_findings(results, utility),
        flags=flags,
        divergences=_divergence_sentences(results, utility),
        choice_charts=charts.choice_charts(results, utility),
        choice_partings=_choice_sentences(results, utility),
        exploitation=text.exploitation_finding(results, utility),
        agreement=text.agreement_finding(results, utility),
        coverage=text.coverage_finding(data.coverage_scale) if "concepts" in results.metrics else "",
        reward_finding=text.reward_finding(results),
        sweep_findings=[text.sweep_finding(sweep, utility) for sweep in results.sweeps],
        sweeps_unjudged=[text.failed_finding(sweep) for sweep in data.sweeps if not sweep.judged],
        stage_charts=charts.stage_charts(results, utility),
        change_charts=charts.change_charts(results, utility),
        divergence_charts=charts.divergence_charts(results, utility),
        sweep_charts=charts.sweep_charts(results.sweeps, {s.title: i for i, s in enumerate(data.stages)}, utility),
        curve_charts=charts.curve_charts(data),
        reliability_chart=charts.reliability_chart(data),
        prompts=prompts,
        shown=SHOWN,
        light=charts.LIGHT,
        dark=charts.DARK,
    )
    write_atomically(draft / "index.html", page)


def _numbers(data: ReportData, results: Results, flags: str, use: Recommendation | None) -> dict[str, Any]:
    """Every number of the report, and with what it was made."""
    return {
        "run": asdict(data.run),
        **results.to_json(),
        "recommended": None if use is None else asdict(use),
        "watch": flags,
        "corpus": None if data.corpus is None else asdict(data.corpus),
        "coverage_scale": data.coverage_scale,
        "curves": [asdict(curve) for curve in data.curves],
    }


def _downloads(data: ReportData, results: Results) -> dict[str, str]:
    """Each table as CSV, in an address that the page holds; those without rows are left out."""
    rows: dict[str, Sequence[Mapping[str, Any]]] = {
        "stages": stage_rows(results),
        "changes": change_rows(results),
        "sweeps": sweep_rows(results.sweeps),
        "reliability": [] if data.reward is None else [asdict(one) for one in data.reward.bins],
        "corpus": [] if data.corpus is None else _corpus_rows(data.corpus),
        "run": _run_rows(data.run),
    }
    return {name: data_address("text/csv", csv_of(found)) for name, found in rows.items() if found}


def _corpus_rows(corpus: CorpusFacts) -> list[dict[str, Any]]:
    told: dict[str, Mapping[str, Any]]
    told = {"clips": corpus.clips, "flaw share": corpus.flaw_shares, "skipped": corpus.quarantined}
    return [{"what": what, "name": name, "value": v} for what, found in told.items() for name, v in found.items()]


def _run_rows(run: RunFacts) -> list[dict[str, Any]]:
    told: dict[str, Mapping[str, Any]] = {"machine": run.machine, "version": run.versions, "seconds": run.step_seconds}
    return [{"what": what, "name": name, "value": v} for what, found in told.items() for name, v in found.items()]


def _divergence_sentences(results: Results, utility_name: str) -> list[str]:
    titles = [row.title for row in results.stages]
    divergences = results.divergences.items()
    return [
        charts.divergence_sentence(divergence, titles, charts.name_of(key, utility_name))
        for key, divergence in divergences
    ]


def _choice_sentences(results: Results, utility_name: str) -> list[str]:
    choice = results.choice
    if choice is None:
        return []
    divergences = choice.divergences.items()
    return [
        charts.divergence_sentence(one, choice.labels, charts.name_of(key, utility_name)) for key, one in divergences
    ]


def _prompt_players(
    folder: Path, number: int, sample: Sample, data: ReportData, recommended: str | None
) -> PromptPlayers:
    """Copy the clips of one prompt beside the page and draw them."""
    players = []
    for colour, stage in enumerate(data.stages):
        source = sample.audio.get(stage.key)
        if source is None:
            continue
        if not source.is_file():
            raise RunError(f"{source} is gone, so the report cannot play it; generate the clips of {stage.title} again")
        name = f"{number + 1:02d}-{stage.key}"
        target = folder / "audio" / f"{name}{source.suffix}"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)
        picture: str | None = f"audio/{name}.png"
        note = ""
        try:
            charts.save_spectrogram(folder / "audio" / f"{name}.png", *read_audio(source))
        except AudioError:
            picture, note = None, "This clip is silent or cannot be read."
        truth = "".join(_values(stage.scores, sample.row, {"utility": data.utility_name}))
        scores = _values(stage.scores, sample.row, {"reward": "reward", "clap": "CLAP", "concepts": "concepts"})
        chosen = stage.key == recommended
        players.append(StagePlayer(stage.title, colour, f"audio/{target.name}", picture, note, truth, scores, chosen))
    return PromptPlayers(data.stages[0].scores.prompts[sample.row], sample.truth, players)


def _values(scores: StageScores, row: int, named: Mapping[str, str]) -> list[str]:
    """The values of one clip, each behind its name; those that are not known are left out."""
    values = {told: getattr(scores, name) for name, told in named.items()}
    known = {told: found[row] for told, found in values.items() if found is not None and found[row] == found[row]}
    return [f"{told} {text.number(value, 2)}" for told, value in known.items()]
