"""Writing the report: one folder with the page, its clips, and the same numbers for programs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plaudit.assets import write_atomically, write_json
from plaudit.audio import read_audio
from plaudit.errors import AudioError, RunError
from plaudit.evaluate.evaluator import StageScores
from plaudit.evaluate.html import csv_of, data_address, rendered, replaced_page
from plaudit.evaluate.report import drawn, plots, watch, wording
from plaudit.evaluate.report.data import CorpusFacts, ReportData, RunFacts, Sample
from plaudit.evaluate.report.results import Results, summarize
from plaudit.evaluate.report.table import change_rows, clip_rows, markdown_table, stage_rows, sweep_rows, table_cells

NUMBERS = "report.json"
"""The file of every number of a report."""


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
    """Write `index.html`, `report.json`, `table.md`, `audio/` and pictures of it into `folder`; return the page's path.

    A report that is there stays until the new one is complete; files of others stay. RunError where stages do not fit
    together or a clip to listen to is missing.
    """
    folder = Path(folder)
    results = summarize(data)
    with replaced_page(folder) as draft:
        _write_into(draft, data, results)
    return folder / "index.html"


def _write_into(folder: Path, data: ReportData, results: Results) -> None:
    utility = data.utility_name
    prompts = [_prompt_players(folder, number, sample, data) for number, sample in enumerate(data.samples)]
    flags = wording.watch_finding(results, utility)
    write_json(folder / NUMBERS, _numbers(data, results, flags))
    write_atomically(folder / "table.md", markdown_table(results, utility))
    page = rendered(
        "report.html",
        data=data,
        results=results,
        cells=table_cells(results, utility),
        tables=_downloads(data, results),
        summary=wording.overall_finding(results, utility),
        findings=wording.stage_findings(results, utility),
        flags=flags,
        partings=_parting_sentences(results, utility),
        choice_charts=drawn.choice_charts(results, utility),
        choice_partings=_choice_sentences(results, utility),
        exploitation=wording.exploitation_finding(results, utility),
        agreement=wording.agreement_finding(results, utility),
        coverage=wording.coverage_finding(data.coverage_scale) if "concepts" in results.metrics else "",
        reward_finding=wording.reward_finding(results),
        sweep_findings=[wording.sweep_finding(sweep, utility) for sweep in results.sweeps],
        sweeps_unjudged=[wording.unjudged_finding(sweep) for sweep in data.sweeps if not sweep.judged],
        stage_charts=drawn.stage_charts(results, utility),
        change_charts=drawn.change_charts(results, utility),
        watch_charts=drawn.watch_charts(results, utility),
        sweep_charts=drawn.sweep_charts(results.sweeps, {s.title: i for i, s in enumerate(data.stages)}, utility),
        curve_charts=drawn.curve_charts(data),
        reliability_chart=drawn.reliability_chart(data),
        prompts=prompts,
        light=plots.LIGHT,
        dark=plots.DARK,
    )
    write_atomically(folder / "index.html", page)


def _numbers(data: ReportData, results: Results, flags: str) -> dict[str, Any]:
    """Every number of the report, and with what it was made."""
    return {
        "run": asdict(data.run),
        **results.to_json(),
        "watch": flags,
        "corpus": None if data.corpus is None else asdict(data.corpus),
        "coverage_scale": data.coverage_scale,
        "clips": clip_rows(data),
        "curves": [asdict(curve) for curve in data.curves],
    }


def _downloads(data: ReportData, results: Results) -> dict[str, str]:
    """Each table as CSV, in an address that the page holds; those without rows are left out."""
    rows: dict[str, Sequence[Mapping[str, Any]]] = {
        "stages": stage_rows(results),
        "changes": change_rows(results),
        "sweeps": sweep_rows(results.sweeps),
        "clips": clip_rows(data),
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


def _parting_sentences(results: Results, utility_name: str) -> list[str]:
    titles = [row.title for row in results.stages]
    partings = results.partings.items()
    return [watch.parting_sentence(parting, titles, drawn.name_of(key, utility_name)) for key, parting in partings]


def _choice_sentences(results: Results, utility_name: str) -> list[str]:
    choice = results.choice
    if choice is None:
        return []
    partings = choice.partings.items()
    return [watch.parting_sentence(one, choice.labels, drawn.name_of(key, utility_name)) for key, one in partings]


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
        picture: str | None = f"audio/{name}.png"
        note = ""
        try:
            plots.save_spectrogram(folder / "audio" / f"{name}.png", *read_audio(source))
        except AudioError:
            picture, note = None, "This clip is silent or cannot be read."
        scores = _told(stage.scores, sample.row)
        players.append(Player(stage.title, colour, f"audio/{target.name}", picture, note, scores))
    return PromptPlayers(data.stages[0].scores.prompts[sample.row], players)


def _told(scores: StageScores, row: int) -> list[str]:
    """What is known of one clip."""
    named = {"reward": "reward", "clap": "CLAP", "concepts": "concepts", "utility": "utility"}
    values = {told: getattr(scores, name) for name, told in named.items()}
    known = {told: found[row] for told, found in values.items() if found is not None and found[row] == found[row]}
    return [f"{told} {wording.number(value, 2)}" for told, value in known.items()]
