"""Genres and moods as tables for the composer. Every number is ours.

A pattern is one bar of sixteen steps. Drum lanes: ``x`` hit, ``o`` soft hit, ``.`` rest. Bass: ``r`` root, ``t`` third,
``f`` fifth, ``o`` octave, ``a`` a step before the next root, ``-`` hold. Chords: ``x`` the whole chord, ``0``-``3`` one
tone of it from the lowest up, ``-`` hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class GenreStyle:
    """One genre: tempo range (bpm), patterns, harmony and instruments.

    ``swing`` moves every second eighth late, ``shuffle`` every second sixteenth, both in beats. ``drums`` has a lane
    for each voice that plays (low, mid, high, open). ``leads``, ``chords`` and ``colours`` are the instruments it draws
    from, ``drummed`` and ``bassed`` how likely drums and bass are. Progressions start on the tonic: ten seconds are too
    short to find the key otherwise.
    """

    tempo: tuple[int, int]
    drums: Mapping[str, str]
    bass: str
    chords_pattern: str
    progressions: Mapping[str, tuple[str, ...]]
    leads: tuple[str, ...]
    chords: tuple[str, ...]
    colours: tuple[str, ...]
    basses: tuple[str, ...]
    kits: tuple[str, ...]
    swing: float = 0.0
    shuffle: float = 0.0
    sevenths: bool = False
    drummed: float = 1.0
    bassed: float = 1.0


@dataclass(frozen=True)
class MoodStyle:
    """One mood, as changes to any genre.

    ``minor`` is the probability of the minor mode; ``tempo`` a factor; ``register`` semitones for melody and chords;
    ``density`` 0..1 how many melody notes; ``legato`` the sounding share of a note's length; ``brightness`` 0..1 the
    synth's brightness; ``loudness`` 0..1 velocities and level; ``echo`` 0..1; ``leaps`` 0..1 how widely the melody
    moves, where 0 is one note repeated.
    """

    minor: float
    tempo: float
    register: int
    density: float
    legato: float
    brightness: float
    loudness: float
    echo: float
    leaps: float


MOOD_STYLES = {
    "happy": MoodStyle(0.03, 1.10, 5, 0.60, 0.75, 0.65, 0.85, 0.15, 0.5),
    "sad": MoodStyle(0.97, 0.78, -2, 0.28, 1.00, 0.25, 0.55, 0.35, 0.2),
    "calm": MoodStyle(0.20, 0.82, 0, 0.18, 1.00, 0.20, 0.42, 0.30, 0.1),
    "energetic": MoodStyle(0.45, 1.20, 2, 1.00, 0.60, 1.00, 1.00, 0.05, 0.6),
    "dark": MoodStyle(1.00, 0.92, -12, 0.35, 0.95, 0.12, 0.75, 0.25, 0.3),
    "dreamy": MoodStyle(0.30, 0.88, 10, 0.40, 1.00, 0.35, 0.55, 1.00, 0.4),
    "tense": MoodStyle(1.00, 1.10, -3, 0.95, 0.35, 0.85, 0.90, 0.05, 0.0),
    "romantic": MoodStyle(0.35, 0.85, 3, 0.45, 1.00, 0.45, 0.65, 0.45, 1.0),
}

_ROCK = {
    "major": ("I IV V IV", "I V vi IV", "I V IV I"),
    "minor": ("i VI VII i", "i VII VI VII"),
}
_POP = {
    "major": ("I V vi IV", "I IV vi V", "I vi IV V"),
    "minor": ("i VI III VII", "i iv VI V", "i VII VI V"),
}
_JAZZ = {
    "major": ("I vi ii V", "I IV ii V", "I iii ii V"),
    "minor": ("i iio V i", "i VI iio V", "i iv VII III"),
}
_CLUB = {
    "major": ("I I IV IV", "I I vi vi"),
    "minor": ("i i VI VI", "i i i VII", "i i iv iv"),
}
_HOUSE = {
    "major": ("I vi IV V", "I ii vi V"),
    "minor": ("i VII VI VII", "i iv VII III"),
}
_HIP = {
    "major": ("I vi I IV", "I IV vi IV"),
    "minor": ("i i VI V", "i iv i V", "i VI i VII"),
}
_FLOAT = {
    "major": ("I IV I IV", "I iii IV I"),
    "minor": ("i VI i VI", "i VII VI i"),
}
_CLASSIC = {
    "major": ("I IV V I", "I ii V I", "I V vi iii IV I IV V"),
    "minor": ("i iv V i", "i VI iv V", "i V i VII"),
}
_REGGAE = {
    "major": ("I IV I V", "I V IV I", "I ii I ii"),
    "minor": ("i iv i VII", "i VII i VII"),
}
_FUNK = {
    "major": ("I I IV I", "I IV I V"),
    "minor": ("i i iv i", "i VII i iv"),
}
_FOLK = {
    "major": ("I IV I V", "I V vi IV", "I IV V I"),
    "minor": ("i VII i VII", "i VI VII i", "i III VII i"),
}

GENRE_STYLES = {
    "rock": GenreStyle(
        tempo=(112, 148),
        drums={
            "low": "x.......x.x.....",
            "mid": "....x.......x...",
            "high": "x.x.x.x.x.x.x.x.",
        },
        bass="r-r-r-r-r-r-r-r-",
        chords_pattern="x---x-x---x-x-x-",
        progressions=_ROCK,
        leads=("electric guitar", "organ", "synth lead"),
        chords=("electric guitar", "organ", "piano"),
        colours=("organ", "strings"),
        basses=("electric bass",),
        kits=("acoustic drums",),
    ),
    "pop": GenreStyle(
        tempo=(96, 124),
        drums={
            "low": "x.....x.x.......",
            "mid": "....x.......x...",
            "high": "o.xoo.xoo.xoo.xo",
        },
        bass="r--r--r-r--rf-o-",
        chords_pattern="x--x--x-x--x--x-",
        progressions=_POP,
        leads=("synth lead", "piano", "bell", "acoustic guitar"),
        chords=("piano", "electric piano", "acoustic guitar", "synth pad"),
        colours=("synth pad", "strings", "bell"),
        basses=("electric bass", "synth bass"),
        kits=("drum machine", "acoustic drums"),
    ),
    "jazz": GenreStyle(
        tempo=(110, 168),
        drums={
            "low": "o.........o.....",
            "mid": "......o.......o.",
            "high": "....o.......o...",
            "open": "x...x.x.x...x.x.",
        },
        bass="r---t---f---a---",
        chords_pattern="x-....x---......",
        progressions=_JAZZ,
        leads=("brass", "flute", "piano", "electric guitar"),
        chords=("piano", "electric piano"),
        colours=("brass", "electric piano"),
        basses=("upright bass",),
        kits=("acoustic drums",),
        swing=0.16,
        sevenths=True,
    ),
    "techno": GenreStyle(
        tempo=(126, 142),
        drums={
            "low": "x...x...x...x...",
            "high": "xoxoxoxoxoxoxoxo",
            "open": "..x...x...x...x.",
        },
        bass=".rrr.rro.rrr.rfr",
        chords_pattern="...x..x....x..x.",
        progressions=_CLUB,
        leads=("synth lead", "bell"),
        chords=("organ", "synth lead", "electric piano"),
        colours=("synth pad", "bell"),
        basses=("synth bass",),
        kits=("drum machine",),
    ),
    "house": GenreStyle(
        tempo=(116, 127),
        drums={
            "low": "x...x...x...x...",
            "mid": "....x.......x...",
            "open": "..x...x...x...x.",
        },
        bass="..r-..r-..o-..r-",
        chords_pattern="x-.x-.x-..x-.x-.",
        progressions=_HOUSE,
        leads=("brass", "synth lead", "flute", "bell"),
        chords=("piano", "organ", "electric piano"),
        colours=("strings", "synth pad"),
        basses=("synth bass",),
        kits=("drum machine",),
        sevenths=True,
    ),
    "hip hop": GenreStyle(
        tempo=(80, 98),
        drums={
            "low": "x..x......x.....",
            "mid": "....x.......x...",
            "high": "x.x.x.x.x.xxx.x.",
            "open": "..............x.",
        },
        bass="r-----..r-r---..",
        chords_pattern="x-------....x---",
        progressions=_HIP,
        leads=("bell", "piano", "flute", "synth lead"),
        chords=("electric piano", "piano", "synth pad"),
        colours=("strings", "synth pad"),
        basses=("synth bass", "electric bass"),
        kits=("drum machine",),
        shuffle=0.07,
        sevenths=True,
    ),
    "ambient": GenreStyle(
        tempo=(62, 84),
        drums={
            "low": "o...............",
            "high": "........o.......",
            "open": "............o...",
        },
        bass="r---------------",
        chords_pattern="x---------------",
        progressions=_FLOAT,
        leads=("bell", "flute", "synth lead", "electric piano"),
        chords=("synth pad", "strings"),
        colours=("strings", "electric piano", "bell"),
        basses=("synth bass",),
        kits=("hand percussion",),
        sevenths=True,
        drummed=0.0,
        bassed=0.4,
    ),
    "classical": GenreStyle(
        tempo=(84, 132),
        drums={
            "low": "x...............",
            "open": "........o.......",
        },
        bass="r-------f-------",
        chords_pattern="0-2-1-2-0-2-1-2-",
        progressions=_CLASSIC,
        leads=("flute", "strings", "piano", "brass"),
        chords=("piano", "strings"),
        colours=("strings", "brass", "flute"),
        basses=("upright bass",),
        kits=("hand percussion",),
        drummed=0.0,
        bassed=0.35,
    ),
    "reggae": GenreStyle(
        tempo=(68, 88),
        drums={
            "low": "........x.......",
            "mid": "........x.......",
            "high": "x.xox.x.x.xox.x.",
        },
        bass="..r-r-..t-f-..r-",
        chords_pattern="..x...x...x...x.",
        progressions=_REGGAE,
        leads=("brass", "organ", "flute"),
        chords=("organ", "electric guitar", "piano"),
        colours=("brass", "organ"),
        basses=("electric bass",),
        kits=("acoustic drums", "hand percussion"),
    ),
    "bossa nova": GenreStyle(
        tempo=(112, 142),
        drums={
            "low": "x.....x.x.....x.",
            "mid": "x..x..x...x..x..",
            "high": "oooooooooooooooo",
        },
        bass="r-----f-f-----r-",
        chords_pattern="x--x--x---x--x--",
        progressions=_JAZZ,
        leads=("flute", "acoustic guitar", "electric piano"),
        chords=("acoustic guitar", "electric piano"),
        colours=("strings", "flute"),
        basses=("upright bass",),
        kits=("hand percussion", "acoustic drums"),
        sevenths=True,
    ),
    "funk": GenreStyle(
        tempo=(96, 116),
        drums={
            "low": "x.x....x..x..x..",
            "mid": "....x..o.o..x..o",
            "high": "xoxoxoxoxoxoxoxo",
            "open": "......x.........",
        },
        bass="r..o.r..ro..f.fa",
        chords_pattern="..x.x..xx..x..x.",
        progressions=_FUNK,
        leads=("brass", "synth lead", "organ"),
        chords=("electric guitar", "electric piano", "organ"),
        colours=("brass", "organ"),
        basses=("electric bass", "synth bass"),
        kits=("acoustic drums",),
        shuffle=0.03,
        sevenths=True,
    ),
    "folk": GenreStyle(
        tempo=(88, 122),
        drums={
            "low": "x.......x.......",
            "mid": "....o.......o...",
            "high": "..o...o...o...o.",
        },
        bass="r-------f-------",
        chords_pattern="0-2-3-1-0-3-2-1-",
        progressions=_FOLK,
        leads=("flute", "acoustic guitar", "strings"),
        chords=("acoustic guitar",),
        colours=("strings", "flute", "bell"),
        basses=("upright bass",),
        kits=("hand percussion",),
        drummed=0.4,
        bassed=0.6,
    ),
}
