"""The parts of a piece: drums, bass, chords, pad, arpeggio and melody, each written over the same bars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from plaudit.corpus.embedded.exact import Dice
from plaudit.corpus.embedded.styles import MoodStyle
from plaudit.corpus.embedded.theory import Chord, close_voicing, nearest_pitch, scale_step

STEPS = 16
DRUM_PITCHES = {"low": 36, "mid": 38, "high": 42, "open": 46}


@dataclass(frozen=True)
class Note:
    """One note: onset and duration in seconds, MIDI pitch (fractions are detuning), velocity 0..1."""

    onset: float
    duration: float
    pitch: float
    velocity: float
    instrument: str
    part: str


@dataclass(frozen=True)
class Bar:
    """One bar of four beats: start and length in seconds, its chord and the chord of the bar after it."""

    onset: float
    length: float
    chord: Chord
    following: Chord


@dataclass(frozen=True)
class Groove:
    """How steps become seconds: beat length in seconds, swing and shuffle in beats, and the mood's articulation."""

    beat: float
    swing: float
    shuffle: float
    feeling: MoodStyle

    def time(self, bar: Bar, step: float) -> float:
        """Onset in seconds of a step (0..16) of a bar."""
        late = self.swing if step % 4 == 2 else self.shuffle if step % 2 == 1 else 0.0
        return bar.onset + (step / 4 + late) * self.beat

    def length(self, steps: float) -> float:
        """Sounding length in seconds of a note written ``steps`` long."""
        return max(steps / 4 * self.beat * self.feeling.legato * 0.96, 0.06)

    def velocity(self, accent: float) -> float:
        """A note's velocity from its accent 0..1 and the mood's loudness."""
        return accent * (0.45 + 0.55 * self.feeling.loudness)


def _written_notes(pattern: str) -> Iterator[tuple[int, int, str]]:
    """(step, length in steps, symbol) of every note in a pattern of ``-`` holds and ``.`` rests."""
    for step, symbol in enumerate(pattern):
        if symbol not in ".-":
            length = 1
            while step + length < len(pattern) and pattern[step + length] == "-":
                length += 1
            yield step, length, symbol


def drum_line(dice: Dice, bars: list[Bar], groove: Groove, kit: str, lanes: Mapping[str, str]) -> list[Note]:
    """The genre's pattern every bar; moods thin it out or drive it on, and every fourth bar ends in a fill."""
    notes = []
    driven, quiet = groove.feeling.density >= 0.9, groove.feeling.density < 0.3
    for index, bar in enumerate(bars):
        for lane, pattern in lanes.items():
            for step, symbol in enumerate(pattern):
                hit = symbol
                if driven and lane == "high" and symbol == "." and step % 2 == 0 and "x" in pattern:
                    hit = "o"
                if quiet and symbol == "o":
                    hit = "."
                if index % 4 == 3 and step >= 14 and lane == "mid" and not quiet:
                    hit = "x" if dice.chance(0.6) else symbol
                if hit != ".":
                    accent = (1.0 if hit == "x" else 0.45) * dice.uniform(0.9, 1.0)
                    notes.append(
                        Note(groove.time(bar, step), 0.2, DRUM_PITCHES[lane], groove.velocity(accent), kit, "drums")
                    )
    return notes


def bass_line(bars: list[Bar], groove: Groove, instrument: str, pattern: str) -> list[Note]:
    """The genre's bass pattern on each bar's chord, around C2 to B2, half an octave lower in dark moods."""
    notes = []
    low = 33 if groove.feeling.register <= -6 else 36
    for index, bar in enumerate(bars):
        root = low + (bar.chord.root - low) % 12
        third = root + (bar.chord.tones[1] - bar.chord.root) % 12
        fifth = root + (bar.chord.tones[2] - bar.chord.root) % 12
        target = nearest_pitch(root, (bar.following.root,))
        approach = scale_step(target, 1 if target < root else -1, bar.following.scale)
        pitches = {"r": root, "t": third, "f": fifth, "o": root + 12, "a": approach}
        played = list(_written_notes(pattern))
        if index == 0 and played[0][0] > 0:  # the opening downbeat is always the root: it sets the key
            played.insert(0, (0, min(played[0][0], 4), "r"))
        for step, length, symbol in played:
            accent = 0.95 if step % 4 == 0 else 0.8
            notes.append(
                Note(
                    groove.time(bar, step),
                    max(groove.length(length), 0.1),
                    pitches[symbol],
                    groove.velocity(accent),
                    instrument,
                    "bass",
                )
            )
    return notes


