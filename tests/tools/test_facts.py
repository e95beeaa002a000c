"""Training targets: what a caption says, and only that."""

from __future__ import annotations

import torch

from plaudit.encoders.words import words
from plaudit.synthetic.truth import GENRES, INSTRUMENTS, KEYS, MOODS, Truth
from tools.synthetic.facts import UNSTATED, FactHeads, facts_of, stated_facts

TRUTH = Truth("jazz", "sad", ("piano", "upright bass"), 92, "F#", "minor")


def test_facts_of() -> None:
    facts = facts_of([TRUTH])
    assert GENRES[int(facts.genre)] == "jazz" and MOODS[int(facts.mood)] == "sad"
    assert KEYS[int(facts.key)] == "F#" and int(facts.tempo) == 3
    assert [name for name, there in zip(INSTRUMENTS, facts.instruments[0], strict=True) if there] == [
        "piano",
        "upright bass",
    ]


def test_only_what_is_said_counts() -> None:
    text = words("A mournful tune with grand piano in F# minor.")
    facts = stated_facts([TRUTH], [text])
    assert int(facts.genre) == UNSTATED and int(facts.tempo) == UNSTATED
    assert MOODS[int(facts.mood)] == "sad" and KEYS[int(facts.key)] == "F#"
    assert float(facts.instruments.sum()) == 1  # the bass goes unnamed
    assert int(stated_facts([TRUTH], [words("jazz in a minor key, 92 bpm")]).key) == UNSTATED


def test_unsaid_facts_give_no_gradient() -> None:
    facts = stated_facts([TRUTH, TRUTH], [words("jazz"), words("jazz")])
    x = torch.randn(2, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    losses = FactHeads(8)(x, facts)
    assert losses["key"].item() == 0.0 and losses["genre"].item() > 0.0
    (gradient,) = torch.autograd.grad(losses["key"], x)
    assert float(gradient.abs().sum()) == 0.0
