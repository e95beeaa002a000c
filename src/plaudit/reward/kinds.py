"""The kinds of rewards: what reads each kind of reward folder, and rewards that other packages bring."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name

from plaudit.assets import read_json
from plaudit.code_digest import outside_digest
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
    return _called(point, f"installed reward {point.name!r} ({point.value})")


def is_in_module(name: str) -> bool:
    """Whether a reward is named by its place in Python code, as MODULE:CLASS."""
    return re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", name) is not None


def load_from_module(name: str) -> Reward:
    """The reward that MODULE:CLASS, or any callable there without arguments, returns.

    Modules are looked for in the working folder too. ModelError where the module fails or gives something else.
    """
    with _importing_from_here():
        return _called(EntryPoint(name, name, GROUP), f"reward {name!r}")


def module_digest(name: str) -> str:
    """A digest of the code of a reward named as MODULE:CLASS; "none" where the module is not found."""
    with _importing_from_here():
        try:
            return "none" if find_spec(name.partition(":")[0]) is None else outside_digest(name)
        except (ImportError, ValueError):
            return "none"


@contextmanager
def _importing_from_here() -> Iterator[None]:
    """Find modules of the working folder, which an installed command would not, after all others."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _called(point: EntryPoint, what: str) -> Reward:
    try:
        made = point.load()()
    except Exception as error:  # whatever a foreign package raises is for the user to take there
        raise ModelError(f"{what} fails: {error!r}; correct its code") from error
    if not callable(getattr(made, "score", None)):
        raise ModelError(f"{what} has no method score; it is not a Reward")
    typed: Reward = made
    return typed
