"""Which stage's model to use, why, and with which commands."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from plaudit.evaluate.changes import changes_between, corrected
from plaudit.evaluate.overoptimization import regressions_under_reward
from plaudit.evaluate.report.results import ReportData, Results, StageResult, StageRow
from plaudit.evaluate.report.text import IN_SENTENCES, number, signed, span

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
