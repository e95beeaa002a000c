"""What text encoders leave out of a prompt, held against what they compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plaudit.encoders.truncation import truncated_end, truncation, truncation_note
from plaudit.synthetic.text import SyntheticTextEncoder, load_synthetic_text_encoder
from tests.corpus.toy import HashEncoder
from tests.encoders.test_t5_clap import tiny_encoder


@pytest.fixture(scope="module")
def encoder() -> SyntheticTextEncoder:
    return load_synthetic_text_encoder()


def test_the_words_that_are_cut_are_named_and_have_no_effect(encoder: SyntheticTextEncoder) -> None:
    head = "calm " * 30
    assert truncation(encoder, head + "piano") == ""
    said = truncation(encoder, head + "slow piano, heavy drums")
    assert said == 'only the first 31 words are read, not "piano, heavy drums"'
    read = encoder.encode([head + "slow piano, heavy drums", head + "slow", head + "fast"])
    assert torch.equal(read.tokens[0], read.tokens[1]) and torch.equal(read.pooled[0], read.pooled[1])
    assert not torch.equal(read.tokens[0], read.tokens[2])


def test_unknown_letters_are_reported(encoder: SyntheticTextEncoder) -> None:
    assert truncation(encoder, "悲伤的钢琴").startswith("no word is read")
    assert "caf\u00e9" in truncation(encoder, "caf\u00e9 piano")
    assert truncation(encoder, "slow piano in F♯ minor, 90 bpm!") == truncation(encoder, "") == ""


def test_a_long_prompt_of_t5_is_cut_where_its_tokens_end(tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path)
    long = "drums " * 40
    said = truncation(encoder, long + "bells")
    assert said.startswith("only the first 77 tokens are read") and said.endswith('bells"')
    assert truncation(encoder, "slow piano") == ""
    cut = truncated_end("钢" * 100, lambda text: len(text) <= 30)  # no spaces to cut at
    assert cut == "钢" * 70


@given(st.lists(st.sampled_from(["a", "piano", "in", "drums,", "7"]), max_size=60), st.integers(1, 40))
def test_head_and_truncated_end_are_the_text(words: list[str], most: int) -> None:
    text = " ".join(words)
    cut = truncated_end(text, lambda part: len(part.split()) <= most)
    assert cut == " ".join(words[most:])


def test_captions_are_counted(encoder: SyntheticTextEncoder) -> None:
    said = truncation_note(encoder, ["calm", "calm " * 40, "calm " * 40], "captions")
    assert said is not None and said.startswith("1 of 2 captions are not read in full; in the first, only")
    assert truncation_note(encoder, ["calm"], "captions") is None
    assert truncation(HashEncoder(), "钢" * 100) == ""  # an encoder that can't say
