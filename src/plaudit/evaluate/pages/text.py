"""Numbers and findings in words, and the tables of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plaudit.evaluate.changes import Change
from plaudit.evaluate.overoptimization import Regression, regression_sentence
from plaudit.evaluate.results_table import Better, MetricResult
from plaudit.evaluate.set_metrics import SET_METRICS
from plaudit.files import path_in
from plaudit.statistics import Interval

if TYPE_CHECKING:
    from plaudit.evaluate.pages.report import ReportData, Results, StageRow
    from plaudit.evaluate.pages.sweep import Sweep, SweepRow

HEADINGS = {
    "reward": "Reward",
    "clap": "CLAP score",
    "concepts": "Concept coverage",
    "utility": "True utility",
    "frechet": "Fréchet distance",
    "frechet-infinity": "FAD-infinity",
    "kernel": "Kernel distance (KAD)",
    "mauve": "MAUVE divergence",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
    "vendi": "Vendi score",
}
"""At the head of a column or a chart."""

IN_SENTENCES = {
    "reward": "mean reward",
    "clap": "CLAP score",
    "concepts": "concept coverage",
    "frechet": "Fréchet distance",
    "utility": "true utility",
}


def better(metric: str) -> Better:
    """Which way a metric is better."""
    return SET_METRICS[metric].better if metric in SET_METRICS else "higher"


MINUS = "\N{MINUS SIGN}"


def number(value: float, digits: int = 3) -> str:
    """A number with a real minus sign and no minus zero."""
    text = f"{value:.{digits}f}"
    if float(text) == 0.0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def signed(value: float, digits: int = 3) -> str:
    """A number that always shows its sign, for differences."""
    text = number(value, digits)
    return text if text.startswith(MINUS) or float(text) == 0.0 else f"+{text}"


def span(interval: Interval, digits: int = 3) -> str:
    """The ends of an interval: "[0.051, 0.193]"."""
    return f"[{number(interval.low, digits)}, {number(interval.high, digits)}]"


def percent(value: float, digits: int = 0) -> str:
    """A share as a percentage."""
    return f"{100 * value:.{digits}f} %"


def percent_span(interval: Interval, digits: int = 0) -> str:
    """The ends of an interval of a share: "[46 %, 61 %]"."""
    return f"[{percent(interval.low, digits)}, {percent(interval.high, digits)}]"


def p_value(p: float) -> str:
    """ "p = 0.031", or "p < 0.001" below what anyone should read into."""
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


def stage_findings(results: Results, utility_name: str) -> list[tuple[str, str]]:
    """For each stage after the first, its title and what it did to every metric, compared with the stage before."""
    return [(row.title, _changes_in_words(row.changes, utility_name)) for row in results.stages[1:]]


def overall_finding(results: Results, utility_name: str) -> str:
    """What all stages together did; empty where there are fewer than three, which `stage_findings` says all about."""
    if not results.overall:
        return ""
    first, last = results.stages[0], results.stages[-1]
    sentence = f"From {first.title} to {last.title}, the chain {_changes_in_words(results.overall, utility_name)}"
    if last.wins_baseline is not None:
        share = f"{percent(last.wins_baseline.mean)} {percent_span(last.wins_baseline)}"
        sentence += f" {last.title} wins {share} of prompts against {first.title}, by "
        sentence += f"{utility_name if results.wins_by == 'utility' else 'reward'}."
    return sentence


def _changes_in_words(changes: list[Change], utility_name: str) -> str:
    """ "raised mean reward by 0.12 [0.05, 0.19]. No change in CLAP score (...) can be told from chance ..." """
    names = IN_SENTENCES | {"utility": utility_name}
    established = [change for change in changes if change.established]
    verdicts = {
        "raised": [f"{names[c.metric]} by {_amount(c.difference)}" for c in established if c.difference.mean > 0],
        "lowered": [f"{names[c.metric]} by {_amount(c.difference)}" for c in established if c.difference.mean < 0],
    }
    uncorrected = [c for c in changes if c.difference.excludes_zero and not c.established]
    within = [c for c in changes if not c.difference.excludes_zero]
    parts = [f"{verb} {_listed(what)}" for verb, what in verdicts.items() if what]
    sentences = [" and ".join(parts) or "made no established difference"]
    for change in uncorrected:
        sentences.append(
            f"A change in {names[change.metric]} of {_gap(change)} does not survive the correction for many tests"
            f" ({p_value(change.p_holm or 0.0)})"
        )
    if within:
        what = _listed([f"{names[c.metric]} ({_gap(c)})" for c in within], "or")
        includes = "the interval includes" if len(within) == 1 else "the intervals include"
        sentences.append(f"No change in {what} can be told from chance: {includes} zero")
    return ". ".join(sentences) + "."


def _gap(change: Change) -> str:
    return f"{signed(change.difference.mean)} {span(change.difference)}"


def _amount(gap: Interval) -> str:
    """The size of a change and its interval, both positive when the change is what the verb says."""
    low, high = sorted((abs(gap.low), abs(gap.high)))
    return f"{number(abs(gap.mean))} [{number(low)}, {number(high)}]"


def divergence_finding(results: Results, utility_name: str) -> str:
    """One line on all stages: which raised reward at the cost of another metric; empty for a single stage."""
    if len(results.stages) < 2:
        return ""
    return regression_sentence(
        [Regression(r.title, regressed_metrics(r, utility_name)) for r in results.stages if r.regressions_under_reward]
    )


def regressed_metrics(row: StageRow, utility_name: str) -> list[str]:
    """What a stage's reward was paid for with, by the names that people read."""
    names = IN_SENTENCES | {"utility": utility_name}
    return [names[metric] for metric in row.regressions_under_reward]


