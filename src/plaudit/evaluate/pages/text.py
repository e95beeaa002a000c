"""Numbers, findings and tables as the pages print them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plaudit.evaluate.comparison import Difference
from plaudit.evaluate.metrics import cautions, lower_is_better, metric_called
from plaudit.evaluate.overoptimization import Divergence, Regression, regression_sentence
from plaudit.evaluate.values import SetValue
from plaudit.files import path_in
from plaudit.statistics import Interval

if TYPE_CHECKING:
    from plaudit.evaluate.pages.report import ReportData, Results, StageRow
    from plaudit.evaluate.pages.sweep import Sweep, SweepRow

EMPTY = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def heading(metric: str) -> str:
    """A metric at the head of a column, with the encoder in "frechet-synthetic"."""
    return metric_called(metric).heading + _encoder(metric)


def in_sentence(metric: str) -> str:
    """A metric within a sentence."""
    return metric_called(metric).in_sentence + _encoder(metric)


def _encoder(metric: str) -> str:
    encoder = metric.removeprefix(metric_called(metric).name).removeprefix("-")
    return f" ({encoder})" if encoder else ""


def directed_heading(metric: str) -> str:
    """The heading, with the direction of a metric that is better where it is lower."""
    return heading(metric) + (" (lower is better)" if lower_is_better(metric) else "")


def number(value: float, digits: int = 3) -> str:
    """A number with a real minus sign and no minus zero."""
    text = f"{value:.{digits}f}"
    if float(text) == 0.0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def signed(value: float, digits: int = 3) -> str:
    """A difference: a number that always shows its sign."""
    text = number(value, digits)
    return text if text.startswith(MINUS) or float(text) == 0.0 else f"+{text}"


def span(interval: Interval, digits: int = 3) -> str:
    """The ends of an interval: "[0.051, 0.193]"."""
    return f"[{number(interval.low, digits)}, {number(interval.high, digits)}]"


def percent(value: float, digits: int = 0) -> str:
    """A fraction as a percentage."""
    return f"{100 * value:.{digits}f} %"


def percent_span(interval: Interval, digits: int = 0) -> str:
    """The ends of an interval of a fraction: "[46 %, 61 %]"."""
    return f"[{percent(interval.low, digits)}, {percent(interval.high, digits)}]"


def p_value(p: float) -> str:
    """ "p = 0.031" or "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def duration(seconds: float) -> str:
    """ "48 s", "14 min", "2 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def memory(size: int) -> str:
    """Bytes in GB (10^9)."""
    return f"{size / 1e9:.1f} GB"


def listed(names: Sequence[str], word: str = "and") -> str:
    """ "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def difference(interval: Interval) -> str:
    """A difference with its interval: "+0.120 [0.051, 0.193]"."""
    return f"{signed(interval.mean)} {span(interval)}"


def stage_findings(results: Results) -> list[tuple[str, str]]:
    """For each stage after the first, its title and what changed from the stage it started from."""
    return [(compared_title(row, results), _changes_in_words(row.changes)) for row in results.stages[1:]]


def compared_title(row: StageRow, results: Results) -> str:
    """The title of a stage, with that of the stage it is compared with unless that is the one before."""
    keys = [one.key for one in results.stages]
    if row.previous is None or keys.index(row.previous) == keys.index(row.key) - 1:
        return row.title
    return f"{row.title}, from {results.stages[keys.index(row.previous)].title}"


def overall_finding(results: Results) -> str:
    """The change from the first stage to the last; empty for fewer than three stages."""
    if not results.overall:
        return ""
    first, last = results.stages[0], results.stages[-1]
    sentence = f"From {first.title} to {last.title}, the pipeline {_changes_in_words(results.overall)}"
    if last.wins_baseline is not None:
        wins = f"{percent(last.wins_baseline.mean)} {percent_span(last.wins_baseline)}"
        sentence += f" {last.title} wins on {wins} of prompts against {first.title}, by {in_sentence(results.wins_by)}."
    return sentence


def _changes_in_words(changes: Sequence[Difference]) -> str:
    """ "raised reward by 0.12 [0.05, 0.19]. No significant change in CLAP score (...)." """
    established = [change for change in changes if change.established]
    parts = []
    for verb, sign in (("raised", 1), ("lowered", -1)):
        moved = [c for c in established if c.difference.mean * sign > 0]
        if moved:
            parts.append(f"{verb} {listed([f'{in_sentence(c.metric)} by {_amount(c.difference)}' for c in moved])}")
    sentences = [" and ".join(parts) or "made no significant difference"]
    for change in changes:
        if change.difference.excludes_zero and not change.established:
            sentences.append(
                f"The change in {in_sentence(change.metric)} of {difference(change.difference)} is not significant "
                f"after correction for multiple tests ({p_value(change.p_holm or 0.0)})"
            )
    open_ = [c for c in changes if not c.difference.excludes_zero]
    if open_:
        within = [f"{in_sentence(c.metric)} ({difference(c.difference)})" for c in open_]
        sentences.append(f"No significant change in {listed(within, 'or')}")
    return ". ".join(sentences) + "."


