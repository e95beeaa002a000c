"""`plaudit generate`: clips from prompts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from plaudit.cli.console import ConsoleReporter, EngineName, complain, is_ray, result_console, show_json

if TYPE_CHECKING:
    from plaudit.generate.clips import ClipRequest
    from plaudit.generate.optimize import Optimizer
    from plaudit.generate.settings import SamplingSettings
    from plaudit.types import TextEncoder

CHOICE, SAMPLING, POST, FILES, OPTIMIZE = "What", "Sampling", "Post-processing", "Files", "Noise optimization"
"""Headings of the help."""

_WARNED = 5
"""Prompts about which a line each is printed."""


def add_to(app: typer.Typer) -> None:
    """Register this group's commands."""
    app.command()(generate)


def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="What the music should be like; - reads a prompt a line from standard input.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="A text file with a prompt a line, or a CSV or TSV with a column prompt.", rich_help_panel=CHOICE
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("-n", "--count", min=1, help="How many clips of each prompt.", rich_help_panel=CHOICE)
    ] = 1,
    best_of: Annotated[
        int,
        typer.Option(
            "--best-of",
            min=1,
            help="Candidates for each clip, of which the reward keeps the best.",
            rich_help_panel=CHOICE,
        ),
    ] = 1,
    reward: Annotated[str, typer.Option(help="The reward of --best-of.", rich_help_panel=CHOICE)] = "synthetic",
    seed: Annotated[
        int,
        typer.Option(min=0, help="Seed of the first clip; clip i of all prompts has seed + i.", rich_help_panel=CHOICE),
    ] = 0,
    model: Annotated[
        str, typer.Option(help="A known model or a model folder.", rich_help_panel=SAMPLING)
    ] = "synthetic",
    score: Annotated[
        float | None, typer.Option(help="Reward to ask for. Default: the model's own.", rich_help_panel=SAMPLING)
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="Guidance weight. Default: the model's own.", rich_help_panel=SAMPLING),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Solver steps. Default: the model's own.", rich_help_panel=SAMPLING)
    ] = None,
    solver: Annotated[
        str | None, typer.Option(help="euler, heun and others. Default: the model's own.", rich_help_panel=SAMPLING)
    ] = None,
    negative: Annotated[
        str | None, typer.Option(help="What the music should not be like.", rich_help_panel=SAMPLING)
    ] = None,
    precision: Annotated[str | None, typer.Option(help="bf16, or no for float32.", rich_help_panel=SAMPLING)] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=3600,
            help="Length of a clip; longer than the model's own is made in windows.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    loop: Annotated[
        bool,
        typer.Option("--loop", help="Make the end go on at the start, without a seam.", rich_help_panel=SAMPLING),
    ] = False,
    second_model: Annotated[
        str | None,
        typer.Option(help="A checkpoint of the same latents that shares every trajectory.", rich_help_panel=SAMPLING),
    ] = None,
    switch_at: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Progress from which --second-model takes over. Default: 0.5.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    average: Annotated[
        bool,
        typer.Option("--average", help="Average the velocities of both models instead.", rich_help_panel=SAMPLING),
    ] = False,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Clips sampled at once. Default: what memory and device allow.", rich_help_panel=SAMPLING
        ),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(min=0.01, help="GiB for sampling, beside the weights.", rich_help_panel=SAMPLING),
    ] = None,
    compile: Annotated[
        Literal["no", "default", "graphs"],
        typer.Option(
            help="Compile the network, with CUDA graphs too: slow to start, for many clips.", rich_help_panel=SAMPLING
        ),
    ] = "no",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", rich_help_panel=SAMPLING)] = "auto",
    separate: Annotated[
        int | None, typer.Option(help="Passes of source separation, which take out vocals.", rich_help_panel=POST)
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="A demucs model or a folder of one. Default: mdx_extra.", rich_help_panel=POST)
    ] = None,
    loudness: Annotated[
        str | None, typer.Option(help="LUFS, or null to leave it alone. Default: -16.5.", rich_help_panel=POST)
    ] = None,
    ceiling: Annotated[float | None, typer.Option(help="True peak in dBTP. Default: -1.", rich_help_panel=POST)] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the clips.", rich_help_panel=FILES)] = Path(
        "out"
    ),
    container: Annotated[
        str | None, typer.Option("--format", help="wav, flac, mp3 or ogg. Default: wav.", rich_help_panel=FILES)
    ] = None,
    bits: Annotated[
        int | None, typer.Option(help="16, 24, or 32 for floating point. Default: 16.", rich_help_panel=FILES)
    ] = None,
    rate: Annotated[
        int | None, typer.Option(help="Sample rate in Hz. Default: the model's own.", rich_help_panel=FILES)
    ] = None,
    optimize: Annotated[
        str | None,
        typer.Option(
            help="A reward that the noise is optimized for, by its gradient; takes its time.", rich_help_panel=OPTIMIZE
        ),
    ] = None,
    iterations: Annotated[int, typer.Option(help="Steps of --optimize.", rich_help_panel=OPTIMIZE)] = 5,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of --optimize.", rich_help_panel=OPTIMIZE)] = 0.05,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change any setting, e.g. guidance.mode=separate or post.separate.keep=[drums]. Repeatable."
        ),
    ] = None,
    engine: EngineName = "local",
    json: Annotated[bool, typer.Option("--json", help="Print the clips as JSON.")] = False,
) -> None:
    """Write clips for prompts as audio files, each with its seed and settings in itself and in a JSON file beside it.

    A folder half made is continued: the same command makes what is missing. Clips of other prompts or settings are
    never replaced: a name that does not tell them apart gets a digest. Files are named on standard output as soon as
    they are there; with --best-of, as soon as a prompt's candidates are made and scored.

    Example: plaudit generate "slow sad piano in a minor key" -n 4 --best-of 8 -o out
    """
    from plaudit import loading
    from plaudit.generate.clips import clip_requests, stream_best_of, stream_clips
    from plaudit.generate.postprocess import PostProcessor
    from plaudit.generate.settings import Execution, GenerationSettings
    from plaudit.ray_engine import Cluster, stream_clips_on_ray
    from plaudit.sidecars import CANDIDATES, mark_candidates

    spread = is_ray(engine)
    if spread and optimize is not None:
        raise typer.BadParameter("--optimize works with --engine local alone")
    groups = clip_requests(_prompts(prompt, prompts), count, seed, best_of)
    trajectory = _trajectory(second_model, switch_at, average)
    music = loading.load(model, device)
    if second_model is not None:
        music = replace(music, second=loading.load(second_model, device))
    flags = {
        "sampling.piece.seconds": seconds,
        "sampling.piece.loop": loop or None,
        "sampling.trajectory": trajectory,
        "sampling.score": score,
        "sampling.guidance.weight": guidance,
        "sampling.steps": steps,
        "sampling.solver": solver,
        "sampling.negative_prompt": negative,
        "sampling.precision": precision,
        "post.separate.passes": separate,
        "post.separate.model": separator,
        "post.ceiling": ceiling,
        "post.rate": rate,
        "file.container": container,
        "file.bits": bits,
    }
    told = ([] if loudness is None else [f"post.loudness={loudness}"]) + (changes or [])
    settings = GenerationSettings(sampling=music.config.sampling).changed(flags, told).fitted(music.config.seconds)
    execution = Execution(batch=batch, memory=memory, compile=compile)
    postprocessor = PostProcessor.load(settings.post, settings.file, loading.resolve_device(device))
    optimizer = _optimizer(optimize, iterations, learning_rate)
    requests = [request for group in groups for request in group]
    jury = None if best_of == 1 else loading.load_reward(reward)
    _warn_of_unread(music.text_encoder, settings.sampling, requests)
    folder = output if jury is None else output / CANDIDATES
    if jury is not None:
        mark_candidates(folder)
    with ConsoleReporter().progress("generating") as advance:
        if spread:
            names, cluster = (model, second_model), Cluster(device=device)
            rest = (settings.sampling, folder, cluster, execution, postprocessor)
            made = stream_clips_on_ray(names, music, requests, *rest, keep_others=True)
        else:
            made = stream_clips(
                music, requests, settings.sampling, folder, execution, postprocessor, optimizer, keep_others=True
            )
        made = _counted(made, len(requests), advance)
        _tell(made if jury is None else stream_best_of(groups, made, jury, reward, output), json)


