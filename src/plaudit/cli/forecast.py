"""`plaudit run --dry-run`: what a recipe needs, and what its steps take on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plaudit.cli.console import complain, progress_console, result_console, show_json, show_table
from plaudit.recipe import Recipe


def show_estimate(recipe: Recipe, folder: Path, last: str, json: bool, source: Path | None = None) -> None:
    """Print what is missing, and the work, hours and memory of every step up to `last` that `folder` lacks.

    source: another run, whose finished steps count as done where they are made from the same.
    """
    from plaudit import loading
    from plaudit.pipeline.estimate import CostEstimate, calibrate, checked_estimate, requirements_of
    from plaudit.pipeline.run_folder import check_folder
    from plaudit.pipeline.settings import located
    from plaudit.pipeline.steps import kind_of_run

    check_folder(folder, kind_of_run(recipe))
    recipe = located(recipe)
    plan = checked_estimate(CostEstimate(recipe))
    progress_console.print("measuring this machine", highlight=False)
    unit_costs = calibrate(plan, loading.resolve_device("auto"))
    rows = _rows(plan, unit_costs, folder, last, source)
    needs = [
        {"what": n.what, "name": n.name, "here": n.here, "otherwise": n.otherwise} for n in requirements_of(recipe)
    ]
    found = {
        "recipe": recipe.name,
        "needs": needs,
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
            "hear_seconds": unit_costs.hear,
            "activation_gib": unit_costs.activations / 2**30,
        },
    }
    show_json(found) if json else _show(found)


def _rows(plan: Any, unit_costs: Any, folder: Path, last: str, source: Path | None) -> list[dict[str, Any]]:
    from plaudit.pipeline.outlook import outlook
    from plaudit.pipeline.run_folder import Run
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


def _show(found: dict[str, Any]) -> None:
    needs = [(n["what"], n["name"], "here" if n["here"] else f"missing: {n['otherwise']}") for n in found["needs"]]
    if needs:
        show_table("Needed", ("what", "which", "state"), needs)
    rows = [
        (
            row["step"],
            "done" if row["done"] else row["work"] or "little",
            _hours(row["hours"]) + (" +" if row["not_counted"] else ""),
            f"{row['memory_gib']:.1f} GiB" if row["memory_gib"] else "",
            ", ".join(row["not_counted"]),
        )
        for row in found["steps"]
    ]
    columns = ("step", "work", "time", "memory", "beside, not counted")
    show_table(f"{found['recipe']}, about {_hours(found['hours'])} on this machine", columns, rows)
    for row in found["steps"]:
        if row["replaced"]:
            complain(f"{row['step']} would be replaced: {', '.join(row['replaced'])}")
    measured = found["measured"]
    result_console.print(
        f"{found['parameters'] / 1e6:.1f} M parameters, {found['forward_gflop']:.0f} GFLOP a pass of {found['frames']} "
        f"frames. Measured on {measured['device']} with {measured['threads']} threads: "
        f"{measured['training_flops'] / 1e9:.0f} GFLOP/s in training, {measured['sampling_flops'] / 1e9:.0f} in "
        f"sampling, {measured['matrix_flops'] / 1e9:.0f} in a product of matrices. docs/recipes.md has the formulas.",
        highlight=False,
    )


def _hours(hours: float) -> str:
    """A duration in the unit that fits it."""
    if hours >= 48:
        return f"{hours / 24:,.1f} days"
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min" if hours * 60 >= 0.1 else "0 min"