def _amount(gap: Interval) -> str:
    """The size of a difference and its interval, both positive where it goes the way that the verb says."""
    low, high = sorted((abs(gap.low), abs(gap.high)))
    return f"{number(abs(gap.mean))} [{number(low)}, {number(high)}]"


def regression_finding(results: Results) -> str:
    """One sentence on which stages raised reward at the cost of another metric; empty for a single stage."""
    if len(results.stages) < 2:
        return ""
    return regression_sentence(
        [Regression(row.title, regressed_metrics(row)) for row in results.stages if row.regressions_under_reward]
    )


def regressed_metrics(row: StageRow) -> list[str]:
    """The metrics that got worse while a stage raised the reward, as text."""
    return [in_sentence(metric) for metric in row.regressions_under_reward]


def divergence_sentence(divergence: Divergence | None, labels: Sequence[str], name: str) -> str:
    """Where along a series the reward and a metric called `name` diverge, and how certain that is."""
    if divergence is None:
        return f"Reward and {name} do not diverge: there is no point after which reward rises while {name} gets worse."
    place, low, high = (labels[at] for at in (divergence.place, divergence.low, divergence.high))
    moves = (
        f"from {place} to {labels[divergence.end]}, reward rises by {number(divergence.rise.mean)} "
        f"{span(divergence.rise)} while {name} gets worse by {number(divergence.loss.mean)} {span(divergence.loss)} "
        f"({p_value(divergence.p)}, corrected for the choice of points)"
    )
    if not divergence.established:
        return f"Reward and {name} do not diverge significantly: {moves}."
    interval = low if low == high else f"{low} to {high}"
    certainty = f"95 % interval: {interval}; in {percent(divergence.share)} of bootstrap samples"
    return f"Reward and {name} diverge from {place} on ({certainty}): {moves}."


def reward_hacking_finding(results: Results) -> str:
    """The stages where reward rose and true utility fell; empty where true utility is not measured."""
    first, last = results.stages[0], results.stages[-1]
    if first is last or any("utility" not in row.means for row in results.stages):
        return ""
    hacked = []
    for row in results.stages[1:]:
        changes = {change.metric: change for change in row.changes if change.established}
        if {"reward", "utility"} <= changes.keys():
            if changes["reward"].difference.mean > 0 > changes["utility"].difference.mean:
                hacked.append(row.title)
    if hacked:
        return f"Reward rose while true utility fell at {listed(hacked)}: the reward was exploited there."
    moved = [signed(last.means[name].mean - first.means[name].mean) for name in ("reward", "utility")]
    return (
        f"No stage raised reward while significantly lowering true utility. From {first.title} to {last.title}, mean "
        f"reward changed by {moved[0]} and mean true utility by {moved[1]}."
    )


def correlation_finding(results: Results) -> str:
    """How well the reward ranks clips within the first and the last stage; empty where true utility is not measured."""
    first, last = (results.stages[place].utility_correlation for place in (0, -1))
    if first is None or last is None or len(results.stages) < 2:
        return ""
    values = [
        f"{number(value.mean, 2)} {span(value, 2)} for {row.title}"
        for value, row in ((first, results.stages[0]), (last, results.stages[-1]))
    ]
    return (
        f"Across the clips of one stage, reward and true utility have a Spearman correlation of {listed(values)}. "
        "A falling correlation means that the reward model predicts preferences less well on that stage's clips."
    )


def sweep_finding(sweep: SweepRow) -> str:
    """Whether the reward of a model's clips follows the conditioning score."""
    correlation = sweep.reward_correlation
    if correlation.low > 0.0:
        verdict = "mean reward rises with the conditioning score"
    elif correlation.high < 0.0:
        verdict = "mean reward falls as the conditioning score rises"
    else:
        verdict = "mean reward does not clearly follow the conditioning score"
    sentence = (
        f"{sweep.stage}: {verdict} (Spearman {number(correlation.mean, 2)} {span(correlation, 2)} over "
        f"{len(sweep.scores)} scores and {sweep.clips} prompts), over a range of {number(sweep.reward_range)}."
    )
    if sweep.utility_correlation is not None:
        truth = sweep.utility_correlation
        sentence += f" For true utility, the correlation is {number(truth.mean, 2)} {span(truth, 2)}."
    for score, reason in sweep.failed.items():
        sentence += f" Score {score:g} is left out: {reason}."
    return sentence


