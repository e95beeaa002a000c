"""`python -m tools.submission`: the challenge's zip of clips named by prompt id, and the model's parameter count.

The rules (ICME 2026 Academic Text-to-Music, efficiency track): 100 mono wav files of exactly ten seconds at 44.1 kHz,
from at most 500 million trainable parameters. The zip holds the clips alone; the count lies beside it, as JSON (ours).
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soundfile
import typer
from torch import nn

from plaudit import loading
from plaudit.api import GenerateSettings, generation_settings
from plaudit.audio import SUFFIXES, read_audio, resample
from plaudit.audio_format import AudioFormat, encode_audio
from plaudit.cli.console import ConsoleReporter, complain, progress_console, result_console, show_json
from plaudit.cli.main import main
from plaudit.cli.options import App
from plaudit.devices import resolve_device
from plaudit.encoders.truncation import truncation_note
from plaudit.errors import AudioError, CorpusError, PromptError
from plaudit.files import is_hidden
from plaudit.generate.clips import ClipRequest, check_names, clip_provenance, generate_clips
from plaudit.generate.model import TextToMusic
from plaudit.generate.postprocess import PostProcessor
from plaudit.generate.settings import Execution
from plaudit.settings import validated, with_changes
from plaudit.storage import write_atomically, write_json
from plaudit.tables import read_table
from plaudit.writing import is_stream

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every file in the zip: the earliest that the format has."""


@dataclass(frozen=True)
class Rules:
    """What a submission must be."""

    clips: int = 100
    rate: int = 44100
    seconds: float = 10.0
    parameters: int = 500_000_000

    @property
    def samples(self) -> int:
        """Of every clip."""
        return round(self.seconds * self.rate)


RULES = Rules()


@dataclass(frozen=True)
class Submission:
    """The wav files to be sent, by prompt id, and every rule they break, a line each. resampled_from: rates in Hz
    that clips had."""

    files: dict[str, bytes]
    problems: list[str]
    resampled_from: list[int]


def read_prompt_ids(table: Path) -> dict[str, str]:
    """id -> prompt from a CSV with columns id and prompt (or caption).

    CorpusError or PromptError, in one line, where it cannot be read, an id is doubled or no file name, or a prompt is
    empty.
    """
    prompts: dict[str, str] = {}
    for row in read_table(table, ["id"]):
        if "prompt" not in row and "caption" not in row:
            raise CorpusError(f"{table} has no column 'prompt' or 'caption'; its columns are {', '.join(row)}")
        name, prompt = row["id"].strip(), row.get("prompt", row.get("caption", "")).strip()
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise PromptError(f"{row.where}: id {name!r} is no file name; use letters, digits, - and _")
        if name.lower() in (other.lower() for other in prompts):
            raise PromptError(f"{row.where}: id {name} is there twice; give each prompt one id")
        if not prompt:
            raise PromptError(f"{row.where}: the prompt is empty; say what the music should be like")
        prompts[name] = prompt
    return prompts


def trainable_parameters(backbone: nn.Module) -> int:
    """Numbers that training changes: all parameters of the network, but none of its buffers (latent statistics)."""
    return sum(parameter.numel() for parameter in backbone.parameters())


def collect(
    folder: Path, prompts: Mapping[str, str], parameters: int, rules: Rules = RULES, resampling: bool = False
) -> Submission:
    """The submission that the clips `folder/<id>.wav` make, with all that is wrong with it.

    With `resampling`, clips of another rate are brought to the rules' and written anew as 16-bit wav with dither;
    others are sent as they are.
    """
    problems = []
    if len(prompts) != rules.clips:
        problems.append(f"{len(prompts)} prompts, not {rules.clips}: take the challenge's list")
    if parameters > rules.parameters:
        problems.append(f"the model has {parameters:,} trainable parameters, over the limit of {rules.parameters:,}")
    listed = sorted(path for path in folder.iterdir() if not is_hidden(path.name)) if folder.is_dir() else []
    there = {path.name: path for path in listed if path.suffix.lower() in SUFFIXES}
    names = {f"{name}.wav": name for name in prompts}
    problems += [f"{there[file]} is named after no prompt id" for file in sorted(there.keys() - names.keys())]
    files: dict[str, bytes] = {}
    rates: set[int] = set()
    first_with: dict[str, str] = {}
    for file, name in sorted(names.items()):
        if file not in there:
            problems.append(f"{folder / file} is missing: prompt {name} has no clip")
            continue
        clip = _clip(there[file], name, rules, resampling)
        if isinstance(clip, str):
            problems.append(clip)
            continue
        files[name], rate, digest = clip
        if digest in first_with:
            problems.append(f"{there[file]} has the same sound as {first_with[digest]}.wav")
        first_with.setdefault(digest, name)
        if rate != rules.rate:
            rates.add(rate)
    return Submission(files, problems, sorted(rates))


