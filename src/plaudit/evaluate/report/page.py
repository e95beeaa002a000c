"""Writing the report: one folder with the page, its charts and clips, and the same numbers for programs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes

from plaudit.assets import write_atomically, write_json
from plaudit.audio import read_audio
from plaudit.errors import AudioError, RunError
from plaudit.evaluate.html import rendered, replaced_whole
from plaudit.evaluate.report import plots, watch, wording
from plaudit.evaluate.report.data import Curve, ReportData, Sample
from plaudit.evaluate.report.results import Results, summarize
from plaudit.evaluate.report.table import markdown_table, table_cells


@dataclass(frozen=True)
class Chart:
    """A chart on the page: its files relative to the page, a heading, and what it shows in words."""

    light: str
    dark: str
    title: str
    alt: str


@dataclass(frozen=True)
class Player:
    """One clip on the page; `picture` is None where the clip cannot be drawn, and `note` says why."""

    stage: str
    colour: int
    audio: str
    picture: str | None
    note: str
    scores: list[str]


@dataclass(frozen=True)
class PromptPlayers:
    """A prompt and what each stage made of it."""

    prompt: str
    players: list[Player]


def write_report(data: ReportData, folder: Path) -> Path:
    """Write `index.html`, `results.json`, `table.md`, `plots/` and `audio/` into `folder`; return the page's path.

    The folder is replaced whole: a report that was there stays until the new one is complete. RunError where stages
    do not fit together or a clip to listen to is missing.
    """
    folder = Path(folder)
    results = summarize(data)
    with replaced_whole(folder) as draft:
        _write_into(draft, data, results)
    return folder / "index.html"


def _write_into(folder: Path, data: ReportData, results: Results) -> None:
    prompts = [_prompt_players(folder, number, sample, data) for number, sample in enumerate(data.samples)]
    flags = wording.watch_finding(results, data.utility_name)
    write_json(folder / "results.json", {"run": _run_json(data), **results.to_json(), "watch": flags})
    write_atomically(folder / "table.md", markdown_table(results, data.utility_name))
    page = rendered(
        "report.html",
        data=data,
        results=results,
        cells=table_cells(results, data.utility_name),
        summary=wording.overall_finding(results, data.utility_name),
        findings=wording.stage_findings(results, data.utility_name),
        flags=flags,
        partings=_parting_sentences(results, data.utility_name),
        choice_charts=_choice_charts(folder, results, data.utility_name),
        choice_partings=_choice_sentences(results, data.utility_name),
        exploitation=wording.exploitation_finding(results, data.utility_name),
        agreement=wording.agreement_finding(results, data.utility_name),
        reward_finding=wording.reward_finding(results),
        sweep_findings=[wording.sweep_finding(sweep, data.utility_name) for sweep in results.sweeps],
        stage_charts=_stage_charts(folder, data, results),
        watch_charts=_watch_charts(folder, data, results),
        sweep_charts=_sweep_charts(folder, data, results),
        curve_charts=_curve_charts(folder, data),
        reliability_chart=_reliability_chart(folder, data),
        prompts=prompts,
        light=plots.LIGHT,
        dark=plots.DARK,
    )
    write_atomically(folder / "index.html", page)


def _run_json(data: ReportData) -> dict[str, object]:
    run = data.run
    return {
        "name": run.name,
        "finished": run.finished,
        "seconds": run.seconds,
        "peak_memory": run.peak_memory,
        "machine": run.machine,
        "versions": run.versions,
    }


def _chart(
    folder: Path, name: str, draw: Callable[[Axes], None], title: str, alt: str, small: bool = False
) -> Chart:
    plots.save_chart(draw, folder / "plots" / f"{name}.svg", plots.SMALL if small else plots.WIDE)
    return Chart(f"plots/{name}.svg", f"plots/{name}-dark.svg", title, alt)


def _stage_charts(folder: Path, data: ReportData, results: Results) -> list[Chart]:
    rows = results.stages
    charts = [
        ("reward", "Reward", [row.reward for row in rows]),
        ("utility", data.utility_name.capitalize(), [row.utility for row in rows if row.utility is not None]),
        ("clap", "CLAP score", [row.clap for row in rows]),
        ("frechet", "Fréchet distance (lower is closer)", [row.frechet for row in rows]),
    ]
    return [
        _chart(folder, f"stages-{name}", plots.stage_points(rows, values), title,
               f"{title} by stage with 95 % intervals; the numbers are in the table.", small=True)
        for name, title, values in charts
        if values
    ]  # fmt: skip


def _watched(results: Results, utility_name: str) -> dict[str, str]:
    """The metrics that are held against the reward along the stages, and what they are called."""
    if len(results.stages) < 2:
        return {}
    known = results.stages[0].utility is not None
    return ({"utility": utility_name} if known else {}) | {"clap": "CLAP score", "frechet": "Fréchet distance"}


def _watch_charts(folder: Path, data: ReportData, results: Results) -> list[Chart]:
    rows = results.stages
    titles = [row.title for row in rows]
    return [
        _chart(
            folder,
            f"reward-{key}",
            watch.against_reward(
                titles, [r.reward for r in rows], [getattr(r, key) for r in rows], name, results.partings.get(key)
            ),
            f"Mean reward against {name}",
            "The path of the stages; the numbers are in the table.",
        )
        for key, name in _watched(results, data.utility_name).items()
    ]


def _parting_sentences(results: Results, utility_name: str) -> list[str]:
    names, titles = _watched(results, utility_name), [row.title for row in results.stages]
    return [watch.parting_sentence(parting, titles, names[key]) for key, parting in results.partings.items()]


def _choice_charts(folder: Path, results: Results, utility_name: str) -> list[Chart]:
    choice, names = results.choice, wording.METRICS | {"utility": utility_name}
    if choice is None:
        return []
    return [
        _chart(
            folder,
            f"choice-{key}",
            watch.against_reward(choice.labels, choice.reward, values, names.get(key, key), choice.partings[key]),
            f"Best of N by reward, against {names.get(key, key)}",
            f"Mean reward and {names.get(key, key)} of the best of N; the numbers are in results.json.",
        )
        for key, values in choice.others.items()
    ]


def _choice_sentences(results: Results, utility_name: str) -> list[str]:
    choice, names = results.choice, wording.METRICS | {"utility": utility_name}
    if choice is None:
        return []
    return [watch.parting_sentence(p, choice.labels, names.get(key, key)) for key, p in choice.partings.items()]


def _sweep_charts(folder: Path, data: ReportData, results: Results) -> list[Chart]:
    colours = {stage.title: place for place, stage in enumerate(data.stages)}
    charts = []
    for name, title in (
        ("reward", "Mean reward"),
        ("utility", f"Mean {data.utility_name}"),
        ("clap", "CLAP score"),
        ("frechet", "Fréchet distance (lower is closer)"),
    ):
        series = [
            plots.Series(sweep.stage, colours.get(sweep.stage, place + 1), sweep.asked, getattr(sweep, name))
            for place, sweep in enumerate(results.sweeps)
            if getattr(sweep, name) is not None
        ]
        if series:
            alt = f"{title} by score asked for, with 95 % intervals; the numbers are in results.json."
            draw = plots.lines(series, "score asked for")
            charts.append(_chart(folder, f"sweep-{name}", draw, title, alt, small=True))
    return charts


def _curve_charts(folder: Path, data: ReportData) -> list[Chart]:
    colours = {stage.title: place for place, stage in enumerate(data.stages)}

    def draw(number: int, curve: Curve) -> Chart:
        title = f"{curve.stage}: {curve.quantity.replace('_', ' ')}"
        alt = f"{title} over {len(curve.steps)} recorded updates, ending near {curve.values[-1]:.3g}."
        colour = colours.get(curve.stage, number + 1)
        return _chart(folder, f"curve-{number}", plots.training_curve(curve, colour), title, alt, small=True)

    return [draw(number, curve) for number, curve in enumerate(data.curves) if curve.steps]


def _reliability_chart(folder: Path, data: ReportData) -> Chart | None:
    if data.reward is None or not data.reward.bins:
        return None
    return _chart(
        folder,
        "reliability",
        plots.reliability(data.reward.bins),
        "Is the reward as right as it is sure?",
        "Share of votes predicted against confidence, in bins of held-out votes.",
    )


def _prompt_players(folder: Path, number: int, sample: Sample, data: ReportData) -> PromptPlayers:
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
        picture: str | None = f"plots/clip-{name}.png"
        note = ""
        try:
            plots.save_spectrogram(folder / "plots" / f"clip-{name}.png", *read_audio(source))
        except AudioError:
            picture, note = None, "This clip is silent or cannot be read."
        measured = {"reward": stage.scores.reward, "CLAP": stage.scores.clap, "utility": stage.scores.utility}
        scores = [f"{k} {wording.number(v[sample.row], 2)}" for k, v in measured.items() if v is not None]
        players.append(Player(stage.title, colour, f"audio/{target.name}", picture, note, scores))
    return PromptPlayers(data.stages[0].scores.prompts[sample.row], players)
