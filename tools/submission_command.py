"""`python -m tools.submission`: the challenge's zip and parameter count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plaudit.cli.console import ConsoleReporter, complain, progress_console, result_console, show_json
from plaudit.writing import is_stream

if TYPE_CHECKING:
    from plaudit.generate.model import TextToMusic


def add_to(app: typer.Typer) -> None:
    """Register this group's commands."""
    app.command()(submission)


def submission(
    prompts: Annotated[Path, typer.Argument(help="CSV of the prompts, with columns id and prompt.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The zip; the count goes into a .json beside it.")
    ] = Path("submission.zip"),
    clips: Annotated[
        Path | None, typer.Option(help="Folder of clips named by prompt id. Default: generate them.")
    ] = None,
    model: Annotated[str, typer.Option(help="The model: it generates, and its parameters are counted.")] = "synthetic",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first prompt's clip; clip i has seed + i.")] = 42,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting, as of plaudit generate. Repeatable.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Clips sampled at once. Default: what memory and device allow.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    resample: Annotated[bool, typer.Option("--resample", help="Bring --clips of another rate to 44.1 kHz.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write the challenge's zip: 100 mono wavs of ten seconds at 44.1 kHz, refusing what the rules would refuse.

    Generated clips are kept in a folder beside the zip, and a run that was stopped continues there; clips of other
    settings or prompts in it are not replaced but refused. Every problem is a line on standard error.

    Example: python -m tools.submission prompts.csv --model fluxaudio-s --set post.separate.passes=3 -o submission.zip
    """
    from plaudit import loading
    from plaudit.errors import PromptError
    from tools.submission import RULES, collect, read_prompt_ids, trainable_parameters, write_submission

    streamed = is_stream(output)
    if streamed and clips is None:
        raise typer.BadParameter(f"{output} is not a file, beside which clips could be kept; give --clips")
    wanted = read_prompt_ids(prompts)
    music = loading.load(model, device)
    generated = clips is None
    if clips is None:
        clips = output.with_name(f"{output.stem}-clips")
        _generate(music, wanted, clips, seed, changes or [], batch, device)
    elif changes:
        raise typer.BadParameter("--set changes what is generated; leave it or --clips out")
    parameters = trainable_parameters(music.backbone)
    found = collect(clips, wanted, parameters, resampling=resample)
    for problem in found.problems:
        progress_console.print(problem, soft_wrap=True, highlight=False, markup=False)
    if found.problems:
        raise PromptError(f"{output} not written; problems found: {len(found.problems)}")
    if generated and music.codec.sample_rate != RULES.rate:
        found = replace(found, resampled_from=[music.codec.sample_rate])
    for rate in found.resampled_from:
        progress_console.print(f"resampled from {rate} to {RULES.rate} Hz: there is no sound above {rate // 2} Hz")
    told = write_submission(output, found, {"model": model, "parameters": parameters})
    if json and not streamed:
        show_json({"file": str(output), **told})
    else:
        for written in [] if streamed else [output, output.with_suffix(".json")]:
            result_console.print(str(written), soft_wrap=True)


def _generate(
    music: TextToMusic,
    prompts: dict[str, str],
    folder: Path,
    seed: int,
    changes: list[str],
    batch: int | None,
    device: str,
) -> None:
    """The clips of all prompts at the rules' rate and length."""
    from plaudit import loading
    from plaudit.encoders.unread import unread_note
    from plaudit.generate.clips import check_names, clip_facts, make_clips
    from plaudit.generate.postprocess import prepared_delivery
    from plaudit.generate.sampling import Execution
    from plaudit.generate.settings import GenerationSettings
    from tools.submission import RULES, submission_requests

    flags = {"post.seconds": RULES.seconds, "post.rate": RULES.rate}
    settings = GenerationSettings(sampling=music.config.sampling).changed(flags, changes)
    texts = [settings.sampling.prefix + prompt for prompt in prompts.values()]
    if note := unread_note(music.text_encoder, texts, "prompts"):
        complain(note)
    execution = Execution(batch=batch)
    delivery = prepared_delivery(settings.post, settings.file, loading.resolve_device(device))
    requests = submission_requests(prompts, seed)
    check_names(folder, requests, clip_facts(music, requests, settings.sampling, delivery, None))
    with ConsoleReporter().progress("generating") as advance:
        make_clips(music, requests, settings.sampling, folder, execution, delivery, advance)


if __name__ == "__main__":
    app = typer.Typer()
    add_to(app)
    app()
