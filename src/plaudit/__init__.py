"""Plaudit: improve text-to-music models by what people prefer."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["__version__", "load", "load_reward"]

if TYPE_CHECKING:
    from plaudit.generate.model import TextToMusic
    from plaudit.types import Reward


def load(name: str = "embedded", device: str = "auto") -> TextToMusic:
    """A ready text-to-music model: `embedded`, or a model folder. ModelError where there is none."""
    from plaudit import hub  # PyTorch is only imported once a model is asked for

    return hub.load(name, device)


def load_reward(name: str = "embedded") -> Reward:
    """A ready reward: `embedded`, a reward folder, or an installed one's name. ModelError where there is none."""
    from plaudit import hub

    return hub.load_reward_model(name)
