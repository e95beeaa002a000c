"""`plaudit models list|fetch|import|inspect|verify|export`: published models."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plaudit.cli.console import ConsoleReporter, progress_console, result_console, show_json, show_table

if TYPE_CHECKING:
    from plaudit.models.registry import Release

app = typer.Typer(help="Published models: what there is, and turning it into model folders.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Identifier = Annotated[str, typer.Argument(metavar="MODEL", help="A released model; `plaudit models list` names them.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Model folder. Default: MODEL among your models.")
]
InjectionName = Annotated[str, typer.Option("--injection", help="Where a released backbone takes its score.")]
Names = Annotated[
    Path | None, typer.Option(help="JSON file: published tensor names to ours, for weights whose names are not known.")
]


@app.command("list")
def list_models(json: Json = False) -> None:
    """The released models that are known, with licence and size, and which of them are here.

    Example: plaudit models list
    """
    from plaudit.assets import models_home
    from plaudit.models.registry import RELEASES

    here = {name: (models_home() / name / "config.json").is_file() for name in RELEASES}
    if json:
        return show_json(
            [
                asdict(release) | {"non_commercial": release.non_commercial, "here": here[name]}
                for name, release in RELEASES.items()
            ]
        )
    rows = []
    for name, release in RELEASES.items():
        licence = release.licence + (", gated" if release.gated else "")
        rows.append((name, "yes" if here[name] else "", release.purpose, licence, release.source))
    show_table(f"Released models (yours are in {models_home()})", ("model", "here", "for", "licence", "from"), rows)


@app.command()
def fetch(
    model: Identifier,
    cache: Annotated[Path | None, typer.Option(help="Folder for downloads. Default: the Hub's cache.")] = None,
    injection: InjectionName = "none",
    names: Names = None,
    json: Json = False,
) -> None:
    """Download a released model and what it needs, and make model folders of them; a broken download is continued.

    Example: plaudit models fetch codec-44k
    """
    from plaudit.assets import models_home
    from plaudit.models.fetch import fetch as fetch_files
    from plaudit.models.fetch import with_needs
    from plaudit.models.registry import find

    wanted = with_needs(find(model), lambda name: (models_home() / name / "config.json").is_file())
    files = {}
    for release in wanted:
        _warn_of_licence(release)
        with ConsoleReporter().progress(f"fetching {release.id}") as advance:
            files[release.id] = fetch_files(release, cache, advance)
    made = [_import(release, files[release.id], None, injection, names) for release in reversed(wanted)]
    if json:
        return show_json(made)
    for row in made:
        _say(row)


@app.command("import")
def import_model(
    model: Identifier,
    source: Annotated[Path, typer.Option("--from", help="Folder of the released files, or the only file.")],
    output: Output = None,
    injection: InjectionName = "none",
    names: Names = None,
    json: Json = False,
) -> None:
    """Turn released files that you have into a model folder; it is then found by its name.

    Example: plaudit models import codec-44k --from downloads/
    """
    from plaudit.models.importing import files_in
    from plaudit.models.registry import find

    release = find(model)
    files = files_in(source, release)
    _warn_of_licence(release)
    made = _import(release, files, output, injection, names)
    if json:
        show_json(made)
    else:
        _say(made)


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model folder, or the name of one of your models.")],
    json: Json = False,
) -> None:
    """Parameters, configuration, licence and provenance of a model folder.

    Example: plaudit models inspect codec-44k
    """
    from plaudit import hub
    from plaudit.models.inspecting import flattened, inspect_folder

    found = inspect_folder(hub.model_folder(model, hub.MODELS))
    if json:
        show_json(found)
    else:
        show_table(model, ("what", "value"), list(flattened(found)))


@app.command()
def verify(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A text-to-music model: its folder or its name.")],
    json: Json = False,
) -> None:
    """Send a known clip through a model's codec, and say whether codec, text encoder and backbone fit together.

    Exits 1 where they do not.

    Example: plaudit models verify embedded
    """
    from plaudit import hub
    from plaudit.models.verifying import verify as checks_of

    checks = checks_of(hub.load(model, "cpu"))
    if json:
        show_json([asdict(check) | {"passed": check.passed} for check in checks])
    else:
        rows = [(c.name, c.value, f"{c.low:g} to {c.high:g}", "fits" if c.passed else c.otherwise) for c in checks]
        show_table(model, ("check", "value", "must be", "result"), rows)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A text-to-music model: its folder or its name.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the Hub; or, ending in .safetensors, released weights.")
    ],
) -> None:
    """Write a model for others: a folder with a model card for the Hub, or its weights under the released names.

    Example: plaudit models export runs/demo/crpo -o crpo-for-the-hub
    """
    from plaudit import hub
    from plaudit.models.exporting import export_folder, export_released

    folder = hub.model_folder(model, hub.MODELS)
    if output.suffix:
        export_released(folder, output)
    else:
        export_folder(folder, output)
    result_console.print(output.resolve(), soft_wrap=True, highlight=False)


def _import(
    release: Release, files: dict[str, Path], output: Path | None, injection: str, names: Path | None
) -> dict[str, Any]:
    from plaudit.assets import models_home, read_json
    from plaudit.models.importing import Choices, import_release, injection_called

    folder = output or models_home() / release.id
    choices = Choices(injection_called(injection), read_json(names) if names else {})
    facts = import_release(release, files, folder, choices)
    return {"model": release.id, "folder": str(folder.resolve()), **facts}


def _say(made: dict[str, Any]) -> None:
    result_console.print(f"{made['model']}: {made['folder']}", soft_wrap=True, highlight=False)


def _warn_of_licence(release: Release) -> None:
    if release.non_commercial:
        said = f"{release.id}: not for commercial use (licence: {release.licence})"
        progress_console.print(said, highlight=False, soft_wrap=True)
