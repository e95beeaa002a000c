"""The tokenizer: known answers, stability, graceful unknown words."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.encoders.words import BUCKETS, GRAMS, LENGTH, batch_words, buckets, words
from plaudit.errors import PromptError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Slow, sad PIANO!", ["slow", "sad", "piano"]),
        ("lo-fi hip-hop at 120 bpm", ["lo", "fi", "hip", "hop", "at", "120", "bpm"]),
        ("in A minor", ["in", "keya", "minor"]),
        ("in a minor.", ["in", "keya", "minor"]),
        ("in a minor key", ["in", "a", "minor", "key"]),
        ("A minor key ballad", ["a", "minor", "key", "ballad"]),
        ("A sad song", ["a", "sad", "song"]),
        ("Bb major", ["keya#", "major"]),
        ("key of F sharp minor", ["key", "of", "keyf#", "minor"]),
        ("C♯ minor", ["keyc#", "minor"]),
        ("Cb major", ["keyb", "major"]),
        ("", []),
        ("!?… 音楽", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_buckets_are_the_same_on_every_machine() -> None:
    assert buckets("piano") == (1634, 1517, 99, 3845, 742, 1532, 374, 2455, 3171, 916, 1041, 1197, 3759)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60))
def test_any_text_fits(text: str) -> None:
    batch = batch_words([words(text)])
    assert batch.index.shape == (1, LENGTH)
    assert batch.grams.shape[1] == GRAMS
    assert 0 <= int(batch.grams.min()) and int(batch.grams.max()) <= BUCKETS
    assert int(batch.index[0, 0]) > 0  # the start mark is always there


def test_words_spelled_alike_share_buckets() -> None:
    known, unseen, other = (set(buckets(word)) for word in ("melancholic", "melancholically", "drums"))
    assert len(known & unseen) > 0.5 * len(known)
    assert not known & other


def test_batch_marks_padding_and_cuts_long_texts() -> None:
    batch = batch_words([["sad"], ["word"] * 100])
    assert batch.index[0].tolist() == [1, 2] + [0] * (LENGTH - 2)
    assert bool((batch.index[1] > 0).all())
    assert torch.equal(batch.grams[0], torch.zeros(GRAMS, dtype=torch.long))


def test_no_prompts() -> None:
    with pytest.raises(PromptError, match="at least one"):
        batch_words([])
