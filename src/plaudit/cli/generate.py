"""`plaudit generate`: clips from a prompt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from plaudit.cli.console import ConsoleReporter, result_console, show_json


def add_to(app: typer.Typer) -> None:
    """Register this group's commands."""
    app.command()(generate)


def generate(
    prompt: Annotated[str, typer.Argument(help="What the music should be like.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many clips.")] = 1,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the clips.")] = Path("out"),
    model: Annotated[str, typer.Option(help="A known model or a model folder.")] = "embedded",
    score: Annotated[float | None, typer.Option(help="Reward to ask for. Default: the model's own.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Guidance weight. Default: the model's own.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Solver steps. Default: the model's own.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first clip; clip i has seed + i.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Clips sampled at once.")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    optimize: Annotated[
        str | None, typer.Option(help="A reward that the noise is optimized for, by its gradient; takes its time.")
    ] = None,
    iterations: Annotated[int, typer.Option(min=1, help="Steps of --optimize.")] = 5,
    rate: Annotated[float, typer.Option(help="Learning rate of --optimize.")] = 0.05,
    json: Annotated[bool, typer.Option("--json", help="Print the clips as JSON.")] = False,
) -> None:
    """Write clips for a prompt as wav files, each with its seed and settings in a JSON file beside it.

    Example: plaudit generate "slow sad piano in a minor key" -n 4 -o out
    """
    from plaudit import hub
    from plaudit.errors import PromptError
    from plaudit.generate.clips import ClipRequest, make_clips
    from plaudit.generate.optimize import NoiseOptimization, Optimizer
    from plaudit.generate.postprocess import PostprocessSettings

    if not prompt.strip():
        raise PromptError("the prompt is empty; say what the music should be like")
    music = hub.load(model, device)
    settings = music.config.sampling.changed(score=score, weight=guidance, steps=steps)
    requests = [ClipRequest(f"{_slug(prompt)}-{seed + i}", prompt, seed + i) for i in range(count)]
    post = PostprocessSettings(seconds=music.config.seconds)
    optimizer = None
    if optimize is not None:
        if not rate > 0:
            raise PromptError(f"the learning rate must be above 0, not {rate:g}")
        how = NoiseOptimization(iterations=iterations, learning_rate=rate)
        optimizer = Optimizer(optimize, hub.load_tunejury(optimize), how)
    with ConsoleReporter().progress("generating") as advance:
        paths = make_clips(music, requests, settings, output, batch, post, advance, optimizer=optimizer)
    if json:
        show_json([{"file": str(p), "seed": r.seed} for p, r in zip(paths, requests, strict=True)])
    else:
        for path in paths:
            result_console.print(path, soft_wrap=True, highlight=False)


def _slug(prompt: str) -> str:
    """A file name from a prompt: its words, at most 48 characters."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:48].rstrip("-") or "clip"
