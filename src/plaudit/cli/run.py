"""`plaudit demo`, `plaudit run`, `plaudit report`: whole experiments."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plaudit.api import RunSettings
from plaudit.cli.console import (
    ConsoleReporter,
    Json,
    Yes,
    approval,
    as_invoked,
    complain,
    progress_console,
    result_console,
    say,
    show_json,
    show_table,
)
from plaudit.cli.options import options

if TYPE_CHECKING:
    from plaudit.recipe import Recipe

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print requirements, time and memory.")]


def add_to(app: typer.Typer) -> None:
    """Register this group's commands."""
    app.command()(demo)
    app.command("run")(run_recipe)
    app.command()(report)


@options(RunSettings, skip=("source", "only"))
def demo(*, settings: RunSettings, yes: Yes = False, json: Json = False) -> None:
    """Run the whole pipeline on the synthetic corpus, from rendering it to the report, in about 20 minutes.

    Example: plaudit demo
    """
    _run("demo", settings, yes, json)


@options(RunSettings)
def run_recipe(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A recipe file, or a shipped recipe's name (demo, paper ...). Default: that of --from."),
    ] = None,
    *,
    settings: RunSettings,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Run a recipe, or one step of it, in a run folder; finished steps are skipped, interrupted ones continue.

    Results of other settings, code or data are only replaced after confirmation, or with --yes. To keep them, start a
    new run from the old one, which shares every step that is the same:

    plaudit run --from runs/synthetic -o runs/beta-500 --set stages.crpo.beta=500

    Example: plaudit run recipes/smoke.yaml -o runs/smoke

    The cost of a large run, estimated on this machine: plaudit run paper --dry-run

    On several GPUs: torchrun --nproc-per-node 8 -m plaudit run recipes/smoke.yaml
    """
    if recipe is None and settings.source is None:
        raise typer.BadParameter("name a recipe, or a run with --from")
    if dry_run:
        loaded = settings.load_recipe(recipe)
        _show_estimate(loaded, settings.folder(loaded), settings.only, json, settings.source, settings.device)
    else:
        _run(recipe, settings, yes, json)


def _run(recipe: str | None, settings: RunSettings, yes: bool, json: bool) -> None:
    from plaudit import api

    folder = api.run(recipe, settings, approve=approval(yes), reporter=ConsoleReporter())
    if os.environ.get("RANK", "0") == "0":  # of several processes, one prints
        _say(folder, json)


def report(folder: Annotated[Path, typer.Argument(help="A run folder.")], json: Json = False) -> None:
    """Rewrite the report of a finished run from the results in its folder; no step runs.

    Example: plaudit report runs/demo
    """
    from plaudit.pipeline.report import rewrite_report

    _say(rewrite_report(folder), json)


def _say(folder: Path, json: bool) -> None:
    """Print a step's folder; for the report, its page, the recommended stage and regressions under reward."""
    from plaudit.storage import read_json

    if folder.name != "report":
        place = str(folder.resolve())
        show_json({folder.name: place}) if json else say(f"{folder.name.capitalize()}: {place}")
        return
    page, numbers = (folder / "index.html").resolve(), read_json(folder / "report.json")
    regression, use = numbers["regression_finding"], numbers.get("recommended")
    if json:
        command = {} if use is None else {"model": use["key"], "command": use["command"]}
        show_json({"report": str(page)} | ({"regression": regression} if regression else {}) | command)
        return
    say(f"Report: {page}")
    if use is not None:
        say(f"Use the model of {use['title']}: {as_invoked(use['command'])}")
    if regression:
        say(regression)


