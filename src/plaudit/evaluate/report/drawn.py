"""The charts of a report, in the order in which they stand on its page."""

from __future__ import annotations

from collections.abc import Sequence

from plaudit.evaluate.report import plots, watch
from plaudit.evaluate.report.charts import Chart, chart
from plaudit.evaluate.report.data import ReportData
from plaudit.evaluate.report.figures import Difference, forest, forest_size
from plaudit.evaluate.report.names import IN_SENTENCES, better
from plaudit.evaluate.report.results import Results
from plaudit.evaluate.report.table import heading, known_metrics
from plaudit.evaluate.statistics import Interval
from plaudit.evaluate.sweeps.score import SweepRow


def stage_charts(results: Results, utility_name: str) -> list[Chart]:
    """Each metric by stage."""
    rows, charts = results.stages, []
    for key in known_metrics(results):
        title = heading(key, utility_name) + (" (lower is closer)" if better(key) == "lower" else "")
        alt = f"{title} by stage with 95 % intervals; the numbers are in the table."
        draw = plots.stage_points(rows, [getattr(row, key) for row in rows])
        charts.append(chart(draw, f"stages-{key}", title, alt, plots.SMALL))
    return charts


def change_charts(results: Results, utility_name: str) -> list[Chart]:
    """Each metric's change from stage to stage, as a forest plot."""
    charts = []
    for key in known_metrics(results):
        found = [
            Difference(row.title, change.difference, place, change.established)
            for place, row in enumerate(results.stages)
            for change in row.changes
            if change.metric == key
        ]
        if found:
            title = f"Change in {name_of(key, utility_name)}"
            title += " (left is better)" if better(key) == "lower" else " (right is better)"
            alt = f"{title} by stage with 95 % intervals; the numbers are in the table of changes."
            charts.append(chart(forest(found), f"changes-{key}", title, alt, forest_size(len(found))))
    return charts


def name_of(metric: str, utility_name: str) -> str:
    """A metric in a sentence."""
    return utility_name if metric == "utility" else IN_SENTENCES.get(metric, metric)


def watched(results: Results) -> list[str]:
    """The metrics that are held against the reward along the stages."""
    return [key for key in known_metrics(results) if key != "reward"] if len(results.stages) > 1 else []


def watch_charts(results: Results, utility_name: str) -> list[Chart]:
    """The path of the stages through mean reward and each other metric."""
    rows, charts = results.stages, []
    for key in watched(results):
        name, reward, other = name_of(key, utility_name), [r.reward for r in rows], [getattr(r, key) for r in rows]
        draw = watch.against_reward([r.title for r in rows], reward, other, name, results.partings.get(key))
        alt = "The path of the stages; the numbers are in the table."
        charts.append(chart(draw, f"reward-{key}", f"Mean reward against {name}", alt))
    return charts


def choice_charts(results: Results, utility_name: str) -> list[Chart]:
    """What choosing the best of N does to each other metric."""
    choice, charts = results.choice, []
    if choice is None:
        return []
    for key, values in choice.others.items():
        name = name_of(key, utility_name)
        draw = watch.against_reward([str(n) for n in choice.counts], choice.reward, values, name, choice.partings[key])
        alt = f"Mean reward and {name} of the best of N; the numbers are in report.json."
        charts.append(chart(draw, f"choice-{key}", f"Best of N by reward, against {name}", alt))
    return charts


def sweep_charts(
    sweeps: Sequence[SweepRow], colours: dict[str, int], utility_name: str, x_label: str = "score asked for"
) -> list[Chart]:
    """Each metric against the score asked for, all models in one chart; `colours` of those that have one elsewhere."""
    charts = []
    others = dict.fromkeys(name for sweep in sweeps for name in sweep.sets)
    for key in ("reward", "utility", "clap", "concepts", "frechet", *others):
        if series := sweep_series(sweeps, key, colours):
            title = heading(key, utility_name) + (" (lower is closer)" if better(key) == "lower" else "")
            alt = f"{title} by score asked for, with 95 % intervals; the numbers are in the table for download."
            charts.append(chart(plots.lines(series, x_label), f"sweep-{key}", title, alt, plots.SMALL))
    return charts


def sweep_series(sweeps: Sequence[SweepRow], metric: str, colours: dict[str, int]) -> list[plots.Series]:
    """One line per model that has the metric at every score, with intervals."""
    found = []
    for place, sweep in enumerate(sweeps):
        values: list[Interval] | None = getattr(sweep, metric, None)
        if metric in sweep.sets:
            values = [
                Interval(v.value, v.value if v.low is None else v.low, v.value if v.high is None else v.high)
                for v in sweep.sets[metric]
                if v.value is not None
            ]
        if values and len(values) == len(sweep.asked):
            found.append(plots.Series(sweep.stage, colours.get(sweep.stage, place + 1), sweep.asked, values))
    return found


def curve_charts(data: ReportData) -> list[Chart]:
    """How each quantity went during training."""
    colours = {stage.title: place for place, stage in enumerate(data.stages)}
    charts = []
    for place, curve in enumerate(curve for curve in data.curves if curve.steps):
        title = f"{curve.stage}: {curve.quantity.replace('_', ' ')}"
        alt = f"{title} over {len(curve.steps)} recorded updates, ending near {curve.values[-1]:.3g}."
        draw = plots.training_curve(curve, colours.get(curve.stage, place + 1))
        charts.append(chart(draw, f"curve-{place}", title, alt, plots.SMALL))
    return charts


def reliability_chart(data: ReportData) -> Chart | None:
    """How right the reward is against how sure it is."""
    if data.reward is None or not data.reward.bins:
        return None
    alt = "Share of votes predicted against confidence, in bins of held-out votes."
    return chart(plots.reliability(data.reward.bins), "reliability", "Is the reward as right as it is sure?", alt)
