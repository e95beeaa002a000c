"""`plaudit demo`, `plaudit run`, `plaudit report`: whole experiments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from plaudit.cli.console import ConsoleReporter, Yes, approval, as_invoked, say, show_json

Output = Annotated[Path | None, typer.Option("--output", "-o", help="Run folder. Default: runs/<recipe name>.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="Change a setting, e.g. --set stages.crpo.beta=500. Repeatable.")
]
Only = Annotated[
    str | None, typer.Option(help="Make only this step, e.g. sft, and what it needs.", metavar="STEP")
]
Source = Annotated[
    Path | None,
    typer.Option("--from", help="A run to start from: what is made from the same is shared. Needs -o.", metavar="RUN"),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def add_to(app: typer.Typer) -> None:
    """Register this group's commands."""
    app.command()(demo)
    app.command("run")(run_recipe)
    app.command()(report)


def demo(output: Output = None, changes: Changes = None, yes: Yes = False, json: Json = False) -> None:
    """Run the whole chain in the synthetic world, from nothing to a report, in under 20 minutes.

    Example: plaudit demo
    """
    run_recipe("demo", output, changes, yes=yes, json=json)


def run_recipe(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A recipe file, or a shipped recipe's name (demo, paper ...). Default: that of --from."),
    ] = None,
    output: Output = None,
    changes: Changes = None,
    source: Source = None,
    only: Only = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what is needed, how long it takes, in how much memory.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Run every stage of a recipe, or one, into a run folder; what is done is skipped, what was killed is continued.

    What was made with other settings, code or data is only replaced after a question, or with --yes. To keep it, start
    a new run from the old one, which shares all that is the same:

    plaudit run --from runs/synthetic -o runs/beta-500 --set stages.crpo.beta=500

    Example: plaudit run recipes/smoke.yaml -o runs/smoke

    What a large run will cost, measured on this machine: plaudit run paper --dry-run

    On several GPUs: torchrun --nproc-per-node 8 -m plaudit run recipes/smoke.yaml
    """
    from plaudit.errors import RunError
    from plaudit.recipe import load_recipe

    if recipe is None and source is None:
        raise typer.BadParameter("name a recipe, or a run with --from")
    if source is not None and output is None:
        raise typer.BadParameter("--from needs -o: the new run's folder")
    if recipe is None and source is not None and not (source / "recipe.yaml").is_file():
        raise RunError(f"{source} is not a run folder; give --from a folder that `plaudit run` made")
    settings = load_recipe(recipe or str(source / "recipe.yaml"), changes)  # type: ignore[operator]
    folder, last = output or Path("runs") / settings.name, only or "report"
    if dry_run:
        from plaudit.cli.forecast import show_estimate

        show_estimate(settings, folder, last, json, source)
        return
    from plaudit.pipeline.steps import run_recipe as run

    made = run(settings, folder, ConsoleReporter(), last, approval(yes), source)
    if os.environ.get("RANK", "0") == "0":  # of several processes, one speaks
        _say(made, json)


def report(
    folder: Annotated[Path, typer.Argument(help="A run folder.")], json: Json = False
) -> None:
    """Write the report of a finished run again, from what the run left and recorded; nothing else is made or changed.

    Example: plaudit report runs/demo
    """
    from plaudit.pipeline.report import rewrite_report

    _say(rewrite_report(folder), json)


def _say(made: Path, json: bool) -> None:
    """Where the step is that was asked for; of the report, its page, its watch over the reward, and how to go on."""
    from plaudit.storage import read_json

    if made.name != "report":
        show_json({made.name: str(made.resolve())}) if json else say(f"{made.name.capitalize()}: {made.resolve()}")
        return
    page, numbers = (made / "index.html").resolve(), read_json(made / "report.json")
    watch, use = numbers["watch"], numbers.get("recommended")
    if json:
        command = {} if use is None else {"model": use["key"], "command": use["command"]}
        show_json({"report": str(page)} | ({"watch": watch} if watch else {}) | command)
        return
    say(f"Report: {page}")
    if use is not None:
        say(f"Use the model of {use['title']}: {as_invoked(use['command'])}")
    if watch:
        say(watch)
