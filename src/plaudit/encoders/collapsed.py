"""Whether a CLAP tells texts apart at all: copies of some on the Hub have one embedding for every text."""

from __future__ import annotations

import torch

from plaudit.errors import ModelError
from plaudit.types import Embedder

UNRELATED = (
    "a solo piano plays a slow and sad melody",
    "aggressive death metal with distorted guitars and screaming",
    "rain falls on a tin roof while a dog barks",
    "an upbeat salsa band with trumpets and congas",
)
COLLAPSED = 0.9
"""Cosine of unrelated texts from which on a text tower is refused (ours); sound ones stay far below."""


def check_texts_differ(clap: Embedder) -> None:
    """ModelError where unrelated texts lie close together."""
    with torch.inference_mode():
        embeddings = clap.text(list(UNRELATED))
    cosines = (embeddings @ embeddings.T)[~torch.eye(len(UNRELATED), dtype=torch.bool)]
    closest = cosines.max().item()
    if not closest < COLLAPSED:  # NaN is refused as well
        raise ModelError(
            f"this CLAP hardly tells texts apart: unrelated ones have a cosine of {closest:.2f}; "
            "its text weights are damaged or badly converted, take the original file"
        )
