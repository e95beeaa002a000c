"""The base of every validated settings section, the number ranges they share, and changes by `key.path=value`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plaudit.errors import RecipeError

Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """Base of every section: unknown keys are errors, values don't change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Section = TypeVar("Section", bound=Settings)


def validated(kind: type[Section], values: Mapping[Any, Any], source: str) -> Section:
    """Settings from plain data; RecipeError with the first problem, in one line that begins with `source`."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        # A misspelt key also leaves the right one missing; the misspelling is the better news.
        unknown = ("extra_forbidden", "unexpected_keyword_argument")
        first = next((e for e in error.errors() if e["type"] in unknown), error.errors()[0])
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] in unknown:
            raise RecipeError(f"{source}: unknown key {where}{_suggestion(kind, first['loc'])}") from None
        got = "" if isinstance(first["input"], dict) else f" (got {first['input']!r})"
        message = first["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{source}: {where + ': ' if where else ''}{message}{got}") from None


def with_changes(values: Any, changes: Sequence[str], source: str) -> dict[Any, Any]:
    """Plain settings, nested mappings, after `key.path=value` changes whose values are YAML.

    RecipeError, in one line, for a change that cannot be read.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        merged = OmegaConf.merge(OmegaConf.create(values), OmegaConf.from_dotlist(list(changes)))
        found = OmegaConf.to_container(merged, resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"{source} or a --set value is not readable as settings: {reason}") from None
    assert isinstance(found, dict)
    return found


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name that a misspelt one was probably meant to be."""
    near = difflib.get_close_matches(name, known, 1, 0.5)
    return near[0] if near else None


def _suggestion(section: type, location: tuple[int | str, ...]) -> str:
    """The nearest known key beside the unknown one at `location`, or the list of known ones."""
    for part in location[:-1]:
        hint = get_type_hints(section)[str(part)]
        section = next(c for c in (hint, *get_args(hint)) if isinstance(c, type) and c is not type(None))
    known = [name for name in get_type_hints(section) if not name.startswith("_") and name != "model_config"]
    near = nearest(str(location[-1]), known)
    return f"; did you mean {near}?" if near else f"; known keys here are {', '.join(known)}"