def failed_finding(sweep: Sweep) -> str:
    """Why a sweep has no numbers."""
    reasons = "; ".join(f"score {score:g}: {reason}" for score, reason in sweep.failed.items())
    return f"{sweep.stage}: fewer than two conditioning scores could be evaluated ({reasons})."


def coverage_finding(scale: tuple[float, float] | None) -> str:
    """The concept coverage of matching clips and of clips of other prompts, as a scale for the table's."""
    if scale is None:
        return ""
    right, other = scale
    return (
        f"The concept detector is imperfect: it finds a coverage of {number(right, 2)} in clips that have every "
        f"concept of their prompt, and of {number(other, 2)} in clips of other prompts."
    )


def reward_finding(results: Results) -> str:
    """How well the reward predicts held-out votes; empty where it was not tested."""
    quality = results.reward
    if quality is None:
        return ""
    interval = Interval(quality.accuracy, quality.accuracy_low, quality.accuracy_high)
    sentence = (
        f"The reward predicts {percent(quality.accuracy, 1)} {percent_span(interval, 1)} of {quality.votes} held-out "
        "votes"
    )
    if quality.ceiling is not None:
        gap = number(100 * (quality.ceiling - quality.accuracy), 1)
        sentence += f", {gap} points below the ceiling of {percent(quality.ceiling, 1)} that listener noise sets"
    sentence += f". Its expected calibration error (ECE) is {number(quality.ece)}."
    if quality.accuracy_low > 0.5:
        return sentence
    return f"{sentence} The interval includes 50 %, so the reward may be no better than chance."


@dataclass(frozen=True)
class Cell:
    """One number with its interval. verdict: "better", "worse", or "" where nothing is significant."""

    value: str
    interval: str = ""
    note: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class TableCells:
    """The tables as text: headings [C], then per stage its cells [C].

    set_rows: a row per further set metric: its heading, which way is better, and a cell per stage. set_notes: how to
    read them.
    """

    headings: list[str]
    keys: list[str]
    rows: list[tuple[StageRow, list[Cell]]]
    change_rows: list[tuple[StageRow, list[Cell]]]
    set_rows: list[tuple[str, str, list[Cell]]]
    set_notes: list[str]


def headline_metrics(results: Results) -> list[str]:
    """The columns of the main table: the metrics of clips and the Frechet distance, where every stage has them."""
    return [key for key in results.stages[0].means if all(key in row.means for row in results.stages)]


def table_cells(results: Results) -> TableCells:
    """The cells of all tables, with the same order of metrics."""
    keys = headline_metrics(results)
    rows = [
        (row, [*(level_cell(row.means[key]) for key in keys), *map(_fraction, (row.wins_previous, row.wins_baseline))])
        for row in results.stages
    ]
    change_rows = []
    for row in results.stages[1:]:
        changes = {change.metric: change for change in row.changes}
        change_rows.append((row, [_change(changes.get(key)) for key in keys]))
    set_rows, set_notes = _set_cells([row.sets for row in results.stages])
    return TableCells([heading(key) for key in keys], keys, rows, change_rows, set_rows, set_notes)


def _set_cells(stages: Sequence[Sequence[SetValue]]) -> tuple[list[tuple[str, str, list[Cell]]], list[str]]:
    """Rows of the metrics that every stage has, and the distinct notes on them."""
    by_name = [{one.metric: one for one in stage} for stage in stages]
    rows, notes = [], dict[str, None]()
    for name in by_name[0]:
        if all(name in stage for stage in by_name):
            row = [stage[name] for stage in by_name]
            rows.append((heading(name), f"{metric_called(name).better} is better", [set_cell(one) for one in row]))
            notes |= dict.fromkeys(f"{heading(name)}: {one.note}." for one in row if one.note)
    return rows, list(notes)


def set_cell(result: SetValue) -> Cell:
    """A metric of a set of clips."""
    if result.value is None:
        return Cell(EMPTY, note=result.note)
    if result.low is None or result.high is None:
        return Cell(number(result.value))
    return level_cell(Interval(result.value, result.low, result.high))


