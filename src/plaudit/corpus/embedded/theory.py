"""Keys, chords and progressions: the little harmony that the composer needs."""

from __future__ import annotations

from dataclasses import dataclass

from plaudit.corpus.embedded.truth import KEYS

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
