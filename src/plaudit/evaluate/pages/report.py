"""The report of a run: its data, its numbers, the recommended stage, and the page with its clips and files."""

from __future__ import annotations

import json
import math
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from plaudit.audio import read_audio
from plaudit.errors import AudioError, RunError
from plaudit.evaluate.comparison import COMPARISON_SEED, Difference, corrected, differences_of_values
from plaudit.evaluate.evaluation import CLIPS
from plaudit.evaluate.metrics import cautions
from plaudit.evaluate.overoptimization import Divergence, best_of_n, find_divergence, regressions_under_reward
from plaudit.evaluate.pages import charts, text
from plaudit.evaluate.pages.html import csv_of, data_address, rendered, replaced_page
from plaudit.evaluate.pages.spectrogram import save_spectrogram
from plaudit.evaluate.pages.sweep import Sweep, SweepRow, further_sets, means_of, sweep_row
from plaudit.evaluate.values import VALUES, SetValue, Values
from plaudit.statistics import Array, Interval, bootstrap_mean, bootstrap_statistic, spearman, win_rate
from plaudit.storage import write_atomically, write_json


@dataclass(frozen=True)
class RunFacts:
    """What was run, and on what.

    name: the page's title. recipe: as resolved, YAML. finished: date and time as text. seconds: wall-clock time of all
    steps. description: one or two sentences for readers; may be empty. peak_memory: bytes, None where not measured.
    machine, versions: facts as text by name, in the order shown. step_seconds: by step, in order. folder: the run's
    absolute path; empty where there is none.
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
    """A stage of the table and the values of its clips, on the same prompts and seeds as every other stage.

    key: unique and safe in a file name ("sft"); title: for people ("SFT"). note: how the clips were sampled; may be
    empty. clips: the folder of its clips `0000.wav`, ...; None where they were not kept. model: the absolute path
    of the model folder; None for clips that are no model's output. options: further ones of `plaudit generate`.
    previous: the key of the earlier stage that it is compared with; None is the one before.
    """

    key: str
    title: str
    values: Values
    note: str = ""
    clips: Path | None = None
    model: Path | None = None
    options: tuple[str, ...] = ()
    previous: str | None = None


@dataclass(frozen=True)
class Curve:
    """A quantity logged during the training of a stage: steps [N] and values [N]."""

    stage: str
    quantity: str
    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class Sample:
    """A held-out prompt to listen to: its row among the clips, the clip of each stage by key, and what it describes by
    kind ({"genre": "house"}), where that is recorded."""

    row: int
    audio: dict[str, Path]
    truth: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BestOfN:
    """Candidates [P, M] of the same prompts: their rewards, and other metrics by name. source: where they are from."""

    source: str
    reward: Array
    others: dict[str, Array]


@dataclass(frozen=True)
class ReportReliabilityBin:
    """Held-out votes with similar margins: the reward's mean confidence, its accuracy, and how many they are."""

    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True)