def _warn_of_unread(encoder: TextEncoder, settings: SamplingSettings, requests: Sequence[ClipRequest]) -> None:
    """A line for each of the first prompts that the text encoder does not read in full, and how many more there are."""
    from plaudit.encoders.unread import unread

    prompts = list(dict.fromkeys(request.prompt for request in requests))
    texts = {f"prompt {number}": settings.prefix + prompt for number, prompt in enumerate(prompts, start=1)}
    if len(prompts) == 1:
        texts = {"prompt": settings.prefix + prompts[0]}
    lines = [f"{name}: {reason}" for name, text in texts.items() if (reason := unread(encoder, text))]
    for line in lines[:_WARNED]:
        complain(line)
    if len(lines) > _WARNED:
        complain(f"{len(lines) - _WARNED} more prompts are not read in full; the sidecars say which (unread)")
    if reason := unread(encoder, settings.negative_prompt):
        complain(f"negative prompt: {reason}")


def _optimizer(reward: str | None, iterations: int, learning_rate: float) -> Optimizer | None:
    from plaudit import loading
    from plaudit.generate.optimize import Optimizer
    from plaudit.generate.settings import NoiseOptimization
    from plaudit.settings import validated

    if reward is None:
        return None
    values = {"iterations": iterations, "learning_rate": learning_rate}
    return Optimizer(reward, loading.load_tunejury(reward), validated(NoiseOptimization, values, "noise optimization"))


