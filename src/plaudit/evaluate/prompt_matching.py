"""Matching clips with prompts: files of any generator, with a list of prompts."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from plaudit.audio import list_audio_files
from plaudit.audio_format import recorded_prompt
from plaudit.errors import CorpusError, EvaluationError, PromptError
from plaudit.files import composed, find_file
from plaudit.generate.clips import provenance_of, settings_digest
from plaudit.sidecars import candidates_note, read_sidecar, recorded_seed, sidecar_path
from plaudit.tables import Row, is_table, read_prompts, read_table


@dataclass(frozen=True)
class PromptClip:
    """A prompt and one of its clips; `error` says in one line why there is none, or no prompt.

    id: of the prompt, or of the clip where no list gives prompts ids. seed: distinguishes clips of one prompt, where
    it is recorded.
    """

    id: str
    prompt: str
    file: Path | None
    error: str | None = None
    seed: int | None = None


def match_prompts(clips: Path, prompts: Path | None) -> tuple[list[PromptClip], list[str]]:
    """(one entry per clip, or per prompt without one, in the order of prompts; notes on files that are left out).

    clips: a CSV with the columns file and prompt (or caption), and optionally id; or a folder of audio. Of a folder,
    `prompts` lists the prompts: a table with the columns prompt (or caption) and id or file, or a text file,
    whose n-th prompt has the id n. A clip belongs to the id that its name is, without its suffix; numbers may have
    leading zeros. A prompt whose id names no file has all clips that were generated from it, by their sidecars or tags.
    Without `prompts` each clip needs its recorded prompt, as `plaudit generate` writes it.

    A prompt without a clip, or a clip without a prompt, is an entry with an error. EvaluationError, CorpusError or
    PromptError, in one line, where ids are not unique, the list is malformed, or nothing can be evaluated.
    """
    if not clips.is_dir():
        if prompts is not None:
            raise EvaluationError(
                f"{clips} is no folder; a table of clips names their prompts itself, without --prompts"
            )
        return _with_notes(_unique(_in_table(clips, clips.parent), clips), [])
    files, note = list_audio_files([clips]), candidates_note([clips])
    notes = [] if note is None else [note]
    if prompts is None:
        return _with_notes([_by_record(clips, file) for file in files], notes)
    table = is_table(prompts)
    if table and "file" in read_table(prompts).columns:
        entries = _unique(_in_table(prompts, clips), prompts)
    else:
        listed = _ids_in_table(prompts) if table else list(enumerate(read_prompts(prompts), start=1))
        entries = _matched(clips, files, [(str(id), prompt) for id, prompt in listed], prompts)
    used = {entry.file.resolve() for entry in entries if entry.file is not None}
    spare = [str(file.relative_to(clips)) for file in files if file.resolve() not in used]
    if spare:
        shown = ", ".join(spare[:3]) + (", ..." if len(spare) > 3 else "")
        notes.append(
            f"{len(spare)} of {len(files)} files in {clips} have no prompt in {prompts}, not evaluated: {shown}"
        )
    return _with_notes(entries, notes)


def _with_notes(entries: list[PromptClip], notes: list[str]) -> tuple[list[PromptClip], list[str]]:
    """The same, with a note where clips of several models or settings are among them."""
    if all(entry.error is not None for entry in entries):
        raise EvaluationError(f"none of {len(entries)} clips can be evaluated; the first: {entries[0].error}")
    sidecars = [read_sidecar(entry.file) for entry in entries if entry.file is not None]
    ways = {settings_digest(provenance_of(sidecar) | {"prompt": ""}) for sidecar in sidecars if "sampling" in sidecar}
    if len(ways) > 1:
        mixed = f"the clips were generated in {len(ways)} ways: models or settings differ, see their JSON files"
        notes = [*notes, mixed]
    return entries, notes


def _in_table(table: Path, folder: Path) -> list[PromptClip]:
    """Clips of a table whose files are in `folder` or at the table's paths."""
    entries = []
    for row in read_table(table, ["file"]):
        file = row.filled("file", "name the audio file")
        id = row.get("id", "").strip() or str(PurePosixPath(file).with_suffix(""))
        place = find_file(file, folder, table.parent, Path())
        missing = None if place else f"{folder / file} does not exist; check the path"
        seed = None if place is None else recorded_seed(place)
        entries.append(PromptClip(id, _prompt(table, row), place, missing, seed))
    return entries


