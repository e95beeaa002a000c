"""`plaudit generate`: clips from prompts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from plaudit.api import GenerateSettings, stream_generate
from plaudit.api.options import CLIPS
from plaudit.cli.console import CommandReporter, Json, complain, say, show_json
from plaudit.cli.options import options


def add_to(app: typer.Typer) -> None:
    """Register this group's commands."""
    app.command()(generate)


@options(GenerateSettings, output=Path("out"))
def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="Description of the music; - reads one prompt per line from standard input.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="A text file with one prompt per line, or a CSV or TSV with a column prompt.", rich_help_panel=CLIPS
        ),
    ] = None,
    *,
    settings: GenerateSettings,
    json: Json = False,
) -> None:
    """Generate clips from prompts; seed and settings are recorded in each audio file and in a JSON file beside it.

    The same command completes a folder that was interrupted. Clips of other prompts or settings are never replaced: a
    name that does not tell them apart gets a digest. Files are named on standard output as soon as they are there; with
    --best-of, as soon as a prompt's candidates are generated and scored.

    Example: plaudit generate "slow sad piano in a minor key" -n 4 --best-of 8 -o out
    """
    rows: list[dict[str, Any]] = []
    for clip in stream_generate(_prompts(prompt, prompts), settings, reporter=CommandReporter()):
        notice, file = clip.details["measured"].get("notice"), str(clip.file)
        if not json:
            say(file)
        if notice is not None and notice not in [row["notice"] for row in rows]:
            complain(f"{Path(file).name}: {notice}")
        rows.append({"file": file, "prompt": clip.prompt, "seed": clip.seed, "notice": notice})
    if json:
        show_json(rows)


def _prompts(prompt: str | None, file: Path | None) -> list[str]:
    from plaudit.tables import parse_prompts, read_prompts

    if (prompt is None) == (file is None):
        raise typer.BadParameter("give one of: a prompt, - for a list on standard input, or --prompts FILE")
    if file is not None:
        return read_prompts(file)
    return parse_prompts(sys.stdin.buffer.read(), "standard input") if prompt == "-" else [str(prompt)]
