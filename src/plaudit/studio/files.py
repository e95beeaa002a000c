"""Files of the studio: every path that the API takes is resolved here, under the studio's folders or not at all.

Uploads are written to `incoming/` as they arrive, bounded, under names of ours. The worker decodes them (jobs of kind
`upload`), so that a malformed file can't harm the server, and what is served is what the worker encoded.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import select

from plaudit.errors import AudioError, PlauditError
from plaudit.files import files_under
from plaudit.studio.database import Clip, Database, new_id
from plaudit.studio.errors import Gone, NotFound, TooLarge, Unprocessable
from plaudit.studio.events import publish
from plaudit.studio.jobs import JobContext, job
from plaudit.studio.schemas import ClipInfo, FolderInfo
from plaudit.studio.settings import Layout, StudioSettings
from plaudit.studio.waveform import write_drawings
from plaudit.writing import write_atomically

MOST_FILES = 1000
MOST_FILE = 200 << 20
MOST_TABLE = 1 << 20

MOST_SECONDS = 600.0
"""Seconds of an uploaded clip."""

SUFFIXES = (".wav", ".wave", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".aifc", ".au", ".caf", ".w64")
"""Of files that are taken as audio."""

TABLE = "prompts.csv"
"""An upload's table with the columns file and prompt."""

MEDIA_TYPES = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
}


def beneath(root: Path, path: Path) -> bool:
    """Whether a path that exists lies under `root` once all links are followed."""
    try:
        return path.resolve(strict=True).is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def resolve(root: Path, relative: str) -> Path:
    """The file or folder at a relative path with / between its parts; NotFound where it isn't there, or is outside
    `root`, or hidden."""
    parts = relative.split("/")
    proper = all(part and not part.startswith(".") and not set(part) & {"\\", "\0"} for part in parts)
    path = root.joinpath(*parts) if proper else None
    if path is None or not beneath(root, path):
        raise NotFound(f"there is nothing at {relative[:100]!r} in the studio")
    return path


def resolve_folder(settings: StudioSettings, path: str) -> Path:
    """A folder of clips by its path in the API: uploads/ID, clips/JOB, or runs/RUN/..."""
    kind, _, rest = path.partition("/")
    layout = settings.layout
    roots = {"uploads": layout.uploads, "clips": layout.clips, "runs": settings.runs_folder}
    if kind not in roots or not rest:
        raise NotFound(f"there is no folder {path[:100]!r}; GET /folders lists them")
    folder = resolve(roots[kind], rest)
    if not folder.is_dir():
        raise NotFound(f"there is no folder {path[:100]!r}; GET /folders lists them")
    return folder


def audio_in(folder: Path) -> list[Path]:
    """Audio files under a folder that are really in it, without candidates of best-of-N."""
    from plaudit.sidecars import without_candidates

    try:
        clips = [path for path in files_under(folder) if path.suffix.lower() in SUFFIXES and beneath(folder, path)]
    except AudioError:
        return []
    return without_candidates(clips, folder)


def list_folders(settings: StudioSettings, database: Database) -> list[FolderInfo]:
    """All folders of clips: uploads, generations, and clips of runs."""
    layout, folders = settings.layout, []
    for folder in sorted(layout.uploads.iterdir(), reverse=True):
        if folder.is_dir():
            folders.append(("upload", f"uploads/{folder.name}", _upload_name(folder), folder))
    with database.reading() as session:
        prompts: dict[str, str] = {}
        generated = select(Clip.job_id, Clip.prompt).where(Clip.job_id.is_not(None)).order_by(Clip.sequence.desc())
        for job_id, prompt in session.execute(generated):
            prompts[str(job_id)] = prompt
    for folder in sorted(layout.clips.iterdir(), reverse=True):
        if folder.is_dir():
            folders.append(("generation", f"clips/{folder.name}", prompts.get(folder.name, folder.name), folder))
    if settings.runs_folder.is_dir():
        for folder in sorted(settings.runs_folder.glob("*/clips-*")):
            path = f"runs/{folder.parent.name}/{folder.name}"
            folders.append(("run", path, f"{folder.parent.name}: {folder.name.removeprefix('clips-')}", folder))
    rows = [(kind, path, name, len(audio_in(folder))) for kind, path, name, folder in folders]
    return [FolderInfo(kind=kind, path=path, name=name, clips=clips) for kind, path, name, clips in rows if clips]  # type: ignore[arg-type]