def comping(bars: list[Bar], groove: Groove, instrument: str, pattern: str) -> list[Note]:
    """Chords in the genre's rhythm; figures of single tones where the pattern has digits."""
    notes = []
    centre = 60 + groove.feeling.register // 2
    for bar in bars:
        voicing = close_voicing(bar.chord, centre)
        for step, length, symbol in _written_notes(pattern):
            accent = 0.85 if step % 4 == 0 else 0.7
            if symbol == "x":
                pitches = voicing
            else:
                ladder = [*voicing[:3], voicing[0] + 12]
                pitches = [ladder[int(symbol)]]
                accent += 0.15
            for pitch in pitches:
                notes.append(
                    Note(
                        groove.time(bar, step),
                        groove.length(length),
                        pitch,
                        groove.velocity(accent),
                        instrument,
                        "chords",
                    )
                )
    return notes


def sustained(bars: list[Bar], groove: Groove, instrument: str) -> list[Note]:
    """One long chord per bar."""
    centre = 64 + groove.feeling.register // 2
    return [
        Note(bar.onset, bar.length * 0.98, pitch, groove.velocity(0.8), instrument, "pad")
        for bar in bars
        for pitch in close_voicing(bar.chord, centre)
    ]


def arpeggio(dice: Dice, bars: list[Bar], groove: Groove, instrument: str) -> list[Note]:
    """Broken chords in eighths, up or up and down, an octave above the chords."""
    order = dice.choice(((0, 1, 2, 3, 2, 1, 2, 3), (0, 2, 1, 3, 0, 2, 1, 3), (3, 2, 1, 0, 3, 2, 1, 0)))
    stride = 2 if groove.feeling.density >= 0.3 else 4
    centre = 67 + groove.feeling.register // 2
    notes = []
    for bar in bars:
        voicing = close_voicing(bar.chord, centre)
        ladder = [*voicing[:3], voicing[0] + 12]
        for index, step in enumerate(range(0, STEPS, stride)):
            notes.append(
                Note(
                    groove.time(bar, step),
                    groove.length(stride),
                    ladder[order[index % len(order)]],
                    groove.velocity(0.8),
                    instrument,
                    "arpeggio",
                )
            )
    return notes


def _motif(dice: Dice, density: float, leaps: float) -> list[tuple[int, int, int]]:
    """A one-bar idea: (step, length, scale steps away from the melody's centre), starting on the downbeat."""
    unit = 1 if density >= 0.9 else 2
    starts = [0]
    for step in range(unit, STEPS, unit):
        likely = density * (1.1 if step % 4 == 0 else 0.75 if step % 2 == 0 else 0.3)
        if dice.chance(likely):
            starts.append(step)
    motif, position = [], dice.integer(-1, 1)
    for start, end in zip(starts, [*starts[1:], STEPS], strict=True):
        motif.append((start, end - start, position))
        move = dice.choice((-2, -1, -1, 1, 1, 2)) if dice.chance(0.75) else 0
        if dice.chance(leaps * 0.5):
            move += dice.choice((-3, 3))
        position = min(max(position + move, -5), 5)
    return motif


def melody(dice: Dice, bars: list[Bar], groove: Groove, instrument: str) -> list[Note]:
    """A phrase A A' A B of one-bar motifs. On beats one and three it takes chord tones, elsewhere scale tones.

    In A' the same rhythm and contour sit on the next chord, which is what makes it sound like one tune.
    """
    feeling = groove.feeling
    theme, answer = _motif(dice, feeling.density, feeling.leaps), _motif(dice, feeling.density, feeling.leaps)
    centre = 74 + feeling.register
    if feeling.leaps == 0.0:  # an insistent repeated note with its upper neighbour
        theme = [(step, length, 1 if step % 8 == 6 else 0) for step, length, _ in theme]
    notes = []
    for index, bar in enumerate(bars):
        home = nearest_pitch(centre, bar.chord.tones)
        for step, length, offset in answer if index % 4 == 3 else theme:
            pitch = scale_step(home, offset, bar.chord.scale)
            if step % 8 == 0:
                pitch = nearest_pitch(pitch, bar.chord.tones)
            accent = 1.0 if step % 4 == 0 else 0.85
            notes.append(
                Note(
                    groove.time(bar, step), groove.length(length), pitch, groove.velocity(accent), instrument, "melody"
                )
            )
    return notes
