"""A clip's truth as training targets, and the heads that predict it from an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plaudit.encoders.words import words
from plaudit.synthetic.captions import GENRE_WORDS, INSTRUMENT_WORDS, MOOD_WORDS, TEMPO_WORDS
from plaudit.synthetic.truth import GENRES, INSTRUMENTS, KEYS, MODES, MOODS, TEMPO_RANGE, Truth

TEMPO_STEP = 10
"""Width of a tempo class in beats per minute."""

UNSTATED = -100
"""The class number of a fact that a text does not state; losses ignore it."""


@dataclass(frozen=True)
class Facts:
    """Class numbers genre, mood, tempo, key and mode [B], UNSTATED allowed, and instruments [B, 17] as 0 and 1."""

    genre: Tensor
    mood: Tensor
    tempo: Tensor
    key: Tensor
    mode: Tensor
    instruments: Tensor


def facts_of(truths: Sequence[Truth]) -> Facts:
    """Targets of all facts of `truths`."""
    return Facts(
        genre=torch.tensor([GENRES.index(truth.genre) for truth in truths]),
        mood=torch.tensor([MOODS.index(truth.mood) for truth in truths]),
        tempo=torch.tensor([(truth.tempo - TEMPO_RANGE[0]) // TEMPO_STEP for truth in truths]),
        key=torch.tensor([KEYS.index(truth.key) for truth in truths]),
        mode=torch.tensor([MODES.index(truth.mode) for truth in truths]),
        instruments=torch.tensor([[float(name in truth.instruments) for name in INSTRUMENTS] for truth in truths]),
    )


def stated_facts(truths: Sequence[Truth], texts: Sequence[Sequence[str]]) -> Facts:
    """Targets of those facts of `truths` that `texts`, lists of words, state.

    Facts that are not stated would be label noise on every word; with it, the rare key was never learned.
    """
    facts = facts_of(truths)
    for row, (truth, text) in enumerate(zip(truths, texts, strict=True)):
        line = f" {' '.join(text)} "
        paces = next(paces for limit, paces in TEMPO_WORDS if truth.tempo < limit)
        named = {
            "genre": _names(line, GENRE_WORDS[truth.genre]),
            "mood": _names(line, MOOD_WORDS[truth.mood]),
            "tempo": _names(line, (f"{truth.tempo}", *paces)),
            "key": _names(line, (f"key{truth.key.lower()}",)),
            "mode": _names(line, (truth.mode,)),
        }
        for name, is_named in named.items():
            if not is_named:
                getattr(facts, name)[row] = UNSTATED
        for column, name in enumerate(INSTRUMENTS):
            if not _names(line, INSTRUMENT_WORDS[name]):
                facts.instruments[row, column] = 0
    return facts


def _names(line: str, phrases: Sequence[str]) -> bool:
    return any(f" {' '.join(words(phrase))} " in line for phrase in phrases)


class FactHeads(nn.Module):
    """A linear classifier per fact of a vector [B, width]; used in training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        classes = {
            "genre": len(GENRES),
            "mood": len(MOODS),
            "tempo": (TEMPO_RANGE[1] - TEMPO_RANGE[0]) // TEMPO_STEP + 1,
            "key": len(KEYS),
            "mode": len(MODES),
            "instruments": len(INSTRUMENTS),
        }
        self.heads = nn.ModuleDict({name: nn.Linear(width, count) for name, count in classes.items()})

    def forward(self, x: Tensor, facts: Facts) -> dict[str, Tensor]:
        """Mean cross-entropy of each fact where it is stated; for instruments, summed over the instruments."""
        losses = {}
        for name, head in self.heads.items():
            logits, target = head(x).float(), getattr(facts, name)
            if name == "instruments":
                losses[name] = F.binary_cross_entropy_with_logits(logits, target) * len(INSTRUMENTS)
            else:
                count = (target != UNSTATED).sum().clamp(min=1)
                losses[name] = F.cross_entropy(logits, target, ignore_index=UNSTATED, reduction="sum") / count
        return losses

    @torch.inference_mode()
    def accuracy(self, x: Tensor, facts: Facts) -> dict[str, float]:
        """Accuracy of each fact where it is stated; instruments are counted one by one."""
        accuracy = {}
        for name, head in self.heads.items():
            logits, target = head(x), getattr(facts, name)
            correct = (logits > 0).float() == target if name == "instruments" else logits.argmax(1) == target
            accuracy[name] = float(correct[target != UNSTATED].float().mean())
        return accuracy
