"""`plaudit score` and `plaudit evaluate`: what clips are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plaudit.cli.console import ConsoleReporter, show_json, show_table

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
RewardName = Annotated[str, typer.Option("--reward", help="A known reward or a reward folder.")]


def add_to(app: typer.Typer) -> None:
    """Register this group's commands."""
    app.command()(score)
    app.command()(evaluate)


def score(
    paths: Annotated[list[Path], typer.Argument(help="Audio files, or folders of them.")],
    prompt: Annotated[str, typer.Option(help="What was asked for; empty means no prompt.")] = "",
    reward: RewardName = "embedded",
    json: Json = False,
) -> None:
    """Predict how much people would like clips; higher is better, and only differences mean anything.

    Exits 1 where a file could not be scored; the others are scored all the same.

    Example: plaudit score out --prompt "slow sad piano in a minor key"
    """
    from plaudit import hub
    from plaudit.evaluate.folder import audio_files, score_files

    files, jury = audio_files(paths), hub.load_reward_model(reward)
    with ConsoleReporter().progress("scoring") as advance:
        rows = score_files(files, prompt, jury, advance)
    if json:
        show_json(rows)
    else:
        show_table("Reward", ("file", "reward"), [(row["file"], row["error"] or row["reward"]) for row in rows])
    if any(row["error"] is not None for row in rows):
        raise typer.Exit(1)


def evaluate(
    table: Annotated[Path, typer.Argument(help="CSV with columns file and caption.")],
    reference: Annotated[Path, typer.Option(help="Folder of audio as it should sound, for the Frechet distance.")],
    reward: RewardName = "embedded",
    clap: Annotated[str, typer.Option(help="The CLAP of the CLAP score and the distance.")] = "embedded",
    json: Json = False,
) -> None:
    """Mean reward, CLAP score and Frechet distance of captioned clips, each with a 95 % interval.

    Example: plaudit evaluate clips/clips.csv --reference music/
    """
    from plaudit import hub
    from plaudit.evaluate.folder import evaluate_folder

    jury, listener = hub.load_reward_model(reward), hub.build(hub.CLAPS, clap)
    with ConsoleReporter().progress("evaluating") as advance:
        result = evaluate_folder(table, reference, jury, listener, advance)
    if json:
        show_json(result)
    else:
        rows = [(name, r["mean"], f"{r['low']:.3f} to {r['high']:.3f}") for name, r in result["metrics"].items()]
        show_table(f"{result['clips']} clips", ("metric", "value", "95 % interval"), rows)
