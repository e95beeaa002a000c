"""`plaudit score` and `plaudit rank`: predicted preference for clips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from plaudit.api import RankSettings, ScoreSettings
from plaudit.cli.console import CommandReporter, Csv, Json, complain, show_csv, show_json, show_table
from plaudit.cli.options import options

Paths = Annotated[
    list[Path] | None, typer.Argument(help="Audio files, folders of them, or - for a list of paths on standard input.")
]


def add_to(app: typer.Typer) -> None:
    """Register this group's commands."""
    app.command()(score)
    app.command()(rank)


@options(ScoreSettings)
def score(paths: Paths = None, *, settings: ScoreSettings, csv: Csv = None, json: Json = False) -> None:
    """Predict how much people would like clips; higher is better, and only differences are meaningful.

    Exits 1 if a file cannot be scored; the others are scored all the same. Scores are cached, so an interrupted
    command continues where it stopped. In a folder of plaudit generate, candidates of --best-of are skipped; name
    their folder to score them.

    Example: plaudit score out
    """
    from plaudit import api

    _check_input(paths, settings)
    rows = []
    for one in api.score(paths or (), settings, reporter=CommandReporter()):
        row: dict[str, Any] = {"file": str(one.file), "prompt": one.prompt}
        row |= ({"system": one.system} if one.system else {}) | {"reward": one.reward, "error": one.error}
        if settings.calibration is not None:
            row["calibrated"] = one.calibrated
        if settings.reference is not None:
            row |= {"percentile": one.percentile, "percentile_definition": one.percentile_definition}
        rows.append(row)
    _show("Reward", rows, csv, json)
    if any(row["error"] is not None for row in rows):
        raise typer.Exit(1)


@options(RankSettings)
def rank(paths: Paths = None, *, settings: RankSettings, csv: Csv = None, json: Json = False) -> None:
    """Keep the best candidates of each prompt, with their lead over the next.

    Exits 1 if a file cannot be scored; the others are ranked all the same. --copy also copies the JSON file beside a
    clip, and never replaces a file.

    Example: plaudit rank out -n 3 --copy best
    """
    from plaudit import api

    _check_input(paths, settings)
    ranking = api.rank(paths or (), settings, reporter=CommandReporter())
    rows = []
    for entry, copy in zip(ranking.best, ranking.copies, strict=True):
        clip, place = entry.scored.clip, {"rank": entry.rank, "of": entry.candidates}
        row = {"prompt": clip.prompt, **place, "reward": entry.scored.score, "margin": entry.margin}
        rows.append({**row, "file": str(clip.file)} | ({} if copy is None else {"copy": str(copy)}))
    _show("Best", rows, csv, json)
    for error in ranking.errors:
        complain(error)
    if ranking.errors:
        raise typer.Exit(1)


def _check_input(paths: list[Path] | None, settings: ScoreSettings | RankSettings) -> None:
    if not paths and settings.table is None:
        raise typer.BadParameter("no files: give audio files or folders, - for a list on standard input, or --table")


def _show(title: str, rows: list[dict[str, Any]], csv: Path | None, json: bool) -> None:
    """Print CSV or JSON, or a table of the columns that differ between rows."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if csv is not None:
        show_csv(csv, columns, rows)
    if json:
        show_json(rows)
    elif csv is None:
        one_prompt = len({row["prompt"] for row in rows}) < 2
        hidden = {"error", "percentile_definition"} | ({"prompt"} if one_prompt else set())
        shown = [column for column in columns if column not in hidden]
        definitions = {row["percentile_definition"] for row in rows if "percentile_definition" in row}
        cells = [[_cell(row, column) for column in shown] for row in rows]
        show_table("; percentile: ".join([title, *definitions]), shown, cells)


def _cell(row: dict[str, Any], column: str) -> Any:
    """A table cell: prompts are shortened, and a missing reward is replaced by its error."""
    if column == "reward" and row.get("error"):
        return row["error"]
    value = "" if row.get(column) is None else row[column]
    return value[:60] if column == "prompt" else value
