"""`plaudit demo`, `plaudit run`, `plaudit report`: whole experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plaudit.cli.console import ConsoleReporter, result_console, show_json

Output = Annotated[Path | None, typer.Option("--output", "-o", help="Run folder. Default: runs/<recipe name>.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="Change a setting, e.g. --set stages.crpo.beta=500. Repeatable.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def add_to(app: typer.Typer) -> None:
    """Register this group's commands."""
    app.command()(demo)
    app.command("run")(run_recipe)
    app.command()(report)


def demo(output: Output = None, changes: Changes = None, json: Json = False) -> None:
    """Run the whole chain in the embedded world, from nothing to a report, in under 20 minutes.

    Example: plaudit demo
    """
    run_recipe("demo", output, changes, json)


def run_recipe(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or a shipped recipe's name (demo, embedded, smoke).")],
    output: Output = None,
    changes: Changes = None,
    json: Json = False,
) -> None:
    """Run every stage of a recipe into a run folder; what is done is skipped, what was killed is continued.

    Example: plaudit run recipes/smoke.yaml --set stages.crpo.beta=500
    """
    from plaudit.recipe import load_recipe

    settings = load_recipe(recipe, changes)
    from plaudit.chain.steps import run_recipe as run  # heavy imports only once the recipe is known to be sound

    page = run(settings, output or Path("runs") / settings.name, ConsoleReporter())
    _say(page, json)


def report(
    folder: Annotated[Path, typer.Argument(help="A run folder.")], json: Json = False
) -> None:
    """Write the report of a run folder again, from what the run left there.

    Example: plaudit report runs/demo
    """
    from plaudit.chain.steps import rewrite_report

    _say(rewrite_report(folder, ConsoleReporter()), json)


def _say(page: Path, json: bool) -> None:
    if json:
        show_json({"report": str(page.resolve())})
    else:
        result_console.print(f"Report: {page.resolve()}", soft_wrap=True, highlight=False)