def _show_estimate(recipe: Recipe, folder: Path, last: str, json: bool, source: Path | None, device: str) -> None:
    """Print what is missing, and the work, hours and memory of every step up to `last` that `folder` lacks.

    source: another run, whose finished steps count as done where their inputs are the same.
    """
    from plaudit.devices import resolve_device
    from plaudit.pipeline.estimate import CostEstimate, calibrate, checked_estimate
    from plaudit.pipeline.requirements import requirements_of
    from plaudit.pipeline.run_folder import check_folder
    from plaudit.pipeline.stage_plans import stage_plans
    from plaudit.pipeline.steps import kind_of_run, located

    check_folder(folder, kind_of_run(recipe))
    recipe = located(recipe)
    plan = checked_estimate(CostEstimate(recipe))
    progress_console.print("measuring this machine", highlight=False)
    unit_costs = calibrate(plan, resolve_device(device))
    rows = _cost_rows(plan, unit_costs, folder, last, source)
    needs = [
        {"what": n.what, "name": n.name, "here": n.here, "otherwise": n.otherwise} for n in requirements_of(recipe)
    ]
    estimate = {
        "recipe": recipe.name,
        "needs": needs,
        "precision": recipe.precision,
        "stages": [asdict(one) for one in stage_plans(recipe)],
        "steps": rows,
        "hours": sum(row["hours"] for row in rows),
        "peak_memory_gib": max(row["memory_gib"] for row in rows),
        "frames": plan.frames,
        "forward_gflop": plan.forward / 1e9,
        "parameters": sum(p.numel() for p in plan.network.parameters()),
        "measured": {
            **unit_costs.facts,
            "training_flops": unit_costs.training,
            "sampling_flops": unit_costs.sampling,
            "encode_seconds": unit_costs.encode,
            "decode_seconds": unit_costs.decode,
            "embed_seconds": unit_costs.embed,
            "activation_gib": unit_costs.activations / 2**30,
        },
    }
    show_json(estimate) if json else _show_costs(estimate)


def _cost_rows(plan: Any, unit_costs: Any, folder: Path, last: str, source: Path | None) -> list[dict[str, Any]]:
    from plaudit.pipeline.run_folder import Run
    from plaudit.pipeline.runner import outlook
    from plaudit.pipeline.steps import required_steps, steps

    works, rows, chain = plan.works(), [], required_steps(last, steps(plan.recipe, folder))
    expected = outlook(chain, Run(folder), None if source is None else Run(source))
    for one in expected:
        work, done = works.get(one.step), one.state in ("done", "shared")
        priced = work is not None and not done
        missing = unit_costs.without_cost(work) if priced else []
        rows.append(
            {
                "step": one.step,
                "done": done,
                "replaced": list(one.reasons),
                "work": work.what if work else "",
                "hours": unit_costs.seconds(work) / 3600 if priced else 0.0,
                "memory_gib": unit_costs.memory(work) / 2**30 if priced else 0.0,
                "not_counted": [*missing, *([work.unknown] if priced and work.unknown else [])],
            }
        )
    return rows


def _show_costs(estimate: dict[str, Any]) -> None:
    needs = [(n["what"], n["name"], "here" if n["here"] else f"missing: {n['otherwise']}") for n in estimate["needs"]]
    if needs:
        show_table("Needed", ("what", "which", "state"), needs)
    precision = "bfloat16" if estimate["precision"] == "bf16" else "float32"
    stages = [
        (one["stage"], "\n".join(one["settings"]), "\n".join(one["lacks"]) or "nothing") for one in estimate["stages"]
    ]
    show_table(f"Stages, trained in {precision}", ("stage", "settings", "lacks"), stages)
    rows = [
        (
            row["step"],
            "done" if row["done"] else row["work"] or "little",
            _hours(row["hours"]) + (" +" if row["not_counted"] else ""),
            f"{row['memory_gib']:.1f} GiB" if row["memory_gib"] else "",
            ", ".join(row["not_counted"]),
        )
        for row in estimate["steps"]
    ]
    columns = ("step", "work", "time", "memory", "beside, not counted")
    show_table(f"{estimate['recipe']}, about {_hours(estimate['hours'])} on this machine", columns, rows)
    for row in estimate["steps"]:
        if row["replaced"]:
            complain(f"{row['step']} would be replaced: {', '.join(row['replaced'])}")
    measured = estimate["measured"]
    result_console.print(
        f"{estimate['parameters'] / 1e6:.1f} M parameters, {estimate['forward_gflop']:.0f} GFLOP a pass "
        f"of {estimate['frames']} frames. Measured on {measured['device']} with {measured['threads']} threads: "
        f"{measured['training_flops'] / 1e9:.0f} GFLOP/s in training, {measured['sampling_flops'] / 1e9:.0f} in "
        f"sampling, {measured['matrix_flops'] / 1e9:.0f} in a product of matrices. docs/recipes.md has the formulas.",
        highlight=False,
    )


def _hours(hours: float) -> str:
    """A duration in the unit that fits it."""
    if hours >= 48:
        return f"{hours / 24:,.1f} days"
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min" if hours * 60 >= 0.1 else "0 min"