def _counted(files: Iterator[Path], total: int, advance: Callable[[int, int], None]) -> Iterator[Path]:
    for done, file in enumerate(files, start=1):
        advance(done, total)
        yield file


def _tell(files: Iterator[Path], json: bool) -> None:
    """Each file as it comes, or all of them as JSON; notices on standard error, each that is new."""
    from plaudit.cli.console import progress_console
    from plaudit.storage import read_json

    rows: list[dict[str, Any]] = []
    known: set[str] = set()
    for file in files:
        facts = read_json(file.with_suffix(".json"))
        notice = facts["measured"].get("notice")
        rows.append({"file": str(file), "prompt": facts["prompt"], "seed": facts["seed"], "notice": notice})
        if not json:
            result_console.print(file, soft_wrap=True, highlight=False)
        if notice is not None and notice not in known:
            known.add(notice)
            progress_console.print(f"{file.name}: {notice}", soft_wrap=True, highlight=False, markup=False)
    if json:
        show_json(rows)


def _prompts(prompt: str | None, file: Path | None) -> list[str]:
    from plaudit.generate.requests import checked_prompt, prompts_in, prompts_of

    if (prompt is None) == (file is None):
        raise typer.BadParameter("give one of: a prompt, - for a list on standard input, or --prompts FILE")
    if file is not None:
        return prompts_in(file)
    if prompt == "-":
        return prompts_of(sys.stdin.buffer.read(), "standard input")
    assert prompt is not None
    return [checked_prompt(prompt, "PROMPT")]


def _trajectory(second_model: str | None, switch_at: float | None, average: bool) -> dict[str, Any] | None:
    """How a second model takes part; half-way where it is not said."""
    if second_model is None:
        if switch_at is not None or average:
            raise typer.BadParameter("--switch-at and --average need --second-model")
        return None
    if switch_at is not None and average:
        raise typer.BadParameter("give one of --switch-at and --average")
    return {"mode": "average"} if average else {"at": 0.5 if switch_at is None else switch_at}