class RewardQuality:
    """How well the reward predicts held-out votes, ties left out.

    accuracy: with its 95 % interval. ece: expected calibration error over `bins`. ceiling: the accuracy of the true
    utility on the same votes, where it is recorded. source: where the votes are from ("simulated listeners").
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
    """The training data: what it is, clips by split, seconds of a clip, skipped clips by reason, and the fraction of
    clips with each flaw, where flaws are recorded."""

    kind: str
    clips: dict[str, int]
    seconds: float
    quarantined: dict[str, int] = field(default_factory=dict)
    flaw_fractions: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportData:
    """Everything that a report shows. stages: at least one, in the order trained, the baseline first.

    coverage_scale: the concept coverage of matching clips and of clips of other prompts, where they were measured.
    values: of all stages and sweeps, for values.parquet; files are named relative to the report's folder.
    """

    run: RunFacts
    stages: list[StageResult]
    corpus: CorpusFacts | None = None
    reward: RewardQuality | None = None
    curves: list[Curve] = field(default_factory=list)
    sweeps: list[Sweep] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    best_of_n: BestOfN | None = None
    coverage_scale: tuple[float, float] | None = None
    values: Values | None = None


def read_curves(metrics: Path, stage: str, quantities: Sequence[str] = ("loss",)) -> list[Curve]:
    """The curves of the quantities that a `metrics.jsonl` of rows {"step": ..., "loss": ...} has.

    Of a step that is there twice, from before and after a kill, the last row counts; a torn last line is ignored.
    RunError where any other line is not a row.
    """
    lines = metrics.read_text(encoding="utf-8").splitlines()
    by_quantity: dict[str, dict[int, float]] = {quantity: {} for quantity in quantities}
    for place, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            step = int(row["step"])
        except (ValueError, KeyError, TypeError):
            if place == len(lines):
                break
            raise RunError(f"{metrics}, line {place} is not a row of metrics; train the stage again") from None
        for quantity, values in by_quantity.items():
            value = row.get(quantity)
            if value is not None and math.isfinite(value):
                values[step] = float(value)
    return [
        Curve(stage, quantity, sorted(values), [values[step] for step in sorted(values)])
        for quantity, values in by_quantity.items()
        if values
    ]


BEST_OF_N_SEED = 0


@dataclass(frozen=True)
class BestOfNRow:
    """Means over prompts of the best of n by reward, for each n of counts, of the reward and of other metrics.

    divergences: where reward and a metric diverge as n grows; None where they do not.
    """

    source: str
    prompts: int
    counts: list[int]
    reward: list[Interval]
    others: dict[str, list[Interval]]
    divergences: dict[str, Divergence | None]

    @property
    def labels(self) -> list[str]:
        """A label for each point."""
        return [f"best of {n}" if n > 1 else "a random candidate" for n in self.counts]


def summarize_best_of_n(candidates: BestOfN) -> BestOfNRow:
    """Expected values over all draws of n of the candidates; n doubles up to all of them."""
    total = candidates.reward.shape[1]
    counts = sorted({n for power in range(total.bit_length()) if (n := 2**power) <= total} | {total})
    reward = best_of_n(candidates.reward, candidates.reward, counts)
    others = {name: best_of_n(candidates.reward, values, counts) for name, values in candidates.others.items()}
    return BestOfNRow(
        source=candidates.source,
        prompts=len(candidates.reward),
        counts=counts,
        reward=[bootstrap_mean(point, BEST_OF_N_SEED) for point in reward],
        others={name: [bootstrap_mean(point, BEST_OF_N_SEED) for point in series] for name, series in others.items()},
        divergences={name: find_divergence(name, reward, series, BEST_OF_N_SEED) for name, series in others.items()},
    )


@dataclass(frozen=True)
class StageRow:
    """The numbers of one stage; inapplicable ones are None or empty.

    means: of each metric of clips, and the Frechet distance, by name. sets: further set metrics. utility_correlation:
    Spearman, of reward and true utility over clips. previous: the key of the stage that this one started from; None for
    the first row. wins_previous, wins_baseline: win rates against it and against the first row. changes: from it.
    regressions_under_reward: metrics that got worse while the reward rose, both significantly.
    """

    key: str
    title: str
    note: str
    clips: int
    means: dict[str, Interval]
    utility_correlation: Interval | None = None
    wins_previous: Interval | None = None
    wins_baseline: Interval | None = None
    changes: list[Difference] = field(default_factory=list)
    regressions_under_reward: list[str] = field(default_factory=list)
    sets: list[SetValue] = field(default_factory=list)
    previous: str | None = None


@dataclass(frozen=True)
class Results:
    """All numbers of a report.

    overall: changes from the first to the last stage, without tests, which are stage by stage. divergences: of reward
    and another metric along the stages, by metric; None where they do not diverge. wins_by: the metric that decides a
    win. tests: how many p-values were corrected together. metrics: those that the clips of every stage have.
    """

    stages: list[StageRow]
    overall: list[Difference]
    sweeps: list[SweepRow]
    wins_by: str
    tests: int
    reward: RewardQuality | None
    divergences: dict[str, Divergence | None] = field(default_factory=dict)
    best_of_n: BestOfNRow | None = None
    metrics: tuple[str, ...] = ("reward", "clap")


def _place_of_previous(stages: Sequence[StageResult], place: int) -> int:
    keys = [stage.key for stage in stages]
    previous = stages[place].previous
    return place - 1 if previous is None else keys.index(previous)


def summarize(data: ReportData) -> Results:
    """Compute every number of a report; RunError where stages were not evaluated on the same prompts."""
    if not data.stages:
        raise RunError("a report needs at least one evaluated stage; run an evaluation first")
    for stage in data.stages:
        if stage.values.prompts != data.stages[0].values.prompts:
            raise RunError(f"stage {stage.title} was evaluated on other prompts than the first; evaluate it again")
    tables = [stage.values for stage in data.stages]
    metrics = [metric for metric in tables[0].clip_metrics if all(metric in one.clip_metrics for one in tables)]
    wins_by = "utility" if "utility" in metrics else "reward"
    earlier = [_place_of_previous(data.stages, place) for place in range(1, len(data.stages))]
    pairs = [(tables[before], tables[now]) for now, before in enumerate(earlier, start=1)]
    groups, tests = corrected([differences_of_values(before, now, metrics) for before, now in pairs])
    rows = []
    for place, (stage, changes) in enumerate(zip(data.stages, [[], *groups], strict=True)):
        values = {name: stage.values.clip(name) for name in metrics}
        previous, first = (
            win_rate(values[wins_by], other.clip(wins_by), COMPARISON_SEED) if place else None
            for other in (tables[earlier[place - 1] if place else 0], tables[0])
        )
        rows.append(
            StageRow(
                stage.key, stage.title, stage.note, len(stage.values.clips), means_of(stage.values, metrics),
                _correlation(stage.values) if "utility" in metrics else None, previous, first, changes,
                regressions_under_reward(changes), further_sets(stage.values),
                data.stages[earlier[place - 1]].key if place else None,
            )
        )  # fmt: skip
    overall = differences_of_values(tables[0], tables[-1], metrics) if len(tables) > 2 else []
    return Results(
        stages=rows,
        overall=overall,
        sweeps=[sweep_row(sweep) for sweep in data.sweeps if sweep.usable],
        wins_by=wins_by,
        tests=tests,
        reward=data.reward,
        divergences=_divergences(tables, metrics),
        best_of_n=None if data.best_of_n is None else summarize_best_of_n(data.best_of_n),
        metrics=tuple(metrics),
    )


def _divergences(stages: Sequence[Values], metrics: Sequence[str]) -> dict[str, Divergence | None]:
    """Along at least three stages, over the prompts whose clips all have the metric."""
    divergences = {}
    for metric in metrics if len(stages) > 2 else []:
        values = np.stack([stage.clip(metric) for stage in stages])  # [S, B]
        rows = ~np.isnan(values).any(axis=0)
        if metric != "reward" and rows.sum() > 1:
            reward = np.stack([stage.clip("reward") for stage in stages])
            divergences[metric] = find_divergence(metric, reward[:, rows], values[:, rows], COMPARISON_SEED)
    return divergences


def _correlation(values: Values) -> Interval:
    reward, utility = values.clip("reward"), values.clip("utility")
    return bootstrap_statistic(lambda rows: spearman(reward[rows], utility[rows]), len(reward), COMPARISON_SEED)


EXAMPLE_PROMPT = "slow sad piano in a minor key"


@dataclass(frozen=True)
class Recommendation:
    """The stage whose model to use, with reasons in sentences, the command that generates a clip with it, and
    (purpose, command) of what to do next."""

    key: str
    title: str
    reason: str
    command: str
    next_steps: list[tuple[str, str]]


def recommend(data: ReportData, results: Results) -> Recommendation | None:
    """The stage with the highest mean true utility or, where that is not measured, the highest mean reward.

    By reward, stages where another metric regressed are passed over if any other is left. None without any model.
    """
    pairs = [(s, row) for s, row in zip(data.stages, results.stages, strict=True) if s.model is not None]
    if not pairs:
        return None
    metric = results.wins_by
    regressed = {} if metric == "utility" else _regressed_since_first(data, results)
    eligible = [pair for pair in pairs if pair[0].key not in regressed] or pairs
    order = sorted(eligible, key=lambda pair: -pair[1].means[metric].mean)
    stage, row = order[0]
    best = row.means[metric]
    name = text.in_sentence(metric)
    sentences = [f"Its clips have the highest mean {name} of all stages: {text.number(best.mean)} {text.span(best)}."]
    first, runner_up = data.stages[0], order[1][0] if len(order) > 1 else None
    if stage is not first:
        gap = _difference(stage, first, metric)
        sentences.append(f"The difference from {first.title} is {text.difference(gap)}{_doubt(gap)}.")
    if runner_up is not None and runner_up is not first:
        gap = _difference(stage, runner_up, metric)
        if not gap.excludes_zero:
            sentences.append(f"Its lead over {runner_up.title} is {text.difference(gap)}{_doubt(gap)}.")
    for other, other_row in pairs:
        if other.key in regressed and other_row.means[metric].mean > best.mean:
            names = text.listed([text.in_sentence(name) for name in regressed[other.key]])
            sentences.append(f"{other.title} has a higher reward, but its {names} got worse.")
    if metric == "reward":
        sentences.append("The reward only predicts preference: listen before you rely on it.")
    return Recommendation(stage.key, stage.title, " ".join(sentences), _generate(stage), _next_steps(data, stage))


def _regressed_since_first(data: ReportData, results: Results) -> dict[str, list[str]]:
    """By stage, the metrics that got worse since the first stage while reward rose, both significantly."""
    first, *others = data.stages
    groups, _ = corrected([differences_of_values(first.values, one.values, results.metrics) for one in others])
    by_stage = {stage.key: regressions_under_reward(changes) for stage, changes in zip(others, groups, strict=True)}
    return {key: metrics for key, metrics in by_stage.items() if metrics}


def _difference(stage: StageResult, other: StageResult, metric: str) -> Interval:
    return differences_of_values(other.values, stage.values, [metric])[0].difference


def _doubt(difference: Interval) -> str:
    return "" if difference.excludes_zero else ", which is not significant"


def _generate(stage: StageResult, *more: str) -> str:
    options = ["--model", str(stage.model), *stage.options, *more, "-o", "clips"]
    return shlex.join(["plaudit", "generate", EXAMPLE_PROMPT, *options])


def _next_steps(data: ReportData, stage: StageResult) -> list[tuple[str, str]]:
    model, run = str(stage.model), data.run.folder
    settings = ["corpus.folder=music", "corpus.table=music/captions.csv", f"backbone.start_from={model}"]
    train = ["plaudit", "run", "folder", *(word for setting in settings for word in ("--set", setting))]
    compare = [("Compare this run with another", f"{shlex.join(['plaudit', 'compare', run])} OTHER-RUN -o comparison")]
    return [
        ("Keep the best of several candidates", _generate(stage, "--best-of", "8")),
        *(compare if run else []),
        ("Train it further on your own audio", shlex.join(train)),
        ("Export it for sharing", shlex.join(["plaudit", "models", "export", model, "-o", "for-the-hub"])),
    ]


REPORT_NUMBERS = "report.json"

SHOWN = 3
"""Prompts whose players are visible at once; the others are folded away."""


@dataclass(frozen=True)
class StagePlayer:
    """One clip on the page. picture: None where it cannot be drawn, for the reason in `note`. truth: true utility as
    text, where it was measured. recommended: whether its stage is the recommended one."""

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
    """A prompt, what it describes where that is recorded, and the clip of each stage."""

    prompt: str
    truth: dict[str, str]
    players: list[StagePlayer]


def write_report(data: ReportData, folder: Path) -> Path:
    """Write `index.html`, `report.json`, `values.parquet`, `clips.csv`, `table.md` and `audio/` into `folder`; the
    page's path. An earlier report is replaced once the new one is complete; other files stay.

    RunError where stages do not fit together or a clip to listen to is missing.
    """
    folder = Path(folder)
    results = summarize(data)
    with replaced_page(folder) as draft:
        _write_into(draft, folder, data, results)
    return folder / "index.html"


def _write_into(draft: Path, folder: Path, data: ReportData, results: Results) -> None:
    """Write the report into `draft`, which takes the place of `folder`."""
    use = recommend(data, results)
    chosen = None if use is None else use.key
    prompts = [_prompt_players(draft, n, sample, data, chosen) for n, sample in enumerate(data.samples)]
    regression, clips = text.regression_finding(results), text.clip_rows(data, folder)
    best = results.best_of_n
    numbers = {
        "run": asdict(data.run),
        **asdict(results),
        "recommended": None if use is None else asdict(use),
        "regression_finding": regression,
        "corpus": None if data.corpus is None else asdict(data.corpus),
        "coverage_scale": data.coverage_scale,
        "curves": [asdict(curve) for curve in data.curves],
        "clips": clips,
    }
    write_json(draft / REPORT_NUMBERS, numbers)
    write_atomically(draft / CLIPS, csv_of(clips))
    write_atomically(draft / "table.md", text.markdown_table(results))
    if data.values is not None:
        data.values.write(draft / VALUES)
    page = rendered(
        "report.html",
        data=data,
        results=results,
        use=use,
        cells=text.table_cells(results),
        tables=_downloads(data, results),
        summary=text.overall_finding(results),
        findings=text.stage_findings(results),
        regression=regression,
        divergences=_divergence_sentences(results.divergences, [row.title for row in results.stages]),
        divergence_charts=charts.divergence_charts(results),
        best_of_n_divergences=[] if best is None else _divergence_sentences(best.divergences, best.labels),
        best_of_n_charts=charts.best_of_n_charts(results),
        reward_hacking=text.reward_hacking_finding(results),
        correlation=text.correlation_finding(results),
        cautions=cautions(results.metrics),
        coverage=text.coverage_finding(data.coverage_scale) if "concepts" in results.metrics else "",
        reward_finding=text.reward_finding(results),
        sweep_findings=[text.sweep_finding(sweep) for sweep in results.sweeps],
        failed_sweeps=[text.failed_finding(sweep) for sweep in data.sweeps if not sweep.usable],
        stage_charts=charts.stage_charts(results),
        change_charts=charts.change_charts(results),
        sweep_charts=charts.sweep_charts(results.sweeps, {s.title: i for i, s in enumerate(data.stages)}),
        curve_charts=charts.curve_charts(data),
        reliability_chart=charts.reliability_chart(data),
        prompts=prompts,
        shown=SHOWN,
    )
    write_atomically(draft / "index.html", page)


def _downloads(data: ReportData, results: Results) -> dict[str, str]:
    """Each table as CSV, in an address within the page; those without rows are left out."""
    run, corpus = data.run, data.corpus
    facts = [] if corpus is None else _fact_rows(
        {"clips": corpus.clips, "flaw fraction": corpus.flaw_fractions, "skipped": corpus.quarantined}
    )  # fmt: skip
    tables: dict[str, Sequence[Mapping[str, Any]]] = {
        "stages": text.stage_rows(results),
        "changes": text.change_rows(results),
        "sweeps": text.sweep_rows(results.sweeps),
        "reliability": [] if data.reward is None else [asdict(one) for one in data.reward.bins],
        "corpus": facts,
        "run": _fact_rows({"machine": run.machine, "version": run.versions, "seconds": run.step_seconds}),
    }
    return {name: data_address("text/csv", csv_of(rows)) for name, rows in tables.items() if rows}


def _fact_rows(facts: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"kind": kind, "name": name, "value": v} for kind, values in facts.items() for name, v in values.items()]


def _divergence_sentences(divergences: Mapping[str, Divergence | None], labels: Sequence[str]) -> list[str]:
    return [text.divergence_sentence(one, labels, text.in_sentence(metric)) for metric, one in divergences.items()]


def _prompt_players(
    folder: Path, number: int, sample: Sample, data: ReportData, recommended: str | None
) -> PromptPlayers:
    """Copy the clips of one prompt beside the page and draw their spectrograms."""
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
            save_spectrogram(folder / "audio" / f"{name}.png", *read_audio(source))
        except AudioError:
            picture, note = None, "This clip is silent or cannot be read."
        scores = {name: _value(stage.values, sample.row, name) for name in stage.values.clip_metrics}
        truth, chosen = scores.pop("utility", ""), stage.key == recommended
        shown = list(filter(None, scores.values()))
        players.append(StagePlayer(stage.title, colour, f"audio/{target.name}", picture, note, truth, shown, chosen))
    return PromptPlayers(data.stages[0].values.prompts[sample.row], sample.truth, players)


def _value(values: Values, row: int, metric: str) -> str:
    """The value of one clip behind the metric's name; empty where it has none."""
    value = values.clip(metric)[row]
    return "" if np.isnan(value) else f"{text.in_sentence(metric)} {text.number(value, 2)}"
