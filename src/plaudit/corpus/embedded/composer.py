"""Writes pieces: a truth and a seed in, notes out.

``compose`` draws a truth where none is given, lays a chord progression over the bars and lets each instrument's part be
written by ``parts``. Every instrument named in the truth plays from the first bar on.
"""

from __future__ import annotations

from dataclasses import dataclass

from plaudit.corpus.embedded.exact import Dice
from plaudit.corpus.embedded.parts import Bar, Groove, Note, arpeggio, bass_line, comping, drum_line, melody, sustained
from plaudit.corpus.embedded.styles import GENRE_STYLES, MOOD_STYLES
from plaudit.corpus.embedded.theory import parse_chord
from plaudit.corpus.embedded.truth import BASSES, DRUMS, GENRES, KEYS, MOODS, TEMPO_RANGE, Truth
from plaudit.errors import CorpusError

# Who takes the tune when several could: the most solo-like voice first.
_SOLO_ORDER = (
    "synth lead", "flute", "brass", "bell", "electric guitar", "piano",
    "acoustic guitar", "electric piano", "organ", "strings", "synth pad",
)  # fmt: skip
_SUSTAINING = ("synth pad", "strings", "organ", "brass")


@dataclass(frozen=True)
class Piece:
    """A composed piece: its truth, length in seconds, notes in order of onset, the chord of each bar, and its sound.

    ``brightness`` and ``echo`` are 0..1 settings of the synth, ``level`` the peak of the rendered waveform.
    """

    truth: Truth
    seconds: float
    notes: tuple[Note, ...]
    bars: tuple[Bar, ...]
    brightness: float
    echo: float
    level: float


def random_truth(seed: int) -> Truth:
    """A truth as the genre's habits have it: tempo, mode and instruments depend on genre and mood."""
    dice = Dice(seed, "truth")
    genre, mood = dice.choice(GENRES), dice.choice(MOODS)
    style, feeling = GENRE_STYLES[genre], MOOD_STYLES[mood]
    tempo = round(dice.uniform(*style.tempo) * feeling.tempo)
    lead = dice.choice(style.leads)
    players = [lead]
    others = [name for name in style.chords if name != lead]
    if others and (lead not in style.chords or dice.chance(0.7)):
        players.append(dice.choice(others))
    spare = [name for name in style.colours if name not in players]
    if spare and dice.chance(0.4):
        players.append(dice.choice(spare))
    bassed, drummed = dice.chance(style.bassed), dice.chance(style.drummed)
    if bassed or len(players) == 1:
        players.append(dice.choice(style.basses))
    if drummed:
        players.append(dice.choice(style.kits))
    return Truth(
        genre=genre,
        mood=mood,
        instruments=tuple(players),
        tempo=min(max(tempo, TEMPO_RANGE[0]), TEMPO_RANGE[1]),
        key=dice.choice(KEYS),
        mode="minor" if dice.chance(feeling.minor) else "major",
    )


def compose(seed: int, seconds: float, truth: Truth | None = None) -> Piece:
    """A piece of the given length with the given truth, or one drawn from the seed; the same bits everywhere.

    Raises CorpusError when ``seconds`` is not positive.
    """
    if not seconds > 0:
        raise CorpusError(f"a piece must be longer than 0 seconds, got {seconds}")
    truth = truth or random_truth(seed)
    style, feeling = GENRE_STYLES[truth.genre], MOOD_STYLES[truth.mood]
    dice = Dice(seed, "compose")
    bars = _lay_bars(dice, seconds, truth)
    groove = Groove(60.0 / truth.tempo, style.swing, style.shuffle, feeling)
    notes: list[Note] = []
    for instrument, part in assign_parts(truth.instruments):
        part_dice = Dice(seed, f"{part} {instrument}")
        if part == "drums":
            notes += drum_line(part_dice, bars, groove, instrument, style.drums)
        elif part == "bass":
            notes += bass_line(bars, groove, instrument, style.bass)
        elif part == "melody":
            notes += melody(part_dice, bars, groove, instrument)
        elif part == "chords":
            notes += comping(bars, groove, instrument, style.chords_pattern)
        elif part == "pad":
            notes += sustained(bars, groove, instrument)
        else:
            notes += arpeggio(part_dice, bars, groove, instrument)
    notes = [note for note in notes if note.onset < seconds - 0.02]
    notes.sort(key=lambda note: (note.onset, note.instrument, note.pitch))
    return Piece(
        truth, seconds, tuple(notes), tuple(bars), feeling.brightness, feeling.echo, 0.5 + 0.3 * feeling.loudness
    )


def assign_parts(instruments: tuple[str, ...]) -> list[tuple[str, str]]:
    """(instrument, part) for every instrument; a lone pitched one plays both melody and chords."""
    parts = [(name, "drums") for name in instruments if name in DRUMS]
    parts += [(name, "bass") for name in instruments if name in BASSES]
    pitched = [name for name in _SOLO_ORDER if name in instruments]
    if not pitched:
        return parts
    parts.append((pitched[0], "melody"))
    accompanying = pitched[1:] or pitched[:1]
    # The least solo-like voice that does not merely sustain keeps the genre's rhythm; pads fill in behind it.
    rhythm = next((name for name in reversed(accompanying) if name not in _SUSTAINING[:2]), accompanying[-1])
    parts.append((rhythm, "pad" if rhythm == "synth pad" else "chords"))  # a pad swells too slowly for a rhythm
    for name in accompanying:
        if name != rhythm:
            parts.append((name, "pad" if name in _SUSTAINING else "arpeggio"))
    return parts


def _lay_bars(dice: Dice, seconds: float, truth: Truth) -> list[Bar]:
    """One chord per bar, from the tonic side of a progression of the genre, repeated to the end."""
    style = GENRE_STYLES[truth.genre]
    sevenths = style.sevenths or truth.mood in ("romantic", "dreamy")
    numerals = dice.choice(style.progressions[truth.mode]).split()
    if truth.mood == "tense":
        numerals = [numerals[0], numerals[0], *numerals[2:-1], "V"]
    length = 240.0 / truth.tempo
    count = int(seconds / length) + 1
    chords = [parse_chord(numeral, truth.key, truth.mode, sevenths) for numeral in numerals]
    return [Bar(i * length, length, chords[i % len(chords)], chords[(i + 1) % len(chords)]) for i in range(count)]
