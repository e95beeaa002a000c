"""`plaudit models list|fetch|import|inspect|verify|ema|export|push`: published models and model folders."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plaudit.cli.console import ConsoleReporter, progress_console, result_console, say, show_json, show_table
from plaudit.cli.options import App

if TYPE_CHECKING:
    from plaudit.models.releases import Release

app = App(help="Published models: listing, downloading, converting and exporting.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Identifier = Annotated[str, typer.Argument(metavar="MODEL", help="A released model; `plaudit models list` names them.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Model folder. Default: MODEL among your models.")]
InjectionName = Annotated[
    str | None,
    typer.Option("--injection", help="Score injection of a backbone, if not the released one, or a published YAML."),
]
Names = Annotated[
    Path | None, typer.Option(help="JSON file mapping published tensor names to ours, for unknown names.")
]


@app.command("list")
def list_models(json: Json = False) -> None:
    """List the released models with licence and size, and which are installed.

    Example: plaudit models list
    """
    from plaudit.errors import ModelError
    from plaudit.models.releases import RELEASES
    from plaudit.places import models_dir

    here = {name: _is_here(name) for name in RELEASES}
    if json:
        return show_json(
            [
                asdict(release) | {"non_commercial": release.non_commercial, "here": here[name]}
                for name, release in RELEASES.items()
            ]
        )
    width = min(result_console.width, 100)
    for name, release in RELEASES.items():
        size = "" if release.megabytes is None else f"{release.megabytes} MB"
        state = "fetched" if here[name] else ""
        say(f"{name:<24}{size:<10}{state}".rstrip())
        licence = release.licence + (", gated" if release.gated else "")
        for line in (release.purpose, f"licence {licence}", f"from {release.source}"):
            say(textwrap.fill(line, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False))
    try:
        place = f"yours are in {models_dir()}"
    except ModelError as error:
        place = str(error)
    say(f"plaudit models fetch NAME brings one; {place}")


@app.command()
def fetch(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A released model, or owner/name of a model folder on the Hub.")
    ],
    cache: Annotated[Path | None, typer.Option(help="Folder for downloads. Default: the Hub's cache.")] = None,
    injection: InjectionName = None,
    names: Names = None,
    json: Json = False,
) -> None:
    """Download a released model and its dependencies as model folders; an interrupted download continues.

    Example: plaudit models fetch codec-44k
    """
    from plaudit.models.fetch import fetch_release, missing_releases
    from plaudit.models.releases import FETCHED_ONLY, find

    results, releases = _fetch_shared(model) if "/" in model else ([], [find(model)])
    for release in missing_releases(releases, _is_here):
        _warn_of_licence(release)
        with ConsoleReporter().progress(f"fetching {release.id}") as advance:
            files = fetch_release(release, cache, advance)
        if release.kind == FETCHED_ONLY:
            results.append({"model": release.id, "folder": str(next(iter(files.values())))})
        else:
            results.append(_import(release, files, None, injection, names, True))
        if not json:
            _say(results[-1])
    if json:
        show_json(results)


@app.command("import")
def import_model(
    model: Identifier,
    source: Annotated[Path, typer.Option("--from", help="Folder of the released files, or the only file.")],
    output: Output = None,
    injection: InjectionName = None,
    names: Names = None,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Accept files whose digests differ from the released ones.")
    ] = False,
    blocks: Annotated[
        str | None,
        typer.Option(help="Inputs of a reward, e.g. audio,clap_text. Default: as its JSON says, or the release."),
    ] = None,
    clap: Annotated[str | None, typer.Option(help="CLAP of a reward, by name or FILE.py:NAME.")] = None,
    audio_embedder: Annotated[str | None, typer.Option(help="Second audio encoder of a reward, likewise.")] = None,
    json: Json = False,
) -> None:
    """Convert released files that you have into a model folder, which can then be used by name.

    Example: plaudit models import codec-44k --from downloads/
    """
    from plaudit.errors import ModelError
    from plaudit.models.importing import files_in, sidecar_blocks
    from plaudit.models.releases import find
    from plaudit.registry import portable_name

    release = find(model)
    files = files_in(source, release)
    _warn_of_licence(release)
    inputs = tuple(block.strip() for block in blocks.split(",")) if blocks else ()
    if release.blocks and output is None:
        stated = inputs or sidecar_blocks(next(iter(files.values())))
        if stated and stated != release.blocks:
            raise ModelError(f"a head over {', '.join(stated)} is not {release.id}; give its folder with -o")
    reward = {
        "blocks": inputs,
        "clap": portable_name(clap) if clap else None,
        "audio_embedder": portable_name(audio_embedder) if audio_embedder else None,
    }
    result = _import(release, files, output, injection, names, not unverified, reward)
    if json:
        show_json(result)
    else:
        _say(result)


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model folder, or the name of one of your models.")],
    json: Json = False,
) -> None:
    """Parameters, configuration, licence and provenance of a model folder.

    Example: plaudit models inspect codec-44k
    """
    from plaudit import loading
    from plaudit.models.inspecting import flatten_values, inspect_folder

    facts = inspect_folder(loading.model_folder(model, loading.MODELS))
    if json:
        show_json(facts)
    else:
        show_table(model, ("what", "value"), list(flatten_values(facts)))


@app.command()
def verify(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A text-to-music model: its folder or its name.")],
    json: Json = False,
) -> None:
    """Check that codec, text encoder and backbone of a model fit together, with a test clip through the codec.

    Exits 1 if they do not.

    Example: plaudit models verify synthetic
    """
    from plaudit import loading
    from plaudit.models.inspecting import fit_checks

    checks = fit_checks(loading.load(model, "cpu"))
    if json:
        show_json([asdict(check) | {"passed": check.passed} for check in checks])
    else:
        rows = [(c.name, c.value, f"{c.low:g} to {c.high:g}", "fits" if c.passed else c.otherwise) for c in checks]
        show_table(model, ("check", "value", "must be", "result"), rows)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)


@app.command()
def ema(
    folder: Annotated[Path, typer.Argument(help="A stage's folder that holds snapshots, such as runs/demo/sft.")],
    sigma_rel: Annotated[float, typer.Option(help="Relative length of the average, such as 0.08.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new model folder.")],
    step: Annotated[int | None, typer.Option(help="The average as of this update. Default: the last.")] = None,
    json: Json = False,
) -> None:
    """Make a model from another average of a stage's weights, using its snapshots (`training_loop.snapshot_every`).

    Example: plaudit models ema runs/demo/sft --sigma-rel 0.08 -o sft-0.08
    """
    from plaudit.models.inspecting import average_folder

    facts = average_folder(folder, sigma_rel, output, step)
    if json:
        show_json({"folder": str(output.resolve()), **facts})
    else:
        result_console.print(output.resolve(), soft_wrap=True, highlight=False)


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Any model: its folder or its name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")],
    released: Annotated[
        bool, typer.Option("--released", help="Write weights under the released names, for others' code.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="report.json of a report for the card. Default: that of the model's run.")
    ] = None,
) -> None:
    """Write a model for others: a folder with a model card for the Hub, or its files under the released names.

    Example: plaudit models export runs/demo/expert_iteration -o for-the-hub
    """
    from plaudit import loading
    from plaudit.models.exporting import export_folder, export_released

    rewards = {name: place for name, place in loading.REWARDS.builtin.items() if isinstance(place, Path)}
    folder = loading.model_folder(model, rewards | loading.MODELS)
    if released:
        export_released(folder, output)
    else:
        export_folder(folder, output, report)
    result_console.print(output.resolve(), soft_wrap=True, highlight=False)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="A folder that `plaudit models export` wrote for the Hub.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hub; created where it is new.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Upload an exported folder to the Hub; log in with `hf auth login` first.

    Example: plaudit models push for-the-hub you/your-model
    """
    from plaudit.models.exporting import push_folder

    result_console.print(push_folder(folder, repo, private), soft_wrap=True, highlight=False)


