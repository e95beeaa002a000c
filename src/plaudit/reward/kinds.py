"""The kinds of rewards: what reads each kind of reward folder, and rewards that other packages bring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from pkgutil import resolve_name

from plaudit.assets import read_json
from plaudit.errors import ModelError
from plaudit.types import AudioEmbedder, Embedder, Reward

GROUP = "plaudit.rewards"
"""The entry point group of installed rewards: name -> callable without arguments that returns a Reward."""

KINDS = {
    "tunejury": "plaudit.reward.scorer:load_tunejury",
    "clap": "plaudit.reward.clap_cosine:load_clap_cosine",
    "sum": "plaudit.reward.weighted_sum:load_weighted_sum",
}
"""For each kind that a reward folder's config.json can have, what reads the folder, as "module:function"."""


@dataclass(frozen=True)
class Sources:
    """Where a reward folder finds what it names: a CLAP, a second listener, or another reward, by name."""

    clap: Callable[[str], Embedder]
    audio: Callable[[str], AudioEmbedder]
    reward: Callable[[str], Reward]


def read_reward(folder: Path, sources: Sources) -> Reward:
    """The reward in a folder; ModelError where it is damaged or of an unknown kind."""
    config = read_json(folder / "config.json")
    kind = config.get("kind") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise ModelError(f"{folder} is of kind {kind!r}, not a reward; its kind must be one of {', '.join(KINDS)}")
    reward: Reward = resolve_name(KINDS[kind])(folder, sources)
    return reward


def installed_rewards() -> dict[str, EntryPoint]:
    """The rewards that installed packages bring, by name."""
    return {point.name: point for point in entry_points(group=GROUP)}


def load_installed(point: EntryPoint) -> Reward:
    """An installed package's reward; ModelError where the package fails or gives something else."""
    try:
        reward = point.load()()
    except Exception as error:  # whatever a foreign package raises is for the user to take there
        raise ModelError(f"installed reward {point.name!r} ({point.value}) fails: {error!r}; mend it") from error
    if not callable(getattr(reward, "score", None)):
        raise ModelError(f"installed reward {point.name!r} ({point.value}) has no method score; it is not a Reward")
    typed: Reward = reward
    return typed
