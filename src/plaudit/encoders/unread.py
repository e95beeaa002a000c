"""What a text encoder leaves out of a prompt: the end of one that is too long, and letters that it does not know."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

from plaudit.types import TextEncoder

_SHOWN = 80
"""Characters of what is left out that a line shows."""

_LONGEST_WORD = 40
"""Characters up to which what stands between spaces is a word; in many scripts a whole sentence has no space."""


@runtime_checkable
class ReportsUnread(Protocol):
    """A text encoder that can say what it leaves out of a prompt; optional for encoders."""

    def unread(self, prompt: str) -> str:
        """What of the prompt has no effect on its features, as part of a sentence; "" where all of it has."""


def unread(encoder: TextEncoder, prompt: str) -> str:
    """What `encoder` leaves out of a prompt, as part of a sentence; "" for nothing, or where the encoder can't say."""
    return encoder.unread(prompt) if isinstance(encoder, ReportsUnread) else ""


def unread_note(encoder: TextEncoder, texts: Iterable[str], what: str) -> str | None:
    """A line about the texts that `encoder` does not read in full, called `what`; None where it reads all of them."""
    distinct = list(dict.fromkeys(texts))
    found = [reason for text in distinct if (reason := unread(encoder, text))]
    if not found:
        return None
    return f"{len(found)} of {len(distinct)} {what} are not read in full; in the first, {found[0]}"


def cut_end(text: str, fits: Callable[[str], bool]) -> str:
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
    if not begun and (word := head.split()[-1:]) and len(word[0]) <= _LONGEST_WORD and len(head.split()) > 1:
        low -= len(word[0])  # a word of which only a part is read
    return text[low:].strip()


def shown(text: str) -> str:
    """A text in quotes, the middle left out where it is long."""
    if len(text) > _SHOWN:
        text = f"{text[: _SHOWN // 2]} ... {text[-_SHOWN // 2 :]}"
    return f'"{text}"'
