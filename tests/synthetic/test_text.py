"""The synthetic text encoder: shapes, padding, and what its shipped weights understand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plaudit.encoders.words import words
from plaudit.errors import PromptError
from plaudit.synthetic.text import SyntheticTextEncoder, load_synthetic_text_encoder
from plaudit.synthetic.truth import GENRES
from tools.synthetic.text import random_captions


@pytest.fixture(scope="module")
def encoder() -> SyntheticTextEncoder:
    return load_synthetic_text_encoder()


def test_shapes_and_padding(encoder: SyntheticTextEncoder) -> None:
    features = encoder.encode(["sad piano", "", "a " * 100])
    assert features.tokens.shape == (3, encoder.length, encoder.token_dim)
    assert features.pooled.shape == (3, encoder.pooled_dim)
    present = features.tokens.abs().sum(2) > 0
    assert present.sum(1).tolist() == [3, 1, encoder.length]  # the start mark counts
    assert torch.allclose(features.pooled.norm(dim=1), torch.ones(3), atol=1e-5)


def test_a_prompt_reads_the_same_in_any_batch(encoder: SyntheticTextEncoder) -> None:
    prompts = ["dark techno", "a calm folk tune with flute and acoustic guitar in D major", "dark techno"]
    together, alone = encoder.encode(prompts), encoder.encode(prompts[:1])
    assert torch.allclose(together.tokens[0], alone.tokens[0], atol=1e-5)
    assert torch.equal(together.tokens[0], together.tokens[2])
    assert torch.allclose(together.pooled[2], alone.pooled[0], atol=1e-5)


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ("sad slow piano", "melancholic slow grand piano", "energetic fast techno with drum machine"),
        ("happy pop with brass", "a cheerful pop song with trumpet", "dark ambient with synth pad"),
        ("rock with electric guitar", "rock with distorted guitar", "rock with flute and bells"),
    ],
)
def test_pooled_follows_meaning(encoder: SyntheticTextEncoder, one: str, same: str, other: str) -> None:
    a, b, c = encoder.encode([one, same, other]).pooled
    assert float(a @ b) > float(a @ c) + 0.1


def test_a_genre_alone_lies_nearest_to_what_is_said_of_its_music(encoder: SyntheticTextEncoder) -> None:
    truths, texts = random_captions(np.random.default_rng(2), 600)
    said = encoder.encode(texts).pooled
    rows = [[i for i, truth in enumerate(truths) if truth.genre == genre] for genre in GENRES]
    centres = torch.nn.functional.normalize(torch.stack([said[own].mean(0) for own in rows]), dim=1)
    alone = encoder.encode([f"{genre} music" for genre in GENRES]).pooled
    assert (alone @ centres.T).argmax(1).tolist() == list(range(len(GENRES)))


def test_tokens_tell_the_key(encoder: SyntheticTextEncoder) -> None:
    """A linear reading of mean tokens, fitted on 300 captions, names the key of others that state it."""
    truths, texts = random_captions(np.random.default_rng(1), 1500)
    stated = [i for i, text in enumerate(texts) if any(w.startswith("key") and len(w) > 3 for w in words(text))]
    keys = sorted({truths[i].key for i in stated})
    target = torch.tensor([keys.index(truths[i].key) for i in stated])
    tokens = encoder.encode([texts[i] for i in stated]).tokens
    mean = tokens.sum(1) / (tokens.abs().sum(2) > 0).sum(1, keepdim=True)
    onehot = torch.nn.functional.one_hot(target, len(keys)).float()
    eye = torch.eye(mean.shape[1])
    weights = torch.linalg.solve(mean[:300].T @ mean[:300] + 0.1 * eye, mean[:300].T @ onehot[:300])
    right = ((mean[300:] @ weights).argmax(1) == target[300:]).float().mean()
    assert float(right) > 0.8


def test_no_prompts(encoder: SyntheticTextEncoder) -> None:
    with pytest.raises(PromptError, match="at least one"):
        encoder.encode([])
