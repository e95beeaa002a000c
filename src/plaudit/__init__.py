"""Plaudit: improve text-to-music models by what people prefer.

The commands as functions, each with its settings (plaudit.api), and models by name (plaudit.loading). All of it is
imported when it is first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_MODULES = {
    "plaudit.api": (
        *("generate", "score", "rank", "evaluate", "compare", "run"),
        *("GenerateSettings", "ScoreSettings", "RankSettings", "EvaluateSettings", "CompareSettings", "RunSettings"),
    ),
    "plaudit.errors": ("PlauditError",),
    "plaudit.loading": ("load", "load_reward"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
__all__ = ["__version__", *_MODULE_OF]

if TYPE_CHECKING:
    from plaudit.api import (  # noqa: F401  # noqa: F401
        EvaluateSettings,
        GenerateSettings,
        RankSettings,
        ScoreSettings,
        evaluate,
        generate,
        rank,
        score,
    )
    from plaudit.errors import PlauditError  # noqa: F401
    from plaudit.loading import load, load_reward  # noqa: F401


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'plaudit' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


class _Package(ModuleType):
    """The package, in which functions are not replaced by subpackages of the same name when these are imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _MODULE_OF or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
