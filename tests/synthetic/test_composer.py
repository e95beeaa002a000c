"""Pieces keep to their truth and to the harmony."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import CorpusError
from plaudit.synthetic.composer import compose, parse_chord, random_truth, scale_classes
from plaudit.synthetic.styles import GENRE_STYLES, MOOD_STYLES
from plaudit.synthetic.truth import GENRES, INSTRUMENTS, KEYS, MODES, MOODS, Truth

seeds = st.integers(0, 2**63)
truths = st.builds(
    Truth,
    genre=st.sampled_from(GENRES),
    mood=st.sampled_from(MOODS),
    instruments=st.lists(st.sampled_from(INSTRUMENTS), min_size=1, max_size=6, unique=True).map(tuple),
    tempo=st.integers(60, 180),
    key=st.sampled_from(KEYS),
    mode=st.sampled_from(MODES),
)


def test_chords_of_a_minor():
    assert parse_chord("i", "A", "minor", seventh=False).tones == (9, 0, 4)
    assert parse_chord("VI", "A", "minor", seventh=False).tones == (5, 9, 0)
    assert parse_chord("iio", "A", "minor", seventh=True).tones == (11, 2, 5, 9)


def test_dominant_in_minor_raises_the_leading_tone():
    dominant = parse_chord("V", "A", "minor", seventh=True)
    assert dominant.tones == (4, 8, 11, 2)
    assert 8 in dominant.scale and 7 not in dominant.scale


def test_sevenths_in_major_are_diatonic():
    assert parse_chord("I", "C", "major", seventh=True).tones == (0, 4, 7, 11)
    assert parse_chord("V", "C", "major", seventh=True).tones == (7, 11, 2, 5)


@pytest.mark.parametrize("genre", GENRES)
def test_every_progression_starts_on_the_tonic_and_stays_in_the_scale(genre):
    for mode, progressions in GENRE_STYLES[genre].progressions.items():
        for progression in progressions:
            chords = [parse_chord(numeral, "D", mode, seventh=False) for numeral in progression.split()]
            assert chords[0].root == KEYS.index("D")
            assert len({chord.root for chord in chords}) > 1
            for chord, numeral in zip(chords, progression.split(), strict=True):
                foreign = set(chord.tones) - set(scale_classes("D", mode))
                assert len(foreign) == (mode == "minor" and numeral == "V"), (progression, numeral)


@pytest.mark.parametrize("genre", GENRES)
def test_patterns_are_one_bar_long(genre):
    style = GENRE_STYLES[genre]
    assert all(len(pattern) == 16 for pattern in (*style.drums.values(), style.bass, style.chords_pattern))


@settings(max_examples=40, deadline=None)
@given(seeds, truths)
def test_melody_has_chord_tones_on_strong_beats_and_scale_tones_elsewhere(seed, truth):
    piece = compose(seed, 10.0, truth)
    beat = 60.0 / truth.tempo
    for note in (note for note in piece.notes if note.part == "melody"):
        bar = next(bar for bar in reversed(piece.bars) if bar.onset <= note.onset + 1e-9)
        beats_in = (note.onset - bar.onset) / beat
        allowed = bar.chord.tones if min(abs(beats_in), abs(beats_in - 2)) < 1e-6 else bar.chord.scale
        assert int(note.pitch) % 12 in allowed


@settings(max_examples=40, deadline=None)
@given(seeds, truths)
def test_bass_and_chords_sound_the_chord_on_the_downbeat(seed, truth):
    piece = compose(seed, 10.0, truth)
    for bar in piece.bars:
        for note in piece.notes:
            if note.part in ("bass", "chords", "pad") and abs(note.onset - bar.onset) < 1e-9:
                assert int(note.pitch) % 12 in bar.chord.tones


@settings(max_examples=40, deadline=None)
@given(seeds, truths)
def test_every_instrument_named_plays_within_five_seconds_and_no_other(seed, truth):
    piece = compose(seed, 10.0, truth)
    assert {note.instrument for note in piece.notes if note.onset < 5.0} == set(truth.instruments)
    assert {note.instrument for note in piece.notes} == set(truth.instruments)
    for note in piece.notes:
        assert 0.0 <= note.onset < 10.0 and note.duration > 0.0
        assert 28 <= note.pitch <= 108 and 0.0 < note.velocity <= 1.0


@given(seeds)
def test_random_truths_fit_their_genre(seed):
    truth = random_truth(seed)
    style = GENRE_STYLES[truth.genre]
    known = {*style.leads, *style.chords, *style.colours, *style.basses, *style.kits}
    assert set(truth.instruments) <= known and len(truth.instruments) >= 2
    assert Truth.from_dict(truth.to_dict()) == truth
    assert compose(seed, 1.0).truth == truth


def test_truths_cover_the_vocabulary():
    truths = [random_truth(seed) for seed in range(2000)]
    for name, words in (("genre", GENRES), ("mood", MOODS), ("key", KEYS), ("mode", MODES)):
        counts = Counter(getattr(truth, name) for truth in truths)
        assert set(counts) == set(words)
        assert min(counts.values()) > 0.5 * len(truths) / len(words)
    assert {name for truth in truths for name in truth.instruments} == set(INSTRUMENTS)
    minor = sum(truth.mode == "minor" for truth in truths if truth.mood == "sad")
    assert minor > 0.9 * sum(truth.mood == "sad" for truth in truths)


def test_the_motif_returns():
    piece = compose(5, 12.0, Truth("rock", "happy", ("synth lead", "electric bass"), 120, "C", "major"))
    melody = [note.onset for note in piece.notes if note.part == "melody"]
    onsets = [
        {round(onset - bar.onset, 6) for onset in melody if 0 <= onset - bar.onset < bar.length - 1e-9}
        for bar in piece.bars[:3]
    ]
    assert onsets[0] == onsets[1] == onsets[2]


def test_moods_differ_in_sound():
    base = Truth("pop", "calm", ("piano", "electric bass", "drum machine"), 110, "C", "major")
    calm, energetic = (compose(1, 10.0, replace(base, mood=mood)) for mood in ("calm", "energetic"))
    assert len(energetic.notes) > 1.2 * len(calm.notes)
    assert energetic.brightness > calm.brightness and energetic.level > calm.level
    assert len(set(MOOD_STYLES.values())) == len(MOODS)


@pytest.mark.parametrize(
    "change",
    [{"genre": "polka"}, {"mood": "odd"}, {"key": "H"}, {"mode": "dorian"}, {"instruments": ("kazoo",)},
     {"instruments": ()}, {"instruments": ("piano", "piano")}, {"tempo": 59}, {"tempo": 181}],
)  # fmt: skip
def test_truth_rejects_what_it_does_not_know(change):
    good = {"genre": "jazz", "mood": "sad", "instruments": ("piano",), "tempo": 90, "key": "C", "mode": "minor"}
    with pytest.raises(CorpusError, match=r"unknown|must"):
        Truth(**{**good, **change})


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_piece_needs_a_length(seconds):
    with pytest.raises(CorpusError, match="longer than 0"):
        compose(1, seconds)