def _ids_in_table(table: Path) -> list[tuple[str, str]]:
    entries = []
    for row in read_table(table, ["id"]):
        entries.append((row.filled("id", "name the clip"), _prompt(table, row)))
    return entries


def _prompt(table: Path, row: Row) -> str:
    prompt = row.prompt()
    if prompt is None:
        raise CorpusError(f"{table} has no column 'prompt' or 'caption'; name the column of prompts 'prompt'")
    if not prompt:
        raise PromptError(f"{row.where}: the prompt is empty; fill it in")
    return prompt


def _matched(folder: Path, files: Sequence[Path], listed: Sequence[tuple[str, str]], prompts: Path) -> list[PromptClip]:
    """The clips of each prompt: by its id, or those generated from it."""
    _check_unique([id for id, _ in listed], prompts)
    by_name: dict[str, list[Path]] = {}
    for file in files:
        name = _plain(str(PurePosixPath(file.relative_to(folder).with_suffix(""))))
        by_name.setdefault(name, []).append(file)
    named: dict[str, Path] = {}
    for id, _ in listed:
        paths = by_name.get(_plain(id), [])
        if len(paths) > 1:
            raise EvaluationError(f"id {id!r} has {len(paths)} files, {paths[0].name} and {paths[1].name}; keep one")
        if paths:
            named[id] = paths[0]
    generated = _generated(set(files) - set(named.values()), [item for item in listed if item[0] not in named])
    entries = []
    for id, prompt in listed:
        clips = [named[id]] if id in named else generated.get(id, [])
        entries += [PromptClip(id, prompt, file, seed=recorded_seed(file)) for file in clips]
        if not clips:
            missing = f"no audio file in {folder} is called {id!r} or was generated from that prompt; generate it, or "
            entries.append(PromptClip(id, prompt, None, f"{missing}take it off {prompts}"))
    return entries


def _generated(files: Collection[Path], listed: Sequence[tuple[str, str]]) -> dict[str, list[Path]]:
    """By id, the clips that were generated from its prompt, by seed; a prompt that is listed more than once shares them
    out, in the same order."""
    if not listed:
        return {}
    by_prompt: dict[str, list[Path]] = {}
    for file in sorted(files, key=_by_seed):
        by_prompt.setdefault(recorded_prompt(file), []).append(file)
    ids: dict[str, list[str]] = {}
    for id, prompt in listed:
        ids.setdefault(prompt, []).append(id)
    clips_of: dict[str, list[Path]] = {}
    for prompt, same in ids.items():
        clips = by_prompt.get(prompt, [])
        if len(clips) % len(same):
            raise EvaluationError(
                f"{len(clips)} clips were generated from {prompt[:60]!r}, which is listed {len(same)} times; "
                "list it once"
            )
        each = len(clips) // len(same)
        clips_of |= {id: clips[row * each : (row + 1) * each] for row, id in enumerate(same)}
    return clips_of


def _by_seed(file: Path) -> tuple[float, Path]:
    seed = recorded_seed(file)
    return math.inf if seed is None else seed, file


def _plain(id: str) -> str:
    """A normalized id for lookups: numbers without leading zeros, accented letters in NFC."""
    return str(int(id)) if id.isdecimal() and len(id) < 100 else composed(id)


def _unique(entries: list[PromptClip], source: Path) -> list[PromptClip]:
    _check_unique([entry.id for entry in entries], source)
    return entries


def _check_unique(ids: Sequence[str], source: Path) -> None:
    if not ids:
        raise CorpusError(f"{source} has no rows under its header; add at least one clip")
    seen: set[str] = set()
    for id in ids:
        if _plain(id) in seen:
            raise CorpusError(f"{source}: id {id!r} stands there twice; make ids unique")
        seen.add(_plain(id))


def _by_record(folder: Path, file: Path) -> PromptClip:
    """A clip with the prompt recorded in its sidecar or tags."""
    id, prompt = str(PurePosixPath(file.relative_to(folder).with_suffix(""))), recorded_prompt(file)
    if not prompt:
        missing = f"{file} has no prompt; give --prompts, or the {sidecar_path(file).name} of plaudit generate"
        return PromptClip(id, "", file, missing)
    return PromptClip(id, prompt, file, seed=recorded_seed(file))
