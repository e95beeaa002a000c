"""Which clips are evaluated, and what each was asked for: files of any generator, with a list of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from plaudit.assets import read_json
from plaudit.audio import audio_files
from plaudit.corpus.table import table_rows
from plaudit.errors import CorpusError, EvaluationError, ModelError, PromptError
from plaudit.files import composed, find_file
from plaudit.generate.requests import is_table, prompts_in


@dataclass(frozen=True)
class AskedClip:
    """A prompt and its clip; `error` says in one line why there is none, or no prompt."""

    id: str
    prompt: str
    file: Path | None
    error: str | None = None


def asked_clips(clips: Path, prompts: Path | None) -> tuple[list[AskedClip], list[str]]:
    """(one entry per prompt, notes on files that nobody asked for).

    clips: a CSV with the columns file and prompt (or caption), and optionally id; or a folder of audio. Of a folder,
    `prompts` says what was asked for: a CSV with the columns prompt (or caption) and id or file, or a text file, whose
    n-th prompt has the id n. A clip belongs to the id that its name is, without its suffix; numbers may have leading
    zeros. Without `prompts` each clip needs the sidecar that `plaudit generate` writes.

    A prompt without a clip, or a clip without a prompt, is an entry with an error. EvaluationError, CorpusError or
    PromptError, in one line, where ids are not unique or the list is malformed.
    """
    if not clips.is_dir():
        if prompts is not None:
            raise EvaluationError(
                f"{clips} is no folder; a table of clips names their prompts itself, without --prompts"
            )
        return _unique(_in_table(clips, clips.parent), clips), []
    files = audio_files([clips])
    if prompts is None:
        return [_with_sidecar(clips, file) for file in files], []
    listed = is_table(prompts)
    if listed and "file" in _columns(prompts):
        found = _unique(_in_table(prompts, clips), prompts)
    else:
        wanted = _ids_in_table(prompts) if listed else list(enumerate(prompts_in(prompts), start=1))
        found = _matched(clips, files, [(str(id), prompt) for id, prompt in wanted], prompts)
    used = {entry.file.resolve() for entry in found if entry.file is not None}
    spare = [str(file.relative_to(clips)) for file in files if file.resolve() not in used]
    if not spare:
        return found, []
    shown = ", ".join(spare[:3]) + (", ..." if len(spare) > 3 else "")
    return found, [f"{len(spare)} of {len(files)} files in {clips} have no prompt in {prompts}, not evaluated: {shown}"]


def _in_table(table: Path, folder: Path) -> list[AskedClip]:
    """Clips of a table whose files lie in `folder`, or where the table says."""
    found = []
    for line, row in table_rows(table, ["file"]):
        file = row["file"].strip()
        if not file:
            raise CorpusError(f"{table} line {line}: column 'file' is empty; name the audio file")
        id = row.get("id", "").strip() or str(PurePosixPath(file).with_suffix(""))
        place = find_file(file, folder, table.parent, Path())
        missing = None if place else f"{folder / file} does not exist; check the path"
        found.append(AskedClip(id, _prompt(table, line, row), place, missing))
    return found


def _ids_in_table(table: Path) -> list[tuple[str, str]]:
    found = []
    for line, row in table_rows(table, ["id"]):
        if not row["id"].strip():
            raise CorpusError(f"{table} line {line}: column 'id' is empty; name the clip")
        found.append((row["id"].strip(), _prompt(table, line, row)))
    return found


def _prompt(table: Path, line: int, row: dict[str, str]) -> str:
    named = [column for column in ("prompt", "caption") if column in row]
    if len(named) != 1:
        what = "both columns 'prompt' and 'caption'" if named else "no column 'prompt' or 'caption'"
        raise CorpusError(f"{table} has {what}; name the one that was asked for 'prompt'")
    if not row[named[0]].strip():
        raise PromptError(f"{table} line {line}: the prompt is empty; say what was asked for")
    return row[named[0]].strip()


def _columns(table: Path) -> list[str]:
    return list(next(table_rows(table, []), (0, {}))[1])


def _matched(folder: Path, files: Sequence[Path], wanted: Sequence[tuple[str, str]], prompts: Path) -> list[AskedClip]:
    by_name: dict[str, list[Path]] = {}
    for file in files:
        name = _plain(str(PurePosixPath(file.relative_to(folder).with_suffix(""))))
        by_name.setdefault(name, []).append(file)
    found = []
    for id, prompt in wanted:
        own = by_name.get(_plain(id), [])
        if len(own) > 1:
            raise EvaluationError(f"id {id!r} has {len(own)} files, {own[0].name} and {own[1].name}; keep one")
        missing = None if own else f"no audio file in {folder} is called {id!r}; generate it, or take it off {prompts}"
        found.append(AskedClip(id, prompt, own[0] if own else None, missing))
    return _unique(found, prompts)


def _plain(id: str) -> str:
    """An id by which files are found: numbers without leading zeros, accented letters in one spelling."""
    return str(int(id)) if id.isdecimal() and len(id) < 100 else composed(id)


def _unique(entries: list[AskedClip], source: Path) -> list[AskedClip]:
    if not entries:
        raise CorpusError(f"{source} has no rows under its header; add at least one clip")
    seen: set[str] = set()
    for entry in entries:
        if _plain(entry.id) in seen:
            raise CorpusError(f"{source}: id {entry.id!r} stands there twice; make ids unique")
        seen.add(_plain(entry.id))
    return entries


def _with_sidecar(folder: Path, file: Path) -> AskedClip:
    id, sidecar = str(PurePosixPath(file.relative_to(folder).with_suffix(""))), file.with_suffix(".json")
    try:
        prompt = read_json(sidecar)["prompt"]
        if not isinstance(prompt, str) or not prompt.strip():
            raise KeyError("prompt")
    except (ModelError, KeyError, TypeError):
        return AskedClip(
            id, "", file, f"{file} has no prompt; give --prompts, or the {sidecar.name} of plaudit generate"
        )
    return AskedClip(id, prompt.strip(), file)