def clip_file(layout: Layout, clip: Clip) -> Path:
    """The file of a clip; Gone where it is missing."""
    path = layout.root / clip.path
    if not beneath(layout.root, path) or not path.is_file():
        raise Gone("the clip's file is gone; generate or upload it again")
    return path


def drawing(layout: Layout, clip: Clip, suffix: str) -> bytes:
    """A clip's cached peaks (".peaks") or spectrogram (".png"), drawn again where they are missing."""
    path = layout.cache / f"{clip.id}{suffix}"
    if not path.is_file():
        write_drawings(clip_file(layout, clip), layout.cache, clip.id)
    return path.read_bytes()


def register_clip(
    database: Database, layout: Layout, path: Path, measured: dict[str, Any], **columns: Any
) -> tuple[Clip, bool]:
    """The row of a clip's file, with its drawings made; and whether it is new. A job's clip is registered once.

    measured: duration, sample_rate, loudness and peak where they are known already.
    """
    with database.reading() as session:
        known = session.scalar(
            select(Clip).where(Clip.job_id == columns.get("job_id"), Clip.position == columns.get("position"))
        )
    if known is not None and columns.get("position") is not None:
        return known, False
    clip = Clip(
        id=new_id(), path=path.relative_to(layout.root).as_posix(),
        digest=hashlib.sha256(path.read_bytes()).hexdigest(), **{**measure(path), **measured}, **columns,
    )  # fmt: skip
    write_drawings(path, layout.cache, clip.id)
    with database.transaction() as session:
        session.add(clip)
        session.flush()
        if clip.job_id is not None:
            publish(session, "clip", clip.job_id, clip_info(clip).model_dump())
    return clip, True


def clip_info(clip: Clip) -> ClipInfo:
    """A clip as the API shows it."""
    return ClipInfo.model_validate(clip)


def measure(path: Path) -> dict[str, Any]:
    """Duration, rate, loudness and true peak of a file."""
    import numpy as np

    from plaudit.generate.loudness import integrated_loudness, true_peak
    from plaudit.studio.waveform import read_mono

    wave, rate = read_mono(path)
    values = {"loudness": integrated_loudness(wave, rate), "peak": true_peak(wave)}
    finite = {name: round(float(value), 3) if np.isfinite(value) else None for name, value in values.items()}
    return {"duration": len(wave) / rate, "sample_rate": rate, **finite}


def receive(layout: Layout, files: Sequence[tuple[str, BinaryIO]], name: str) -> tuple[str, list[str]]:
    """Write an upload's files to `incoming/`; its id and the files' names. Errors leave nothing there."""
    names = [_plain_name(given) for given, _ in files]
    if not any(Path(one).suffix.lower() in SUFFIXES for one in names):
        raise Unprocessable(f"the upload has no audio file: names end in {', '.join(SUFFIXES)}")
    for one in names:
        if Path(one).suffix.lower() not in SUFFIXES and one.lower() != TABLE:
            raise Unprocessable(f"{one[:100]!r} is neither audio nor {TABLE}; leave it out")
    upload_id = new_id()
    folder = layout.incoming / upload_id
    folder.mkdir()
    try:
        for number, (one, (_, content)) in enumerate(zip(names, files, strict=True)):
            most = MOST_TABLE if one.lower() == TABLE else MOST_FILE
            _copy(content, folder / f"{number:04d}{Path(one).suffix.lower()}", most, one)
        write_atomically(folder / "upload.json", json.dumps({"name": name, "files": names}))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return upload_id, names


def _copy(content: BinaryIO, path: Path, most: int, name: str) -> None:
    length = 0
    with path.open("xb") as file:
        while part := content.read(1 << 20):
            length += len(part)
            if length > most:
                raise TooLarge(f"{name[:100]!r} has over {most >> 20} MiB; upload a shorter or compressed file")
            file.write(part)


def _plain_name(given: str) -> str:
    """The last part of a file's name as the browser gave it, without control characters: shown, and no path."""
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", given))[-1]
    return "".join(c for c in last if c.isprintable())[:200]


def _upload_name(folder: Path) -> str:
    try:
        return str(json.loads((folder / "upload.json").read_bytes())["name"]) or folder.name
    except (OSError, ValueError, KeyError, TypeError):
        return folder.name


