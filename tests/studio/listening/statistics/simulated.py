"""Answers of a listening test, simulated and by hand."""

from __future__ import annotations

import math

import numpy as np

from plaudit.studio.listening.statistics.answers import Answer


def answer(a: str, b: str, winner: str, listener: str = "l", prompt: str = "p", **more: object) -> Answer:
    """An answer about the clips of two systems for a prompt."""
    return Answer(listener, f"{prompt}-{a}-{b}", prompt, f"{a}/{prompt}", f"{b}/{prompt}", a, b, winner, **more)  # type: ignore[arg-type]


def simulated(
    strengths: dict[str, float], listeners: int, each: int, seed: int = 0, tie: float = 0.0, spread: float = 0.0
) -> list[Answer]:
    """Answers by Davidson's model; `spread`: of each listener's own taste for each system."""
    random = np.random.default_rng(seed)
    names, answers = list(strengths), []
    for listener in range(listeners):
        own = {name: value + spread * random.normal() for name, value in strengths.items()}
        for number in range(each):
            a, b = random.choice(names, 2, replace=False)
            weights = [math.exp(own[a]), math.exp(own[b]), tie * math.exp((own[a] + own[b]) / 2)]
            winner = random.choice(["a", "b", "tie"], p=np.array(weights) / sum(weights))
            answers.append(answer(a, b, winner, f"l{listener}", f"p{number}"))
    return answers
