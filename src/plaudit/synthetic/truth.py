"""The facts of a synthetic piece, in the vocabulary that captions, probes and listeners share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from plaudit.encoders.words import KEYS, MODES
from plaudit.errors import CorpusError

GENRES = (
    "rock", "pop", "jazz", "techno", "house", "hip hop",
    "ambient", "classical", "reggae", "bossa nova", "funk", "folk",
)  # fmt: skip
MOODS = ("happy", "sad", "calm", "energetic", "dark", "dreamy", "tense", "romantic")
LEADS_AND_CHORDS = (
    "piano", "electric piano", "organ", "acoustic guitar", "electric guitar",
    "synth lead", "synth pad", "strings", "brass", "bell", "flute",
)  # fmt: skip
BASSES = ("upright bass", "electric bass", "synth bass")
DRUMS = ("acoustic drums", "drum machine", "hand percussion")
INSTRUMENTS = LEADS_AND_CHORDS + BASSES + DRUMS
TEMPO_RANGE = (60, 180)


@dataclass(frozen=True)
class Truth:
    """The facts of one piece. ``tempo`` is in beats per minute, 60 to 180; ``instruments`` are those that play.

    Raises CorpusError for a word outside this module's vocabularies.
    """

    genre: str
    mood: str
    instruments: tuple[str, ...]
    tempo: int
    key: str
    mode: str

    def __post_init__(self) -> None:
        for name, value, values in (
            ("genre", self.genre, GENRES),
            ("mood", self.mood, MOODS),
            ("key", self.key, KEYS),
            ("mode", self.mode, MODES),
            *(("instrument", instrument, INSTRUMENTS) for instrument in self.instruments),
        ):
            if value not in values:
                raise CorpusError(f"unknown {name} {value!r}: choose one of {', '.join(values)}")
        if not self.instruments or len(set(self.instruments)) != len(self.instruments):
            raise CorpusError(f"instruments must be one or more different names, got {self.instruments}")
        if not TEMPO_RANGE[0] <= self.tempo <= TEMPO_RANGE[1]:
            raise CorpusError(f"tempo must lie in {TEMPO_RANGE[0]} to {TEMPO_RANGE[1]} bpm, got {self.tempo}")

    def describe(self) -> dict[str, str]:
        """The facts by name, for people."""
        return {
            "genre": self.genre,
            "mood": self.mood,
            "instruments": ", ".join(self.instruments),
            "tempo": f"{self.tempo} bpm",
            "key": f"{self.key} {self.mode}",
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "instruments": list(self.instruments)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Truth:
        """The inverse of ``to_dict``."""
        return cls(**{**data, "instruments": tuple(data["instruments"])})