def exploitation_finding(results: Results, utility_name: str) -> str:
    """Where reward rose and the truth fell, stage by stage; empty where no truth is known."""
    if any(row.utility is None for row in results.stages) or len(results.stages) < 2:
        return ""
    exploited = []
    for row in results.stages[1:]:
        changes = {change.metric: change for change in row.changes}
        if changes["reward"].established and changes["reward"].difference.mean > 0:
            if changes["utility"].established and changes["utility"].difference.mean < 0:
                exploited.append(row.title)
    first, last = results.stages[0], results.stages[-1]
    if exploited:
        return f"Reward rose while {utility_name} fell at {_listed(exploited)}: there the reward was exploited."
    moved = (last.reward.mean - first.reward.mean, last.utility.mean - first.utility.mean)  # type: ignore[union-attr]
    return (
        f"No stage raised reward while lowering {utility_name} beyond chance. From {first.title} to {last.title}, "
        f"reward moved by {signed(moved[0])} and {utility_name} by {signed(moved[1])}."
    )


def agreement_finding(results: Results, utility_name: str) -> str:
    """How well the reward ranks clips within the first and the last stage; empty where no truth is known."""
    first, last = results.stages[0], results.stages[-1]
    if first.agreement is None or last.agreement is None or first is last:
        return ""
    return (
        f"Between clips of one stage, reward and {utility_name} rank alike with Spearman "
        f"{number(first.agreement.mean, 2)} {span(first.agreement, 2)} for {first.title} and "
        f"{number(last.agreement.mean, 2)} {span(last.agreement, 2)} for {last.title}; a fall means that the reward "
        f"is running out of what it knows."
    )


def sweep_finding(sweep: SweepRow, utility_name: str) -> str:
    """Whether the model does what the score asks of it."""
    follows = sweep.follows
    if follows.low > 0.0:
        verdict = "mean reward rises with the score asked for"
    elif follows.high < 0.0:
        verdict = "mean reward falls as the score asked for rises"
    else:
        verdict = "mean reward does not clearly follow the score asked for"
    sentence = (
        f"{sweep.stage}: {verdict} (Spearman {number(follows.mean, 2)} {span(follows, 2)} over {len(sweep.asked)} "
        f"scores, {sweep.clips} prompts), over a range of {number(sweep.spread)}."
    )
    if sweep.truth_follows is not None:
        truth = sweep.truth_follows
        sentence += f" For {utility_name} that Spearman is {number(truth.mean, 2)} {span(truth, 2)}."
    for score, reason in sweep.failed.items():
        sentence += f" The clips asked for {score:g} are in none of this: {reason}."
    return sentence


def failed_finding(sweep: Sweep) -> str:
    """Why there is nothing to say of a sweep."""
    reasons = "; ".join(f"asked for {score:g}, {reason}" for score, reason in sweep.failed.items())
    return f"{sweep.stage}: too few of its clips can be judged to say whether it follows the score ({reasons})."


def coverage_finding(scale: tuple[float, float] | None) -> str:
    """What concept coverages are to be held against: those of right clips, and of clips of other prompts."""
    if scale is None:
        return ""
    right, other = scale
    return (
        f"Whoever hears concepts is wrong at times: clips that have all they were asked for reach {number(right, 2)}, "
        f"and clips of other prompts {number(other, 2)}."
    )


