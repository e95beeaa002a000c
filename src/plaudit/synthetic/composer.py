"""The composer: a truth and a seed to notes.

``compose`` draws a truth where none is given, lays a chord progression over the bars and lets each instrument's part be
written by ``parts``. Every instrument named in the truth plays from the first bar on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from plaudit.errors import CorpusError
from plaudit.synthetic.exact import ExactRandom
from plaudit.synthetic.styles import GENRE_STYLES, MOOD_STYLES, MoodStyle
from plaudit.synthetic.truth import BASSES, DRUMS, GENRES, KEYS, MOODS, TEMPO_RANGE, Truth

SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
_NUMERALS = {"i": 0, "ii": 1, "iii": 2, "iv": 3, "v": 4, "vi": 5, "vii": 6}


@dataclass(frozen=True)
class Chord:
    """A chord as pitch classes 0..11 (0 is C): root, third, fifth and perhaps seventh, and the scale around it."""

    tones: tuple[int, ...]
    scale: tuple[int, ...]

    @property
    def root(self) -> int:
        """Pitch class of the root."""
        return self.tones[0]


def scale_classes(key: str, mode: str) -> tuple[int, ...]:
    """The seven pitch classes of a key, from its tonic up."""
    tonic = KEYS.index(key)
    return tuple((tonic + step) % 12 for step in SCALES[mode])


def parse_chord(numeral: str, key: str, mode: str, seventh: bool) -> Chord:
    """A Roman numeral in a key: upper case is major, lower case minor, a final ``o`` diminished.

    The degree is counted in the mode's own scale (natural minor), so ``VI`` in minor is the flat sixth. ``V`` in minor
    raises the leading tone; the scale offered for the melody over it is raised too.
    """
    bare = numeral.rstrip("o")
    scale = scale_classes(key, mode)
    degree = _NUMERALS[bare.lower()]
    root = scale[degree]
    third = 4 if bare.isupper() else 3
    fifth = 6 if numeral.endswith("o") else 7
    tones = [root, (root + third) % 12, (root + fifth) % 12]
    if seventh:
        tones.append(scale[(degree + 6) % 7])
    if tones[1] not in scale:  # the raised leading tone takes the place of the natural one
        scale = tuple(tones[1] if note == (tones[1] - 1) % 12 else note for note in scale)
    return Chord(tuple(tones), scale)


def nearest_pitch(target: float, classes: tuple[int, ...]) -> int:
    """The MIDI pitch nearest to ``target`` whose pitch class is one of ``classes``; the lower one on a tie."""
    centre = int(target + 0.5)
    return min(
        (pitch for pitch in range(centre - 12, centre + 13) if pitch % 12 in classes),
        key=lambda pitch: (abs(pitch - target), pitch),
    )


def scale_step(pitch: int, steps: int, scale: tuple[int, ...]) -> int:
    """The pitch ``steps`` scale notes above (or below) ``pitch``, which itself need not lie in the scale."""
    direction = 1 if steps > 0 else -1
    for _ in range(abs(steps)):
        pitch += direction
        while pitch % 12 not in scale:
            pitch += direction
    return pitch


def close_voicing(chord: Chord, centre: int) -> list[int]:
    """Every chord tone at its octave nearest to ``centre``, from low to high: neighbouring chords then move little."""
    return sorted(nearest_pitch(centre, (tone,)) for tone in chord.tones)


STEPS_PER_BAR = 16
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


def drum_line(rng: ExactRandom, bars: list[Bar], groove: Groove, kit: str, lanes: Mapping[str, str]) -> list[Note]:
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
                    hit = "x" if rng.chance(0.6) else symbol
                if hit != ".":
                    accent = (1.0 if hit == "x" else 0.45) * rng.uniform(0.9, 1.0)
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


def arpeggio(rng: ExactRandom, bars: list[Bar], groove: Groove, instrument: str) -> list[Note]:
    """Broken chords in eighths, up or up and down, an octave above the chords."""
    order = rng.choice(((0, 1, 2, 3, 2, 1, 2, 3), (0, 2, 1, 3, 0, 2, 1, 3), (3, 2, 1, 0, 3, 2, 1, 0)))
    stride = 2 if groove.feeling.density >= 0.3 else 4
    centre = 67 + groove.feeling.register // 2
    notes = []
    for bar in bars:
        voicing = close_voicing(bar.chord, centre)
        ladder = [*voicing[:3], voicing[0] + 12]
        for index, step in enumerate(range(0, STEPS_PER_BAR, stride)):
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


def _motif(rng: ExactRandom, density: float, leaps: float) -> list[tuple[int, int, int]]:
    """A one-bar idea: (step, length, scale steps away from the melody's centre), starting on the downbeat."""
    unit = 1 if density >= 0.9 else 2
    starts = [0]
    for step in range(unit, STEPS_PER_BAR, unit):
        likely = density * (1.1 if step % 4 == 0 else 0.75 if step % 2 == 0 else 0.3)
        if rng.chance(likely):
            starts.append(step)
    motif, position = [], rng.integer(-1, 1)
    for start, end in zip(starts, [*starts[1:], STEPS_PER_BAR], strict=True):
        motif.append((start, end - start, position))
        move = rng.choice((-2, -1, -1, 1, 1, 2)) if rng.chance(0.75) else 0
        if rng.chance(leaps * 0.5):
            move += rng.choice((-3, 3))
        position = min(max(position + move, -5), 5)
    return motif


def melody(rng: ExactRandom, bars: list[Bar], groove: Groove, instrument: str) -> list[Note]:
    """A phrase A A' A B of one-bar motifs. On beats one and three it takes chord tones, elsewhere scale tones.

    In A' the same rhythm and contour sit on the next chord, which is what makes it sound like one tune.
    """
    feeling = groove.feeling
    theme, answer = _motif(rng, feeling.density, feeling.leaps), _motif(rng, feeling.density, feeling.leaps)
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


# The voice that plays the melody when several could: the most solo-like first.
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
    """A truth that is typical of its genre: tempo, mode and instruments depend on genre and mood."""
    rng = ExactRandom(seed, "truth")
    genre, mood = rng.choice(GENRES), rng.choice(MOODS)
    style, feeling = GENRE_STYLES[genre], MOOD_STYLES[mood]
    tempo = round(rng.uniform(*style.tempo) * feeling.tempo)
    lead = rng.choice(style.leads)
    players = [lead]
    others = [name for name in style.chords if name != lead]
    if others and (lead not in style.chords or rng.chance(0.7)):
        players.append(rng.choice(others))
    spare = [name for name in style.colours if name not in players]
    if spare and rng.chance(0.4):
        players.append(rng.choice(spare))
    bassed, drummed = rng.chance(style.bassed), rng.chance(style.drummed)
    if bassed or len(players) == 1:
        players.append(rng.choice(style.basses))
    if drummed:
        players.append(rng.choice(style.kits))
    return Truth(
        genre=genre,
        mood=mood,
        instruments=tuple(players),
        tempo=min(max(tempo, TEMPO_RANGE[0]), TEMPO_RANGE[1]),
        key=rng.choice(KEYS),
        mode="minor" if rng.chance(feeling.minor) else "major",
    )


def compose(seed: int, seconds: float, truth: Truth | None = None) -> Piece:
    """A piece of the given length with the given truth, or one drawn from the seed; the same bits everywhere.

    Raises CorpusError when ``seconds`` is not positive.
    """
    if not seconds > 0:
        raise CorpusError(f"a piece must be longer than 0 seconds, got {seconds}")
    truth = truth or random_truth(seed)
    style, feeling = GENRE_STYLES[truth.genre], MOOD_STYLES[truth.mood]
    rng = ExactRandom(seed, "compose")
    bars = _lay_bars(rng, seconds, truth)
    groove = Groove(60.0 / truth.tempo, style.swing, style.shuffle, feeling)
    notes: list[Note] = []
    for instrument, part in assign_parts(truth.instruments):
        part_dice = ExactRandom(seed, f"{part} {instrument}")
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


def _lay_bars(rng: ExactRandom, seconds: float, truth: Truth) -> list[Bar]:
    """One chord per bar, by a progression of the genre from its tonic, repeated to the end."""
    style = GENRE_STYLES[truth.genre]
    sevenths = style.sevenths or truth.mood in ("romantic", "dreamy")
    numerals = rng.choice(style.progressions[truth.mode]).split()
    if truth.mood == "tense":
        numerals = [numerals[0], numerals[0], *numerals[2:-1], "V"]
    length = 240.0 / truth.tempo
    count = int(seconds / length) + 1
    chords = [parse_chord(numeral, truth.key, truth.mode, sevenths) for numeral in numerals]
    return [Bar(i * length, length, chords[i % len(chords)], chords[(i + 1) % len(chords)]) for i in range(count)]
