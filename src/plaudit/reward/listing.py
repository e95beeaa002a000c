"""Which clips to score: from files and folders, a list of paths, or a table with a prompt for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from plaudit.audio import audio_files
from plaudit.audio_format import recorded_prompt
from plaudit.corpus.table import table_rows
from plaudit.errors import AudioError, CorpusError
from plaudit.files import find_file
from plaudit.reward.scoring import Clip

LISTED = Path("-")
"""Among paths: the list of paths that is given apart."""


def clips_at(paths: Sequence[Path], prompt: str | None, listed: Iterable[str]) -> list[Clip]:
    """The files named and those under the folders named; LISTED stands for the lines of `listed`.

    prompt: of all clips; None takes each clip's own, from its sidecar or tags (plaudit.audio_format.recorded_prompt).
    AudioError where nothing is found.
    """
    named: list[Path] = []
    for path in paths:
        if path == LISTED:
            lines = [Path(line) for text in listed if (line := text.rstrip("\r\n"))]
            if not lines:
                raise AudioError("the list on standard input is empty; give one path a line")
            named += lines
        else:
            named.append(path)
    return [Clip(file, _prompt(file, prompt)) for file in audio_files(named)]


def clips_in_table(table: Path, prompt: str | None) -> list[Clip]:
    """The clips of a CSV with the columns file and optionally prompt (or caption) and system.

    Files are relative to the table's folder, or as given. `prompt` is for rows without one; None takes the clip's own.
    CorpusError in one line where the table is malformed.
    """
    clips = []
    for line, row in table_rows(table, ["file"]):
        file = row["file"].strip()
        if not file:
            raise CorpusError(f"{table} line {line}: column 'file' is empty; name the audio file")
        if "prompt" in row and "caption" in row:
            raise CorpusError(f"{table} has both columns 'prompt' and 'caption'; rename the one that was not asked for")
        asked = row.get("prompt", row.get("caption", "")).strip()
        system = row.get("system", "").strip() or None
        place = find_file(file, table.parent, Path()) or Path(file)
        clips.append(Clip(place, asked or _prompt(place, prompt), system))
    if not clips:
        raise CorpusError(f"{table} has no rows under its header; add at least one clip")
    return clips


def _prompt(file: Path, prompt: str | None) -> str:
    return recorded_prompt(file) if prompt is None else prompt
