"""What to generate: prompts from a command line, a list or a table, each with the seeds of its clips."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from plaudit.corpus.table import table_rows
from plaudit.errors import CorpusError, PromptError
from plaudit.generate.clips import ClipRequest
from plaudit.writing import is_utf8


def prompts_in(file: Path) -> list[str]:
    """The prompts of a file: one a line, or the column prompt (or caption) of a `.csv` or `.tsv`.

    PromptError or CorpusError, in one line, where it cannot be read or a prompt is empty.
    """
    if is_table(file):
        found = []
        for line, row in table_rows(file, []):
            if "prompt" not in row and "caption" not in row:
                raise CorpusError(f"{file} has no column 'prompt' or 'caption'; its columns are {', '.join(row)}")
            found.append((line, row.get("prompt", row.get("caption", ""))))
        return _checked(found, str(file))
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise PromptError(f"{file} does not exist; check the file name") from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise PromptError(f"{file} is not a UTF-8 text file ({error}); save it as UTF-8") from None
    return prompts_of(text.split("\n"), str(file))


def is_table(file: Path) -> bool:
    """Whether a list of prompts is a table, by its name."""
    return file.suffix.lower() in (".csv", ".tsv", ".tab")


def prompts_of(lines: Iterable[str], source: str) -> list[str]:
    """One prompt a line, blank lines left out; PromptError where there is none."""
    return _checked([(number, line) for number, line in enumerate(lines, start=1) if line.strip()], source)


def check_text(text: str, what: str) -> None:
    """PromptError where a text holds bytes that are not UTF-8; `what` it is begins the message."""
    if not is_utf8(text):
        raise PromptError(f"{what} is not UTF-8 text; type it again, or save it as UTF-8")


def clip_requests(prompts: Sequence[str], count: int, seed: int, candidates: int = 1) -> list[list[ClipRequest]]:
    """For each clip that is wanted, `count` of each prompt, the requests of its candidates; seeds count on from `seed`.

    Every prompt begins with the same seed, so that prompts can be compared; a clip's name tells its prompt and seed.
    """
    width = len(str(len(prompts)))
    groups = []
    for number, prompt in enumerate(prompts, start=1):
        name = f"{number:0{width}d}-{slug(prompt)}" if len(prompts) > 1 else slug(prompt)
        for clip in range(count):
            seeds = range(seed + clip * candidates, seed + (clip + 1) * candidates)
            groups.append([ClipRequest(f"{name}-{one}", prompt, one) for one in seeds])
    return groups


def slug(prompt: str) -> str:
    """A file name from a prompt: its words, at most 48 characters."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:48].rstrip("-") or "clip"


def _checked(found: list[tuple[int, str]], source: str) -> list[str]:
    for line, prompt in found:
        if not prompt.strip():
            raise PromptError(f"{source} line {line}: the prompt is empty; say what the music should be like")
        check_text(prompt, f"{source} line {line}: the prompt")
    if not found:
        raise PromptError(f"{source} holds no prompts; give one a line")
    return [prompt.strip() for _, prompt in found]