def _is_here(name: str) -> bool:
    from plaudit.places import user_model

    return user_model(name) is not None


def _fetch_shared(repo: str) -> tuple[list[dict[str, Any]], list[Release]]:
    """Fetch a model folder from the Hub: its result, and the required releases that are missing."""
    from plaudit.models.fetch import fetch_folder
    from plaudit.models.inspecting import inspect_folder, parts_of
    from plaudit.models.releases import RELEASES
    from plaudit.places import models_dir

    fetch_folder(repo, models_dir() / repo)
    facts = inspect_folder(models_dir() / repo)
    progress_console.print(f"{repo}: licence {facts['licence']}", highlight=False, soft_wrap=True)
    result = {"model": repo, "folder": facts["folder"], "licence": facts["licence"], "provenance": facts["provenance"]}
    parts = parts_of(facts["config"]).values()
    return [result], [RELEASES[name] for name in parts if name in RELEASES and not _is_here(name)]


def _import(
    release: Release,
    files: dict[str, Path],
    output: Path | None,
    injection: str | None,
    names: Path | None,
    verified: bool,
    reward: dict[str, Any] | None = None,
) -> dict[str, Any]:
    from plaudit.backbone.injections import INJECTIONS
    from plaudit.backbone.published import read_injection
    from plaudit.models.importing import Choices, import_release
    from plaudit.places import models_dir
    from plaudit.storage import read_json

    folder = output or models_dir() / release.id
    if injection is not None:
        injection = read_injection(Path(injection)) if injection.endswith((".yaml", ".yml")) else injection
        INJECTIONS.load(injection)  # before files are read
    name_map = read_json(names) if names else {}
    choices = Choices(injection=injection, names=name_map, verified=verified, **(reward or {}))
    facts = import_release(release, files, folder, choices)
    return {"model": release.id, "folder": str(folder.resolve()), **facts}


def _say(result: dict[str, Any]) -> None:
    result_console.print(f"{result['model']}: {result['folder']}", soft_wrap=True, highlight=False)


def _warn_of_licence(release: Release) -> None:
    if release.non_commercial:
        line = f"{release.id}: not for commercial use (licence: {release.licence})"
        progress_console.print(line, highlight=False, soft_wrap=True)
