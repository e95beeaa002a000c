"""Writing the report: one folder with the page, its clips, and the same numbers for programs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plaudit.audio import read_audio
from plaudit.errors import AudioError, RunError
from plaudit.evaluate.evaluator import StageScores
from plaudit.evaluate.html import csv_of, data_address, rendered, replaced_page
from plaudit.evaluate.report import charts, text
from plaudit.evaluate.report import charts as drawn
from plaudit.evaluate.report import charts as plots
from plaudit.evaluate.report.recommendation import Recommendation, recommend
from plaudit.evaluate.report.results import CorpusFacts, ReportData, Results, RunFacts, Sample, summarize
from plaudit.evaluate.report.text import change_rows, clip_rows, markdown_table, stage_rows, sweep_rows, table_cells
from plaudit.evaluate.results_table import CLIPS
from plaudit.storage import write_atomically, write_json

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
        choice_charts=drawn.choice_charts(results, utility),
        choice_partings=_choice_sentences(results, utility),
        exploitation=text.exploitation_finding(results, utility),
        agreement=text.agreement_finding(results, utility),
        coverage=text.coverage_finding(data.coverage_scale) if "concepts" in results.metrics else "",
        reward_finding=text.reward_finding(results),
        sweep_findings=[text.sweep_finding(sweep, utility) for sweep in results.sweeps],
        sweeps_unjudged=[text.failed_finding(sweep) for sweep in data.sweeps if not sweep.judged],
        stage_charts=drawn.stage_charts(results, utility),
        change_charts=drawn.change_charts(results, utility),
        divergence_charts=drawn.divergence_charts(results, utility),
        sweep_charts=drawn.sweep_charts(results.sweeps, {s.title: i for i, s in enumerate(data.stages)}, utility),
        curve_charts=drawn.curve_charts(data),
        reliability_chart=drawn.reliability_chart(data),
        prompts=prompts,
        shown=SHOWN,
        light=plots.LIGHT,
        dark=plots.DARK,
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
        charts.divergence_sentence(divergence, titles, drawn.name_of(key, utility_name))
        for key, divergence in divergences
    ]


def _choice_sentences(results: Results, utility_name: str) -> list[str]:
    choice = results.choice
    if choice is None:
        return []
    divergences = choice.divergences.items()
    return [
        charts.divergence_sentence(one, choice.labels, drawn.name_of(key, utility_name)) for key, one in divergences
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
            plots.save_spectrogram(folder / "audio" / f"{name}.png", *read_audio(source))
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
