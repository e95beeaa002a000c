"""Options that several commands share, and how settings are put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from plaudit.reporting import Reporter
from plaudit.settings import Precision, Settings, merge, option, validated

if TYPE_CHECKING:
    from plaudit.reward.scoring import ContentCache

Kind = TypeVar("Kind", bound=Settings)
Cache = TypeVar("Cache", bound="ContentCache")

CLIPS, MODELS, REFERENCE = "Clips", "Models", "Reference"
"""Headings of options."""

RewardName = Annotated[
    str,
    option(
        "synthetic", "--reward", help="A known or installed reward, a reward folder, or FILE.py:CLASS.", panel="Models"
    ),
]
DEVICE_HELP = "auto (a GPU where there is one), cpu, cuda or mps."
Device = Annotated[str, option("auto", "--device", help=DEVICE_HELP)]
ScorePrecision = Annotated[
    Precision,
    option("no", "--precision", help="Of the encoders' networks: bf16, which large ones are faster in; no: float32."),
]  # fmt: skip
Engine = Annotated[
    Literal["local", "ray"],
    option("local", "--engine", help="local: this process. ray: many, here or on a cluster."),
]
RayAddress = Annotated[
    str | None, option(None, "--ray-address", help="Address of a Ray cluster. Default: one is started here.")
]
UseCache = Annotated[
    bool, option(True, "--no-cache", value=False, help="Neither read nor write the cache in the user's cache folder.")
]


def advancing(files: Iterator[Path], total: int, advance: Any) -> Iterator[Path]:
    """The files as they come; advance(done, total) is called before each."""
    for done, file in enumerate(files, start=1):
        advance(done, total)
        yield file


@contextmanager
def user_cache(kind: type[Cache], used: bool, reporter: Reporter) -> Iterator[Cache | None]:
    """The user's cache of scores or embeddings, closed at the end; None where it is not used."""
    cache = kind.of_user(reporter.note) if used else None
    try:
        yield cache
    finally:
        if cache is not None:
            cache.close()


def build_settings(kind: type[Kind], settings: Kind | None, changes: Mapping[str, Any]) -> Kind:
    """The settings with changes by name; RecipeError in one line where one is unknown or does not fit."""
    if settings is not None and not changes:
        return settings
    values = {} if settings is None else settings.model_dump(exclude_unset=True)
    merge(values, changes)
    return validated(kind, values, kind.__name__)
