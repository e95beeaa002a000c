"""Prompts from a command line, a list or a table."""

from __future__ import annotations

from pathlib import Path

from plaudit.errors import CorpusError, PromptError
from plaudit.tables import is_table, table_rows
from plaudit.writing import is_utf8


def prompts_in(file: Path) -> list[str]:
    """The prompts of a file: one a line, or the column prompt (or caption) of a table (plaudit.tables.is_table).

    PromptError or CorpusError, in one line, where it cannot be read or a prompt is empty.
    """
    if is_table(file):
        rows = []
        for line, row in table_rows(file, []):
            if "prompt" not in row and "caption" not in row:
                raise CorpusError(f"{file} has no column 'prompt' or 'caption'; its columns are {', '.join(row)}")
            rows.append((line, row.get("prompt", row.get("caption", ""))))
        return _checked(rows, str(file))
    try:
        return prompts_of(file.read_bytes(), str(file))
    except FileNotFoundError:
        raise PromptError(f"{file} does not exist; check the file name") from None
    except IsADirectoryError:
        raise PromptError(f"{file} is a folder; give a text file with a prompt a line") from None


def prompts_of(content: bytes, source: str) -> list[str]:
    """One prompt a line of UTF-8 text, blank lines left out; PromptError where there is none, or a line has tabs."""
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise PromptError(f"{source} is not UTF-8 text (line {line}); save it as UTF-8") from None
    prompts = [(number, text) for number, text in enumerate(lines, start=1) if text.strip()]
    for number, text in prompts:
        if "\t" in text.strip():
            raise PromptError(
                f"{source} line {number} holds tabs; give a table as a file (--prompts) whose header line names a "
                "column 'prompt', or put spaces for the tabs"
            )
    return _checked(prompts, source)


def checked_prompt(prompt: str, source: str) -> str:
    """A prompt without spaces around it; PromptError where it is empty or no text."""
    prompt = prompt.strip()
    if not prompt:
        raise PromptError(f"{source}: the prompt is empty; say what the music should be like")
    check_text(prompt, f"{source}: the prompt")
    return prompt


def check_text(text: str, what: str) -> None:
    """PromptError where a text holds bytes that are not UTF-8, or zero bytes; `what` it is begins the message."""
    if not is_utf8(text):
        raise PromptError(f"{what} is not UTF-8 text; set a UTF-8 locale, or give it in a file saved as UTF-8")
    if "\0" in text:
        raise PromptError(f"{what} holds zero bytes, so it is not UTF-8 text; save it as UTF-8")


def _checked(prompts: list[tuple[int, str]], source: str) -> list[str]:
    if not prompts:
        raise PromptError(f"{source} holds no prompts; give one a line")
    return [checked_prompt(prompt, f"{source} line {line}") for line, prompt in prompts]