def markdown_table(results: Results) -> str:
    """The tables of stages in Markdown, for pasting into documents."""
    cells, lines = table_cells(results), list[str]()

    def add(headings: Sequence[str], rows: Sequence[tuple[str, Sequence[Cell]]]) -> None:
        lines.extend(["", f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"])
        lines.extend(f"| {' | '.join([name.replace('|', '/'), *map(_text, row)])} |" for name, row in rows)

    def title(row: StageRow) -> str:
        regressed = regressed_metrics(row)
        return compared_title(row, results) + (f" (regressed: {', '.join(regressed)})" if regressed else "")

    add(["Stage", *cells.headings, "Win rate vs its start", f"Win rate vs {results.stages[0].title}"],
        [(row.title, numbers) for row, numbers in cells.rows])  # fmt: skip
    add(["Change from its start", *cells.headings], [(title(row), numbers) for row, numbers in cells.change_rows])
    if cells.set_rows:
        titles = [row.title.replace("|", "/") for row in results.stages]
        add(["Set metric", *titles], [(f"{name}, {way}", row) for name, way, row in cells.set_rows])
    if finding := regression_finding(results):
        lines += ["", finding]
    lines += [
        "",
        f"Mean and 95 % bootstrap interval over {results.stages[0].clips} held-out prompts. Wins are decided by "
        f"{in_sentence(results.wins_by)}. Changes are paired by prompt, with BCa intervals, Hedges' g and p-values of "
        f"paired t-tests (Holm-corrected over {results.tests} tests).",
        *(f"\n{line}" for line in cautions(cells.keys)),
    ]
    return "\n".join(lines[1:]) + "\n"


def _text(cell: Cell) -> str:
    return " ".join(filter(None, [cell.value, cell.interval, f"({cell.note})" if cell.note else ""]))


def level_cell(interval: Interval) -> Cell:
    """A mean with its interval."""
    return Cell(number(interval.mean), span(interval))


def _fraction(interval: Interval | None) -> Cell:
    return Cell(EMPTY) if interval is None else Cell(percent(interval.mean), percent_span(interval))


def _change(change: Difference | None) -> Cell:
    if change is None:
        return Cell(EMPTY)
    effect = "" if change.effect is None else f"g {signed(change.effect.g, 2)}"
    test = "" if change.p_holm is None else p_value(change.p_holm)
    note = ", ".join(filter(None, [effect, test]))
    return Cell(signed(change.difference.mean), span(change.difference), note, change.direction)


Rows = list[dict[str, Any]]


def value_columns(value: Interval | SetValue) -> dict[str, Any]:
    """A value and the ends of its interval."""
    mean = value.mean if isinstance(value, Interval) else value.value
    return {"value": mean, "low": value.low, "high": value.high}


def stage_rows(results: Results) -> Rows:
    """Every metric of every stage, a row each."""
    rows = []
    for row in results.stages:
        values: dict[str, Interval | SetValue | None] = {
            **row.means, "wins_previous": row.wins_previous, "wins_baseline": row.wins_baseline,
            "utility_correlation": row.utility_correlation, **{one.metric: one for one in row.sets},
        }  # fmt: skip
        for metric, value in values.items():
            if value is not None:
                note = value.note if isinstance(value, SetValue) else ""
                facts = {"better": metric_called(metric).better, "clips": row.clips, "note": note}
                rows.append({"stage": row.key, "metric": metric} | value_columns(value) | facts)
    return rows


def change_rows(results: Results) -> Rows:
    """Every change from the previous stage, a row each."""
    return [
        {
            "stage": row.key,
            "previous": row.previous,
            "metric": change.metric,
            "difference": change.difference.mean,
            "low": change.difference.low,
            "high": change.difference.high,
            "p_t": change.p,
            "p_wilcoxon": change.p_wilcoxon,
            "p_holm": change.p_holm,
            "hedges_g": None if change.effect is None else change.effect.g,
            "rank_biserial": None if change.effect is None else change.effect.rank_biserial,
            "clips": change.prompts,
            "verdict": change.direction,
        }
        for row in results.stages[1:]
        for change in row.changes
    ]


def sweep_rows(sweeps: Sequence[SweepRow]) -> Rows:
    """Every metric at every score of every sweep, a row each."""
    rows = []
    for sweep in sweeps:
        values: Mapping[str, Sequence[Interval | SetValue]] = {**sweep.means, **sweep.sets}
        for metric, points in values.items():
            for score, value in zip(sweep.scores, points, strict=True):
                where = {"model": sweep.stage, "score": score, "metric": metric}
                rows.append(where | value_columns(value) | {"clips": sweep.clips})
    return rows


def clip_rows(data: ReportData, folder: Path) -> Rows:
    """Every clip's file and values, in the columns of a table that `plaudit compare` reads in `folder`."""
    rows = []
    with_files = any(stage.clips is not None for stage in data.stages)
    for stage in data.stages:
        metrics = {name: stage.values.clip(name) for name in stage.values.clip_metrics}
        for place, prompt in enumerate(stage.values.prompts):
            values = {name: None if isnan(of[place]) else float(of[place]) for name, of in metrics.items()}
            id = f"{place:04d}"
            file = "" if stage.clips is None else path_in(folder, stage.clips / f"{id}.wav")
            files = {"file": file} if with_files else {}
            rows.append({"system": stage.key, "id": id, "prompt": prompt, **files, **values})
    return rows
