"""Which models are swept, by the labels of their charts and folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from plaudit import hub
from plaudit.errors import ModelError
from plaudit.generate.model import read_model_config


def swept_models(named: Sequence[str]) -> dict[str, Path]:
    """Model folders by label, of names, folders, or LABEL=NAME. ModelError where one is unknown or two have one label.

    A label that is not given is the name, or the last part of a folder's path; the last two where the last is shared.
    """
    given = [_split(one) for one in named]
    folders = [hub.model_folder(name, hub.MODELS) for _, name in given]
    for folder in folders:
        read_model_config(folder)
    short = [label or _last(name, 1) for label, name in given]
    labels = [
        one if label or short.count(one) == 1 else _last(name, 2)
        for one, (label, name) in zip(short, given, strict=True)
    ]
    for label in labels:
        if labels.count(label) > 1:
            raise ModelError(f"two models are called {label!r}; give one another name with LABEL=MODEL")
    return dict(zip(labels, folders, strict=True))


def _split(text: str) -> tuple[str, str]:
    """(label or "", name); a path that exists is one, even with an equals sign in it."""
    label, equals, name = text.partition("=")
    if not equals or Path(text).exists():
        return "", text
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", label) or not name:
        raise ModelError(f"{text!r} is no LABEL=MODEL; a label is letters, digits, dots, dashes and underscores")
    return label, name


def _last(name: str, parts: int) -> str:
    if name in hub.MODELS:
        return name
    return "-".join(Path(name).absolute().parts[-parts:])
