"""Plaudit: improve text-to-music models by what people prefer."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["__version__", "load", "load_reward"]

if TYPE_CHECKING:
    from plaudit.generate.model import TextToMusic
    from plaudit.types import Reward


def load(name: str = "synthetic", device: str = "auto") -> TextToMusic:
    """A ready text-to-music model: `synthetic`, or a model folder. ModelError where there is none."""
    from plaudit import loading

    return loading.load(name, device)


def load_reward(name: str = "synthetic") -> Reward:
    """A ready reward: `synthetic`, a reward folder, or an installed one's name. ModelError where there is none."""
    from plaudit import loading

    return loading.load_reward(name)
