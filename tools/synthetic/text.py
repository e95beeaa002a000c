"""Training of the synthetic text encoder: predict from a caption the facts that it states."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from plaudit.encoders.words import batch_words, words
from plaudit.places import SHIPPED_WEIGHTS
from plaudit.storage import save_module
from plaudit.synthetic.captions import STYLES, caption
from plaudit.synthetic.clap import WordTransformer
from plaudit.synthetic.composer import random_truth
from plaudit.synthetic.text import SyntheticText
from plaudit.synthetic.truth import Truth
from tools.synthetic.facts import FactHeads, stated_facts
from tools.synthetic.loop import FitSettings, fit

TEXT_SETTINGS = FitSettings(steps=1500, learning_rate=2e-3, checkpoint_every=100)


class TextTraining(nn.Module):
    """The text transformer and classifiers of facts on top of it."""

    def __init__(self, text: SyntheticText) -> None:
        super().__init__()
        self.text = text
        self.heads = FactHeads(text.width)


def train_text(
    folder: Path,
    weights: Path = SHIPPED_WEIGHTS / "text",
    settings: FitSettings = TEXT_SETTINGS,
    batch: int = 64,
    seed: int = 0,
    log: Callable[[str], None] = print,
) -> SyntheticText:
    """Train on endless captions of random truths, resuming from `folder`, and write float16 weights to `weights`."""
    torch.manual_seed(seed)
    model = TextTraining(SyntheticText())

    def losses(step: int) -> dict[str, Tensor]:
        random = np.random.default_rng((seed, step))
        truths, texts = random_captions(random, batch)
        listed = [dropped(words(text), random) for text in texts]
        hashed = batch_words(listed)
        parts = model.heads(WordTransformer.pool(model.text(hashed), hashed), stated_facts(truths, listed))
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}

    def export() -> None:
        save_module(weights, model.text, model.text.config, torch.float16)

    fit(model, losses, settings, folder, log, export)
    held_out = np.random.default_rng((seed, settings.steps))
    truths, texts = random_captions(held_out, 1024)
    with torch.inference_mode():
        listed = [words(text) for text in texts]
        hashed = batch_words(listed)
        pooled = WordTransformer.pool(model.eval().text(hashed), hashed)
        accuracy = model.heads.accuracy(pooled, stated_facts(truths, listed))
    log("accuracy on new captions: " + "  ".join(f"{name} {value:.3f}" for name, value in accuracy.items()))
    return model.text


def random_captions(random: np.random.Generator, count: int) -> tuple[list[Truth], list[str]]:
    """`count` random truths and a caption of a random style for each."""
    seeds = random.integers(0, 2**63, count)
    truths = [random_truth(int(seed)) for seed in seeds]
    styles = random.integers(0, len(STYLES), count)
    return truths, [caption(t, STYLES[s], int(n)) for t, s, n in zip(truths, styles, seeds, strict=True)]


def dropped(text: list[str], random: np.random.Generator) -> list[str]:
    """A text's words, of which half the texts lose up to 40 %: prompts are shorter and looser than captions."""
    fraction = max(0.0, random.uniform(-0.4, 0.4))
    return [word for word in text if random.random() >= fraction]