def reward_finding(results: Results) -> str:
    """How good the reward is at its one task; empty where it was not tested."""
    quality = results.reward
    if quality is None:
        return ""
    reached = Interval(quality.accuracy, quality.accuracy_low, quality.accuracy_high)
    share = f"{percent(quality.accuracy, 1)} {percent_span(reached, 1)}"
    sentence = f"The reward predicts {share} of {quality.votes} held-out votes"
    if quality.ceiling is not None:
        sentence += (
            f", {number(100 * (quality.ceiling - quality.accuracy), 1)} points below the {percent(quality.ceiling, 1)} "
            f"that the listeners' own noise allows"
        )
    sentence += f". Its confidence is off by {number(quality.ece)} on average (ECE)."
    if quality.accuracy_low > 0.5:
        return sentence
    return f"{sentence} The interval includes 50 %: it may be no better than chance, and so all that was trained on it."


def _listed(names: list[str], word: str = "and") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


HEADLINE_METRICS = ("reward", "clap", "concepts", "frechet", "utility")
"""The metrics of the main table; those that are not known are left out. Others of a set have a table of their own."""

EMPTY = "\N{EN DASH}"


@dataclass(frozen=True)
class Cell:
    """One number with its interval. `verdict` is "better", "worse" or "" where nothing is established."""

    value: str
    interval: str
    note: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class TableCells:
    """The tables as text: headings [C], then per stage its cells [C].

    set_rows: of further metrics of the set, a row per metric: its name, which way is better, and a cell per stage.
    set_notes: what a reader of these must know.
    """

    headings: list[str]
    keys: list[str]
    rows: list[tuple[StageRow, list[Cell]]]
    change_rows: list[tuple[StageRow, list[Cell]]]
    set_rows: list[tuple[str, str, list[Cell]]]
    set_notes: list[str]


def known_metrics(results: Results) -> list[str]:
    """The metrics of the main table that are known of this run."""
    return [key for key in HEADLINE_METRICS if key == "frechet" or key in results.metrics]


def heading(metric: str, utility_name: str) -> str:
    """What a metric is called at the head of a column."""
    return utility_name.capitalize() if metric == "utility" else HEADINGS[metric]


def table_cells(results: Results, utility_name: str) -> TableCells:
    """The cells of all tables, in the same order of metrics."""
    keys = known_metrics(results)
    set_rows, set_notes = _set_cells([row.sets for row in results.stages])
    return TableCells(
        headings=[heading(key, utility_name) for key in keys],
        keys=keys,
        rows=[
            (row, [_level(getattr(row, key)) for key in keys] + [_share(row.wins_previous), _share(row.wins_baseline)])
            for row in results.stages
        ],
        change_rows=[(row, [_change(_of(row.changes, key)) for key in keys]) for row in results.stages[1:]],
        set_rows=set_rows,
        set_notes=set_notes,
    )


def _set_cells(stages: Sequence[Sequence[MetricResult]]) -> tuple[list[tuple[str, str, list[Cell]]], list[str]]:
    """Rows of the metrics that every stage has, and the distinct notes on them."""
    names = [one.name for one in stages[0] if all(any(o.name == one.name for o in other) for other in stages)]
    rows, notes = [], list[str]()
    for name in names:
        found = [next(one for one in stage if one.name == name) for stage in stages]
        rows.append((HEADINGS[name], f"{found[0].better} is better", [_set_cell(one) for one in found]))
        notes += [f"{HEADINGS[name]}: {one.note}." for one in found if one.note]
    return rows, list(dict.fromkeys(notes))


def _set_cell(result: MetricResult) -> Cell:
    if result.value is None:
        return Cell(EMPTY, "")
    if result.low is None or result.high is None:
        return Cell(number(result.value), "")
    return Cell(number(result.value), span(Interval(result.value, result.low, result.high)))


