"""Where models are: those that the package brings, by name, and the user's folders.

Separate from `storage` and `loading`, which import PyTorch.
"""

from __future__ import annotations

import os
from pathlib import Path

from plaudit.errors import ModelError

SHIPPED_WEIGHTS = Path(__file__).parent / "weights"
"""The synthetic world's weights: codec, text, clap, probes, reward, model."""

SHIPPED_MODELS = {
    "synthetic": SHIPPED_WEIGHTS / "model",
    "synthetic-base": SHIPPED_WEIGHTS / "base",
    "synthetic-distilled": SHIPPED_WEIGHTS / "distilled",
}
SHIPPED_REWARDS = {"synthetic": SHIPPED_WEIGHTS / "reward", "synthetic-clap": SHIPPED_WEIGHTS / "clap-reward"}


def models_dir() -> Path:
    """Where fetched and imported models are kept: $PLAUDIT_MODELS, or `plaudit/models` in the user's cache folder.

    ModelError where the user has no home folder.
    """
    if chosen := os.environ.get("PLAUDIT_MODELS"):
        return _expanded(chosen)
    return cache_dir() / "models"


def user_model(name: str) -> Path | None:
    """The folder of a fetched or imported model; None where there is none of this name, or no home folder at all."""
    try:
        folder = models_dir() / name
    except ModelError:
        return None
    return folder if is_model_folder(folder) else None


def is_model_folder(folder: Path) -> bool:
    """Whether a folder holds a model of any kind."""
    return os.path.isfile(folder / "config.json")


def cache_dir() -> Path:
    """Plaudit's folder in the user's cache folder: $XDG_CACHE_HOME, or ~/.cache.

    ModelError where the user has no home folder.
    """
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "plaudit"


def _expanded(path: str) -> Path:
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):  # a user without HOME and without an entry in passwd, as in many containers
        raise ModelError(f"this user has no home folder, in which {path} would be; set HOME or XDG_CACHE_HOME")
    return Path(expanded)