@job("upload", lane="files")
def decode_upload(context: JobContext, request: dict[str, Any]) -> dict[str, Any]:
    """Decode an upload's files, and encode them as FLAC (or WAV where samples exceed full scale)."""
    layout, upload_id = context.settings.layout, request["upload"]
    source, target = layout.incoming / upload_id, layout.uploads / upload_id
    try:
        about = json.loads((source / "upload.json").read_bytes())
    except OSError:
        raise AudioError("the upload's files are gone; upload them again") from None
    names: list[str] = about["files"]
    prompts = _prompts(source, names)
    target.mkdir(parents=True, exist_ok=True)
    write_atomically(target / "upload.json", json.dumps({"name": about["name"]}))
    audio = [number for number, name in enumerate(names) if Path(name).suffix.lower() in SUFFIXES]
    errors, clips = [], 0
    for done, number in enumerate(audio):
        context.progress(done, len(audio))
        incoming = source / f"{number:04d}{Path(names[number]).suffix.lower()}"
        try:
            path = _encoded(incoming, target, number, names[number])
        except PlauditError as error:
            errors.append({"file": names[number], "error": str(error).replace(str(incoming), names[number])})
            continue
        from plaudit.audio_format import recorded_prompt

        prompt = prompts.get(names[number]) or prompts.get(Path(names[number]).stem) or recorded_prompt(incoming)
        write_atomically(path.with_suffix(".json"), json.dumps({"prompt": prompt, "file": names[number]}))
        register_clip(
            context.database, layout, path, {}, job_id=context.job_id, position=number, prompt=prompt, model=None,
            settings={"file": names[number]}, status="kept",
        )  # fmt: skip
        clips += 1
    if not clips:
        raise AudioError(f"no file of the upload can be used: {errors[0]['error']}")
    shutil.rmtree(source, ignore_errors=True)
    return {"folder": f"uploads/{upload_id}", "clips": clips, "errors": errors}


def _encoded(incoming: Path, folder: Path, number: int, name: str) -> Path:
    """The file that is served for an upload's."""
    import numpy as np
    import soundfile

    from plaudit.audio import audio_seconds, read_audio

    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(name).stem).strip("-")[:60] or "clip"
    for suffix in (".flac", ".wav"):
        if (done := folder / f"{number:04d}-{stem}{suffix}").is_file():
            return done
    seconds = audio_seconds(incoming)
    if seconds > MOST_SECONDS:
        raise AudioError(f"{incoming} has {seconds:.0f} s, and {MOST_SECONDS:.0f} s are the most; cut it")
    read_audio(incoming)  # its checks: damaged, silent, not finite, out of range
    try:
        with soundfile.SoundFile(incoming) as file:
            rate, subtype = file.samplerate, file.subtype
            samples = file.read(dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise AudioError(f"{incoming} cannot be read ({error}); check the file") from None
    if samples.shape[1] > 2:
        samples = samples.mean(axis=1, keepdims=True)
    loud = np.abs(samples).max(initial=0.0) > 1
    content = io.BytesIO()
    if loud:
        soundfile.write(content, samples, rate, format="WAV", subtype="FLOAT")
    else:
        bits = "PCM_16" if subtype in ("PCM_16", "PCM_S8", "PCM_U8", "ULAW", "ALAW") else "PCM_24"
        soundfile.write(content, samples, rate, format="FLAC", subtype=bits)
    path = folder / f"{number:04d}-{stem}{'.wav' if loud else '.flac'}"
    write_atomically(path, content.getvalue())
    return path


def _prompts(source: Path, names: Sequence[str]) -> dict[str, str]:
    """Prompts by file name or stem, of the upload's table."""
    table = next((number for number, name in enumerate(names) if name.lower() == TABLE), None)
    if table is None:
        return {}
    try:
        text = (source / f"{table:04d}.csv").read_bytes().decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AudioError(f"{TABLE} cannot be read ({error}); save it as CSV in UTF-8") from None
    if rows and not {"file", "prompt"} <= set(rows[0]):
        raise AudioError(f"{TABLE} needs the columns file and prompt")
    return {str(row["file"]).strip(): str(row["prompt"] or "").strip()[:2000] for row in rows}
