"""Captions say what is true, in words that vary."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.errors import CorpusError
from plaudit.synthetic.captions import GENRE_WORDS, INSTRUMENT_WORDS, MOOD_WORDS, STYLES, caption
from plaudit.synthetic.composer import random_truth
from plaudit.synthetic.truth import GENRES, INSTRUMENTS, MODES, MOODS


def says(text: str, words: tuple[str, ...]) -> bool:
    return any(word in text.lower() for word in words)


def test_every_word_of_the_truth_can_be_said_plainly():
    assert set(GENRE_WORDS) == set(GENRES) and set(MOOD_WORDS) == set(MOODS)
    assert set(INSTRUMENT_WORDS) == set(INSTRUMENTS)
    vocabularies = (GENRE_WORDS, MOOD_WORDS, INSTRUMENT_WORDS)
    words = {word for vocabulary in vocabularies for options in vocabulary.values() for word in options}
    assert {"sad", "calm", "happy", "piano", "guitar", "strings", "organ", "bell", "brass", "bass", "drums"} <= words


def test_synonyms_belong_to_one_meaning():
    for vocabulary in (GENRE_WORDS, MOOD_WORDS, INSTRUMENT_WORDS):
        owners: dict[str, str] = {}
        for meaning, options in vocabulary.items():
            for word in options:
                assert owners.setdefault(word, meaning) == meaning


@given(st.integers(0, 2**63), st.sampled_from(STYLES))
def test_captions_contradict_nothing(seed, style):
    truth = random_truth(seed)
    text = caption(truth, style, seed)
    assert text == caption(truth, style, seed)
    other_mode = next(mode for mode in MODES if mode != truth.mode)
    assert other_mode not in text
    for mood in MOODS:
        assert mood == truth.mood or not says(text, (f"{mood} ", f"{mood},"))
    if "bpm" in text:
        assert f"{truth.tempo} bpm" in text
    assert "  " not in text and " ." not in text and " ," not in text and ",," not in text


@pytest.mark.parametrize("style", STYLES)
def test_genre_mood_and_two_instruments_are_nearly_always_there(style):
    genre = mood = players = tempo = key = 0
    texts = set()
    for seed in range(400):
        truth = random_truth(seed)
        text = caption(truth, style, seed)
        texts.add(text)
        genre += says(text, GENRE_WORDS[truth.genre])
        mood += says(text, MOOD_WORDS[truth.mood])
        players += sum(says(text, INSTRUMENT_WORDS[name]) for name in truth.instruments) >= 2
        tempo += f"{truth.tempo} bpm" in text
        key += f"{truth.key} {truth.mode}" in text
    assert genre > 360 and mood > 360 and players > 380
    assert 60 < tempo < 200 and 40 < key < 200
    assert len(texts) > 395


def test_styles_look_as_named():
    truth = random_truth(4)
    for seed in range(50):
        assert "." not in caption(truth, "tags", seed)
        assert caption(truth, "sentence", seed).count(".") == 1
        assert caption(truth, "two_sentences", seed).count(".") == 2


def test_unknown_style_is_rejected():
    with pytest.raises(CorpusError, match="unknown caption style"):
        caption(random_truth(1), "haiku", 1)
