"""Which part of a prompt a text encoder ignores: the end of a long one, and letters outside its vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

from plaudit.types import TextEncoder

MAX_QUOTED = 80
"""Most characters that are quoted in a line (ours)."""

MAX_WORD = 40
"""Characters of the longest word (ours): in many scripts a whole sentence has no space."""


@runtime_checkable
class ReportsTruncation(Protocol):
    """A text encoder that can say which part of a prompt it ignores; optional for encoders."""

    def truncation(self, prompt: str) -> str:
        """Which part of the prompt has no effect on its features, as part of a sentence; "" for none."""


def truncation(encoder: TextEncoder, prompt: str) -> str:
    """Which part of a prompt `encoder` ignores, as part of a sentence; "" for none, or if the encoder can't say."""
    return encoder.truncation(prompt) if isinstance(encoder, ReportsTruncation) else ""


def truncation_note(encoder: TextEncoder, texts: Iterable[str], what: str) -> str | None:
    """A note on the texts, called `what`, that `encoder` truncates; None where it truncates none."""
    distinct = list(dict.fromkeys(texts))
    reasons = [reason for text in distinct if (reason := truncation(encoder, text))]
    if not reasons:
        return None
    return f"{len(reasons)} of {len(distinct)} {what} are not read in full; in the first, {reasons[0]}"


def truncated_end(text: str, fits: Callable[[str], bool]) -> str:
    """The end of `text` from the first word that does not fit any more; "" where all of it does.

    fits: whether the encoder reads a beginning of the text to its end.
    """
    if fits(text):
        return ""
    low, high = 0, len(text)  # text[:low] fits, text[:high] does not
    while high - low > 1:
        middle = (low + high) // 2
        if fits(text[:middle]):
            low = middle
        else:
            high = middle
    head = text[:low]
    begun = len(head) - len(head.rstrip()) or text[low].isspace()
    if not begun and (word := head.split()[-1:]) and len(word[0]) <= MAX_WORD and len(head.split()) > 1:
        low -= len(word[0])  # a word of which only a part is read
    return text[low:].strip()


def quoted(text: str) -> str:
    """A text in quotes, without its middle where it is long."""
    if len(text) > MAX_QUOTED:
        text = f"{text[: MAX_QUOTED // 2]} ... {text[-MAX_QUOTED // 2 :]}"
    return f'"{text}"'