def write_submission(path: Path, submission: Submission, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the zip, whole or not at all, and the JSON beside it; what the JSON says.

    The same clips give the same bytes on every machine: they are stored uncompressed, in the order of their names.
    PromptError where the submission breaks a rule.
    """
    if submission.problems:
        raise PromptError(f"{path} not written: {len(submission.problems)} problems, first {submission.problems[0]}")
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(submission.files.items()):
            entry = zipfile.ZipInfo(f"{name}.wav", _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, content)
    summary = {
        **facts,
        "clips": len(submission.files),
        "resampled_from": submission.resampled_from,
        "sha256": hashlib.sha256(memory.getvalue()).hexdigest(),
    }
    write_atomically(path, memory.getvalue())
    if not is_stream(path):
        write_json(path.with_suffix(".json"), summary)
    return summary


def _clip(path: Path, name: str, rules: Rules, resampling: bool) -> tuple[bytes, int, str] | str:
    """The file to send, its clip's rate and a digest of its sound, or the rule that it breaks."""
    try:
        wave, rate = read_audio(path)
        facts = soundfile.info(path)
    except (AudioError, soundfile.SoundFileError) as error:
        return str(error)
    wrong = []
    if facts.format not in ("WAV", "WAVEX"):
        wrong.append(f"is {facts.format}, not wav")
    if facts.channels != 1:
        wrong.append(f"has {facts.channels} channels, not 1")
    if rate != rules.rate and not resampling:
        wrong.append(f"is at {rate} Hz, not {rules.rate}")
    samples = round(rules.seconds * rate) if resampling else rules.samples
    if len(wave) != samples and not (rate != rules.rate and not resampling):
        wrong.append(f"has {len(wave)} samples, not {samples}")
    if wrong:
        return f"{path} {', '.join(wrong)}"
    content = path.read_bytes()
    if rate != rules.rate:
        wave = resample(wave, rate, rules.rate)
        content = encode_audio(wave[: rules.samples], rules.rate, AudioFormat(), int.from_bytes(name.encode()))
    return content, rate, hashlib.sha256(np.round(wave * 2**15).astype(np.int32).tobytes()).hexdigest()


def submission_requests(prompts: Mapping[str, str], seed: int) -> list[ClipRequest]:
    """The clips in the table's order: clip i has seed + i (published: 42 and 55)."""
    return [ClipRequest(name, prompt, seed + row) for row, (name, prompt) in enumerate(prompts.items())]


app = App()


@app.command()
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
    resampling: Annotated[bool, typer.Option("--resample", help="Bring --clips of another rate to 44.1 kHz.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write the challenge's zip: 100 mono wavs of ten seconds at 44.1 kHz, refusing what the rules would refuse.

    Generated clips are kept in a folder beside the zip, and a run that was stopped continues there; clips of other
    settings or prompts in it are not replaced but refused. Every problem is a line on standard error.

    Example: python -m tools.submission prompts.csv --model fluxaudio-s --set post.separate.passes=3 -o submission.zip
    """
    streamed = is_stream(output)
    if streamed and clips is None:
        raise typer.BadParameter(f"{output} is not a file, beside which clips could be kept; give --clips")
    requested = read_prompt_ids(prompts)
    music = loading.load(model, device)
    generated = clips is None
    if clips is None:
        clips = output.with_name(f"{output.stem}-clips")
        _generate(music, requested, clips, seed, changes or [], batch, device)
    elif changes:
        raise typer.BadParameter("--set changes what is generated; leave it or --clips out")
    parameters = trainable_parameters(music.backbone)
    collected = collect(clips, requested, parameters, resampling=resampling)
    for problem in collected.problems:
        progress_console.print(problem, soft_wrap=True, highlight=False, markup=False)
    if collected.problems:
        raise PromptError(f"{output} not written; problems: {len(collected.problems)}")
    if generated and music.codec.sample_rate != RULES.rate:
        collected = replace(collected, resampled_from=[music.codec.sample_rate])
    for rate in collected.resampled_from:
        progress_console.print(f"resampled from {rate} to {RULES.rate} Hz: there is no sound above {rate // 2} Hz")
    summary = write_submission(output, collected, {"model": model, "parameters": parameters})
    if json and not streamed:
        show_json({"file": str(output), **summary})
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
    values = with_changes({"post": {"seconds": RULES.seconds, "rate": RULES.rate}}, changes, "settings")
    settings = generation_settings(validated(GenerateSettings, values, "settings"), music)
    texts = [settings.sampling.text_of(prompt) for prompt in prompts.values()]
    if note := truncation_note(music.text_encoder, texts, "prompts"):
        complain(note)
    execution = Execution(batch=batch)
    postprocessor = PostProcessor.load(settings.post, settings.file, resolve_device(device))
    requests = submission_requests(prompts, seed)
    check_names(folder, requests, clip_provenance(music, requests, settings.sampling, postprocessor, None))
    with ConsoleReporter().progress("generating") as advance:
        generate_clips(music, requests, settings.sampling, folder, execution, postprocessor, advance)


if __name__ == "__main__":
    main(app, "python -m tools.submission")
