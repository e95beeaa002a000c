"""`plaudit generate`: clips from a prompt."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from plaudit.cli.console import ConsoleReporter, EngineName, is_ray, result_console, show_json

if TYPE_CHECKING:
    from plaudit.flow.trajectories import Trajectory
    from plaudit.generate.settings import Piece


def add_to(app: typer.Typer) -> None:
    """Register this group's commands."""
    app.command()(generate)


def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="What the music should be like; - reads a prompt a line from standard input.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompts: a text file with one a line, or a CSV with a column prompt.")
    ] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many clips of each prompt.")] = 1,
    best_of: Annotated[
        int, typer.Option("--best-of", min=1, help="Candidates for each clip, of which the reward keeps the best.")
    ] = 1,
    reward: Annotated[str, typer.Option(help="The reward of --best-of.")] = "embedded",
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the clips.")] = Path("out"),
    model: Annotated[str, typer.Option(help="A known model or a model folder.")] = "embedded",
    score: Annotated[float | None, typer.Option(help="Reward to ask for. Default: the model's own.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Guidance weight. Default: the model's own.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Solver steps. Default: the model's own.")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Length of a clip; longer than the model's own is made in windows.")
    ] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Make the end go on at the start, without a seam.")] = False,
    second_model: Annotated[
        str | None, typer.Option(help="A checkpoint of the same latents that shares every trajectory.")
    ] = None,
    hand_over: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Progress from which --second-model takes over. Default: 0.5."),
    ] = None,
    average: Annotated[bool, typer.Option("--average", help="Average the velocities of both models instead.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first clip; clip i has seed + i.")] = 0,
    precision: Annotated[
        Literal["bf16", "no"] | None, typer.Option(help="no is float32. Default: the model's own.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Clips sampled at once. Default: what memory and device allow.")
    ] = None,
    memory: Annotated[float | None, typer.Option(min=0.01, help="GiB for sampling, beside the weights.")] = None,
    compile: Annotated[
        Literal["no", "default", "graphs"],
        typer.Option(help="Compile the network, with CUDA graphs too: slow to start, for many clips."),
    ] = "no",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    optimize: Annotated[
        str | None, typer.Option(help="A reward that the noise is optimized for, by its gradient; takes its time.")
    ] = None,
    iterations: Annotated[int, typer.Option(min=1, help="Steps of --optimize.")] = 5,
    rate: Annotated[float, typer.Option(help="Learning rate of --optimize.")] = 0.05,
    engine: EngineName = "local",
    json: Annotated[bool, typer.Option("--json", help="Print the clips as JSON.")] = False,
) -> None:
    """Write clips for prompts as wav files, each with its seed and settings in a JSON file beside it.

    A folder half made is continued: the same command makes what is missing. Files are named on standard output as soon
    as they are there.

    Example: plaudit generate "slow sad piano in a minor key" -n 4 --best-of 8 -o out
    """
    from plaudit import hub
    from plaudit.assets import read_json
    from plaudit.errors import PromptError
    from plaudit.generate.best_of import keep_best
    from plaudit.generate.clips import ClipRequest, make_clips
    from plaudit.generate.execution import Execution
    from plaudit.generate.optimize import NoiseOptimization, Optimizer
    from plaudit.generate.postprocess import PostprocessSettings
    from plaudit.generate.requests import clip_requests
    from plaudit.scale.cluster import Cluster
    from plaudit.scale.generate import make_clips_on_ray

    spread = is_ray(engine)
    if spread and optimize is not None:
        raise typer.BadParameter("--optimize works with --engine local alone")
    groups = clip_requests(_prompts(prompt, prompts), count, seed, best_of)
    trajectory = _trajectory(second_model, hand_over, average)
    music = hub.load(model, device)
    settings = music.config.sampling.changed(score=score, weight=guidance, steps=steps, precision=precision)
    settings = settings.changed(piece=_piece(settings.piece, seconds, loop), trajectory=trajectory)
    if second_model is not None:
        music = replace(music, second=hub.load(second_model, device))
    execution = Execution(batch=batch, memory=memory, compile=compile)
    post = PostprocessSettings(seconds=settings.piece.seconds or music.config.seconds)
    if settings.piece.loop:  # it has no ends to fade, and is as long as its latents are
        post = PostprocessSettings(fade_ms=0.0)
    optimizer = None
    if optimize is not None:
        if not rate > 0:
            raise PromptError(f"the learning rate must be above 0, not {rate:g}")
        how = NoiseOptimization(iterations=iterations, learning_rate=rate)
        optimizer = Optimizer(optimize, hub.load_tunejury(optimize), how)

    def say(path: Path) -> None:
        if not json:
            result_console.print(path, soft_wrap=True, highlight=False)

    def make(requests: list[ClipRequest], folder: Path, made: Callable[[Path], None] = lambda path: None) -> list[Path]:
        with ConsoleReporter().progress("generating") as advance:
            if spread:
                rest = (Cluster(device=device), execution, post, advance, made)
                return make_clips_on_ray((model, second_model), music, requests, settings, folder, *rest)
            return make_clips(music, requests, settings, folder, execution, post, advance, made, optimizer)

    if best_of == 1:
        paths = make([request for group in groups for request in group], output, say)
    else:
        with ConsoleReporter().progress("scoring") as advance:
            paths = keep_best(groups, make, hub.load_reward_model(reward), reward, output, advance)
        for path in paths:
            say(path)
    if json:
        told = [read_json(path.with_suffix(".json")) for path in paths]
        show_json(
            [{"file": str(p), "prompt": t["prompt"], "seed": t["seed"]} for p, t in zip(paths, told, strict=True)]
        )


def _prompts(prompt: str | None, file: Path | None) -> list[str]:
    from plaudit.errors import PromptError
    from plaudit.generate.requests import prompts_in, prompts_of

    if (prompt is None) == (file is None):
        raise typer.BadParameter("give one of: a prompt, - for a list on standard input, or --prompts FILE")
    if file is not None:
        return prompts_in(file)
    if prompt == "-":
        return prompts_of(sys.stdin, "standard input")
    assert prompt is not None
    if not prompt.strip():
        raise PromptError("the prompt is empty; say what the music should be like")
    return [prompt]


def _piece(own: Piece, seconds: float | None, loop: bool) -> Piece:
    """The model's own piece settings, but for what was asked for."""
    changes = {"seconds": seconds} if seconds is not None else {}
    return own.model_copy(update=changes | ({"loop": True} if loop else {}))


def _trajectory(second_model: str | None, hand_over: float | None, average: bool) -> Trajectory | None:
    """How a second model takes part; half-way where it is not said."""
    from plaudit.flow.trajectories import Trajectory

    if second_model is None:
        if hand_over is not None or average:
            raise typer.BadParameter("--hand-over and --average need --second-model")
        return None
    if hand_over is not None and average:
        raise typer.BadParameter("give one of --hand-over and --average")
    return Trajectory(mode="average") if average else Trajectory(at=0.5 if hand_over is None else hand_over)
