"""`plaudit report`: the report of a finished run, written again from the results and records of its steps."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from plaudit.errors import RunError
from plaudit.machine import environment_of
from plaudit.pipeline.run_folder import Run, kind_of, open_run
from plaudit.pipeline.runner import RunFiles, Step
from plaudit.pipeline.steps import kind_of_run, steps
from plaudit.recipe import load_recipe


def rewrite_report(folder: Path) -> Path:
    """Write the report of a run folder again; the report's folder. No other step is run or changed.

    Machine, memory and times on the page are those in the records of the steps. RunError where the folder is no run,
    or where steps are unfinished, have other settings than the recipe, or used an earlier output of another step.
    """
    if not (kind_of(folder) or "").startswith("a run of recipe"):
        raise RunError(f"{folder} is not a run folder; name one that `plaudit run` has written")
    recipe = load_recipe(str(folder / "recipe.yaml"))
    *others, report = steps(recipe, folder)
    started = time.monotonic()
    with open_run(folder, kind_of_run(recipe)) as run:
        _require_finished(run, others)
        lineage = {step.name: [run.key(step.name), run.finished(step.name).output] for step in others}
        origin = report.origin({name: output for name, (_, output) in lineage.items()})
        record = run.record(report.name)
        if record is None:
            run.begin(report.name, origin, lineage)
        report.make(RunFiles(run), folder / report.name)
        if record is None or record.finished is None or record.origin != origin:
            run.recorded_again(report.name, origin, lineage)
            environment = environment_of(torch.device("cpu"))
            run.finish(report.name, time.monotonic() - started, report.read_later, environment)
    return folder / report.name


def _require_finished(run: Run, chain: Sequence[Step]) -> None:
    """RunError where steps are unfinished, have other settings than the recipe, or used an earlier output."""
    again = f"run it with: plaudit run {run.folder / 'recipe.yaml'} -o {run.folder}"
    records = {step.name: run.record(step.name) for step in chain}
    missing = [name for name, record in records.items() if record is None or record.finished is None]
    if missing:
        more = f" and {len(missing) - 3} more steps" if len(missing) > 3 else ""
        raise RunError(f"{run.folder} has no finished {', '.join(missing[:3])}{more}; {again}")
    for step in chain:
        run.verify(step.name)
        record = records[step.name]
        assert record is not None and record.origin is not None
        now = json.loads(json.dumps(step.settings))
        both = now.keys() & record.origin.settings.keys()
        if other := sorted(name for name in both if now[name] != record.origin.settings[name]):
            raise RunError(f"{step.name} has another {other[0]} than {run.folder}/recipe.yaml has; {again}")
        for need, output in record.origin.inputs.items():
            if run.finished(need).output != output:
                raise RunError(f"{step.name} used an earlier {need} than the present one; {again}")
