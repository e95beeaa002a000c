"""Text -> hashed words, with no vocabulary to ship: a word is the set of buckets of itself and of its letter groups.

The scheme is fastText's (Bojanowski et al. 2017, "Enriching word vectors with subword information"): words that were
unseen in training share buckets with words of similar spelling, so they degrade gracefully instead of becoming unknown.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from plaudit.errors import PromptError

BUCKETS = 4096
"""Buckets that words and letter groups are hashed into; bucket 0 is kept for padding."""

LENGTH = 32
"""Words per text, the start mark included; longer texts are cut, shorter ones padded."""

GRAMS = 24
"""Most buckets per word: the word itself and the first of its letter groups."""

START = "^"
"""The first word of every text, so that an empty text still has a word."""

KEYS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
MODES = ("major", "minor")
"""What a key is written as, after tonic and mode."""

_WORD = re.compile(r"[a-z]+#?|\d+")
_KEY = re.compile(
    r"(?:(?<=\bin )|(?<=\bkey of ))(?P<any>[A-Ga-g])(?P<sign_any>#|b| sharp| flat|)(?= (?:major|minor)\b(?! key))"
    r"|\b(?P<upper>[A-G])(?P<sign_upper>#|b| sharp| flat|)(?= (?:major|minor)\b(?! key))"
)
_NOTES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}


@dataclass(frozen=True)
class WordBatch:
    """A batch of texts as indices into its distinct words.

    grams: [V, GRAMS], the buckets of each distinct word, 0 where there are fewer; word 0 is the padding word.
    index: [B, LENGTH], the word at each position, 0 where the text has ended.
    """

    grams: Tensor
    index: Tensor

    def __len__(self) -> int:
        return self.index.shape[0]

    def to(self, device: torch.device) -> WordBatch:
        """The same batch on another device."""
        return WordBatch(self.grams.to(device), self.index.to(device))


def words(text: str) -> list[str]:
    """The lower-case words and numbers of `text`, in order.

    A key becomes one word, "key" and the note with sharps, so that "in A minor" (the key of A) and "in a minor key"
    (an article) stay apart although both are lower-cased: "Bb major" -> ["keya#", "major"].
    """
    return _WORD.findall(_KEY.sub(_key_word, text.replace("♯", "#").replace("♭", "b")).lower())


@lru_cache(maxsize=65536)
def buckets(word: str) -> tuple[int, ...]:
    """Buckets of a word, 1..BUCKETS: of the word itself, then of its letter groups of 3 to 5 with boundary marks."""
    bounded = f"<{word}>"
    groups = [bounded[i : i + n] for n in (3, 4, 5) for i in range(len(bounded) - n + 1)]
    pieces = [f"={word}", *groups][:GRAMS] if word != START else [START]
    return tuple(1 + zlib.crc32(piece.encode()) % BUCKETS for piece in pieces)


def batch_words(texts: list[list[str]]) -> WordBatch:
    """Lists of words as a WordBatch; the start mark is put in front of each."""
    if not texts:
        raise PromptError("no prompts were given; pass at least one (an empty string is allowed)")
    number: dict[str, int] = {}
    index = [
        _padded([number.setdefault(word, len(number) + 1) for word in [START, *text][:LENGTH]], LENGTH)
        for text in texts
    ]
    grams = [_padded([], GRAMS), *(_padded(list(buckets(word)), GRAMS) for word in number)]
    return WordBatch(torch.tensor(grams), torch.tensor(index))


def _padded(numbers: list[int], length: int) -> list[int]:
    return numbers + [0] * (length - len(numbers))


def _key_word(match: re.Match[str]) -> str:
    note = (match["any"] or match["upper"]).lower()
    sign = (match["sign_any"] or match["sign_upper"] or "").strip()
    step = {"#": 1, "sharp": 1, "b": -1, "flat": -1, "": 0}[sign]
    return f" key{KEYS[(_NOTES[note] + step) % 12].lower()}"
