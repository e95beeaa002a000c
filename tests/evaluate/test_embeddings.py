"""Embeddings of clips that cannot all be embedded."""

from __future__ import annotations

import numpy as np
import torch

from plaudit import loading
from plaudit.evaluate.embeddings import AudioEncoder, clip_from_wave, embed_clips


def test_a_clip_too_short_for_the_encoder_fails_alone() -> None:
    encoder = AudioEncoder("synthetic", loading.CLAPS.identity("synthetic"), loading.CLAPS.load("synthetic"))
    noise = 0.1 * torch.randn(48000, generator=torch.Generator().manual_seed(0))
    clips = [clip_from_wave(wave, 16000, name) for wave, name in ((noise, "long"), (noise[:1000], "short"))]

    failures: dict[int, str] = {}
    embeddings = embed_clips(clips, encoder, failures)

    assert list(failures) == [1] and "at least 1 s" in failures[1]
    assert np.isfinite(embeddings[0]).all() and np.isnan(embeddings[1]).all()