def markdown_table(results: Results, utility_name: str) -> str:
    """The tables of stages in Markdown, for pasting into documents."""
    cells = table_cells(results, utility_name)
    headings = ["Stage", *cells.headings, "Wins against previous", "Wins against baseline"]
    lines = [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    for row, numbers in cells.rows:
        lines.append(f"| {' | '.join([row.title.replace('|', '/'), *map(_text, numbers)])} |")
    lines += ["", "| Change against previous | " + " | ".join(cells.headings) + " |"]
    lines.append(f"|{'---|' * (len(cells.headings) + 1)}")
    for row, numbers in cells.change_rows:
        flag = (
            f" (reward paid for with {', '.join(regressed_metrics(row, utility_name))})"
            if row.regressions_under_reward
            else ""
        )
        lines.append(f"| {' | '.join([row.title.replace('|', '/') + flag, *map(_text, numbers)])} |")
    if cells.set_rows:
        titles = [row.title.replace("|", "/") for row in results.stages]
        lines += ["", f"| Metric of the set | {' | '.join(titles)} |", f"|{'---|' * (len(titles) + 1)}"]
        lines += [f"| {name}, {way} | {' | '.join(map(_text, row))} |" for name, way, row in cells.set_rows]
    if flags := divergence_finding(results, utility_name):
        lines += ["", flags]
    lines += [
        "",
        f"Mean and 95 % bootstrap interval over {results.stages[0].clips} held-out prompts; wins are decided by "
        f"{results.wins_by}; changes are paired by prompt with BCa intervals, g is Hedges' effect size, p-values are "
        f"of paired t-tests, corrected together (Holm, {results.tests} tests).",
    ]
    return "\n".join(lines) + "\n"


def _text(cell: Cell) -> str:
    return " ".join(filter(None, [cell.value, cell.interval, f"({cell.note})" if cell.note else ""]))


def _level(interval: Interval) -> Cell:
    return Cell(number(interval.mean), span(interval))


def _share(interval: Interval | None) -> Cell:
    return Cell(EMPTY, "") if interval is None else Cell(percent(interval.mean), percent_span(interval))


def _of(changes: Sequence[Change], metric: str) -> Change | None:
    return next((change for change in changes if change.metric == metric), None)


def _change(change: Change | None) -> Cell:
    if change is None:
        return Cell(EMPTY, "")
    effect = "" if change.effect is None else f"g {signed(change.effect.g, 2)}"
    test = "" if change.p_holm is None else p_value(change.p_holm)
    return Cell(
        value=signed(change.difference.mean),
        interval=span(change.difference),
        note=", ".join(filter(None, [effect, test])),
        verdict=change.verdict,
    )


def stage_rows(results: Results) -> list[dict[str, Any]]:
    """Every metric of every stage, a row each."""
    rows = []
    for row in results.stages:
        means = {key: getattr(row, key) for key in known_metrics(results)}
        means |= {"wins-previous": row.wins_previous, "wins-baseline": row.wins_baseline, "agreement": row.agreement}
        for metric, value in means.items():
            if value is not None:
                rows.append(_row(row.key, metric, value.mean, value.low, value.high, better(metric), row.clips, ""))
        for one in row.sets:
            rows.append(_row(row.key, one.name, one.value, one.low, one.high, one.better, one.clips, one.note))
    return rows


def _row(stage: str, metric: str, *rest: Any) -> dict[str, Any]:
    columns = ("value", "low", "high", "better", "clips", "note")
    return {"stage": stage, "metric": metric, **dict(zip(columns, rest, strict=True))}


def change_rows(results: Results) -> list[dict[str, Any]]:
    """Every change against the stage before, a row each."""
    return [
        {
            "stage": row.key,
            "against": results.stages[place].key,
            "metric": change.metric,
            "difference": change.difference.mean,
            "low": change.difference.low,
            "high": change.difference.high,
            "p_t": change.p_t,
            "p_wilcoxon": change.p_wilcoxon,
            "p_holm": change.p_holm,
            "hedges_g": None if change.effect is None else change.effect.g,
            "rank_biserial": None if change.effect is None else change.effect.rank_biserial,
            "clips": change.clips,
            "verdict": change.verdict,
        }
        for place, row in enumerate(results.stages[1:])
        for change in row.changes
    ]


def sweep_rows(sweeps: Sequence[SweepRow]) -> list[dict[str, Any]]:
    """Every metric of every point of every sweep, a row each."""
    rows = []
    for sweep in sweeps:
        for metric in ("reward", "clap", "concepts", "utility", "frechet"):
            for score, value in zip(sweep.asked, getattr(sweep, metric) or [], strict=False):
                rows.append(_point(sweep, score, metric, value.mean, value.low, value.high))
        for metric, values in sweep.sets.items():
            for score, one in zip(sweep.asked, values, strict=True):
                rows.append(_point(sweep, score, metric, one.value, one.low, one.high))
    return rows


def _point(sweep: SweepRow, score: float, metric: str, *value: float | None) -> dict[str, Any]:
    numbers = dict(zip(("value", "low", "high"), value, strict=True))
    return {"model": sweep.stage, "score": score, "metric": metric, **numbers, "clips": sweep.clips}


def clip_rows(data: ReportData, folder: Path) -> list[dict[str, Any]]:
    """Every clip's file and values, as `plaudit compare` reads them from a table in `folder`."""
    rows = []
    with_files = any(stage.clips is not None for stage in data.stages)
    for stage in data.stages:
        scores = stage.scores
        values = {name: getattr(scores, name) for name in ("reward", "clap", "concepts", "utility")}
        for place, prompt in enumerate(scores.prompts):
            told = {name: None if v is None or v[place] != v[place] else float(v[place]) for name, v in values.items()}
            id = f"{place:04d}"
            file = "" if stage.clips is None else path_in(folder, stage.clips / f"{id}.wav")
            files = {"file": file} if with_files else {}
            rows.append({"system": stage.key, "id": id, "prompt": prompt, **files, **told})
    return rows
