"""Runs: what is in them, read without PyTorch, and jobs of kind `compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from plaudit.studio.catalogue import list_models
from plaudit.studio.errors import NotFound
from plaudit.studio.files import beneath, list_folders, resolve, resolve_folder
from plaudit.studio.jobs import JobContext, job
from plaudit.studio.schemas import ComparisonRequest, RunInfo, RunStep
from plaudit.studio.settings import StudioSettings

REPORT = "report"


def list_runs(settings: StudioSettings) -> list[RunInfo]:
    """The runs, those changed last first."""
    folders = [path.parent for path in settings.runs_folder.glob("*/run.json") if beneath(settings.runs_folder, path)]
    models = [model.name for model in list_models(settings) if model.source == "run"]
    newest = sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)
    return [_info(folder, models) for folder in newest]


def get_run(settings: StudioSettings, name: str) -> RunInfo:
    """A run by its name."""
    for run in list_runs(settings):
        if run.name == name:
            return run
    raise NotFound(f"there is no run {name[:80]!r}; GET /runs lists them")


def report_file(settings: StudioSettings, name: str, path: str) -> Path:
    """A file of a run's report."""
    get_run(settings, name)
    return _file(settings.runs_folder / name / REPORT, path)


def comparison_file(settings: StudioSettings, job_id: str, path: str) -> Path:
    """A file of a comparison's page."""
    return _file(resolve(settings.layout.comparisons, job_id), path)


def _file(folder: Path, path: str) -> Path:
    file = resolve(folder, path or "index.html")
    if not file.is_file():
        raise NotFound(f"there is no file {path[:100]!r} here")
    return file


def _info(folder: Path, models: list[str]) -> RunInfo:
    steps = []
    for marker in sorted(folder.glob("*/step.json"), key=lambda path: path.stat().st_mtime):
        done = _read(marker.with_name("done.json"))
        seconds = done.get("seconds")
        steps.append(RunStep(name=marker.parent.name, finished=bool(done), seconds=seconds))
    report = (folder / REPORT / "index.html").is_file()
    return RunInfo(
        name=folder.name,
        recipe=_recipe(folder),
        steps=steps,
        models=[model for model in models if model.startswith(f"{folder.name}/")],
        folders=[f"runs/{folder.name}/{path.name}" for path in sorted(folder.glob("clips-*")) if path.is_dir()],
        report=f"/api/v1/runs/{folder.name}/report/index.html" if report else None,
    )


def _recipe(folder: Path) -> str | None:
    try:
        content = yaml.safe_load((folder / "recipe.yaml").read_bytes())
    except (OSError, yaml.YAMLError, RecursionError):
        return None
    name = content.get("name") if isinstance(content, dict) else None
    return None if name is None else str(name)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def resolve_system(settings: StudioSettings, name: str) -> str:
    """What `plaudit.compare` takes for a system: a run, RUN:STAGE, or a folder of clips."""
    path, colon, stage = name.partition(":")
    if path.startswith("runs/") and path.count("/") == 1:
        run = get_run(settings, path.removeprefix("runs/"))
        if colon and stage not in [step.name for step in run.steps]:
            raise NotFound(
                f"run {run.name} has no stage {stage!r}; it has {', '.join(step.name for step in run.steps)}"
            )
        return f"{settings.runs_folder / run.name}{colon}{stage}"
    if colon:
        raise NotFound(f"{name[:80]!r} is no run; only runs have stages")
    return str(resolve_folder(settings, path))


@job("compare")
def compare(context: JobContext, request: dict[str, Any]) -> dict[str, Any]:
    """Compare two systems, and write the page."""
    import plaudit

    body, settings = ComparisonRequest.model_validate(request), context.settings
    systems = [resolve_system(settings, name) for name in (body.a, body.b)]
    called = {folder.path: folder.name for folder in list_folders(settings, context.database)}
    names = {system: called[path] for system, path in zip(systems, (body.a, body.b), strict=True) if path in called}
    if len(set(names.values())) < len(names):
        names = {system: f"{names[system]}, {path}" for system, path in zip(systems, (body.a, body.b), strict=True)}
    output = settings.layout.comparisons / context.job_id
    reporter = context.reporter()
    result = plaudit.compare(
        systems,
        names=names,
        reporter=reporter,
        output=output,
        shared_prompts=body.shared_prompts,
        device=settings.device,
    )
    page = f"/api/v1/comparisons/{context.job_id}/index.html" if result.page is not None else None
    return {"page": page, "comparison": result.table.to_json(), "notes": reporter.notes}
