"""Validated settings: their base, number ranges, changes by `key.path=value`, and YAML that preserves text as written.

Of a YAML scalar without quotes both text and value are kept: whether `007` is a number or a name, its field decides.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from plaudit.errors import RecipeError

MOST = 10**9
"""Bound of counts and factors (ours): larger ones are mistakes, and overflow in computations."""

MOST_SEED = 2**63 - 1
"""Bound of seeds: what follows from a seed by counting on still fits the 64 bits that generators take."""

Count = Annotated[int, Field(ge=1, le=MOST)]
CountOrZero = Annotated[int, Field(ge=0, le=MOST)]
Positive = Annotated[float, Field(gt=0, le=MOST)]
NotNegative = Annotated[float, Field(ge=0, le=MOST)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]

MOST_SCORE = 1e6
Score = Annotated[float, Field(ge=-MOST_SCORE, le=MOST_SCORE)]
"""A conditioning score, in the reward's units."""

MOST_SECONDS = 3600.0
Seconds = Annotated[float, Field(gt=0, le=MOST_SECONDS)]
"""Length of a piece; an hour at most (ours), as a piece is held in memory whole."""

Precision = Literal["bf16", "no"]
"""What autocast lowers to."""


Peak = Annotated[float, Field(gt=0, le=1)]
"""A largest absolute sample."""

Place = Literal["spread", "start", "random", "published"]
"""Where in a recording its clips are."""

Duplicates = Literal["together", "drop", "separate"]
"""What becomes of files with the same content: in one split, only the first, or as if they were different."""

BothBad = Literal["leave-out", "tie"]
"""What becomes of votes that find both clips bad: left out, as of Music Arena's own leaderboard, or ties."""


class Settings(BaseModel):
    """Base of every section: unknown keys are errors, numbers are finite, values don't change after validation.

    A scalar of YAML becomes what the field's type takes: text stays as it was written.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _coerce_scalars(cls, values: Any) -> Any:
        if isinstance(values, PlainScalar):
            values = values.value
        if not isinstance(values, Mapping):
            return values
        fields = cls.model_fields
        return {
            str(name): _coerced(value, fields[str(name)].annotation if str(name) in fields else Any)
            for name, value in values.items()
        }


def option(default: Any, *flags: str, help: str, panel: str | None = None, value: Any = None, **bounds: Any) -> Any:
    """A field that is an option of a command too: its flags, its help and its heading there.

    value: the value of a flag given without one, where that isn't True. bounds: as of pydantic's Field.
    """
    return Field(
        default, description=help, json_schema_extra={"flags": [*flags], "panel": panel, "value": value}, **bounds
    )


Section = TypeVar("Section", bound=Settings)


def validated(kind: type[Section], values: Mapping[Any, Any], source: str) -> Section:
    """Settings from plain data; RecipeError with the first problem, in one line that begins with `source`."""
    try:
        return kind.model_validate(values)
    except RecursionError:
        raise RecipeError(f"{source}: the settings are nested too deep") from None
    except ValidationError as error:
        where, message = first_problem(kind, error)
        raise RecipeError(f"{source}: {where + ': ' if where else ''}{message}") from None


def first_problem(kind: type[Section], error: ValidationError) -> tuple[str, str]:
    """The path of the setting that is wrong, "" where several don't fit together, and what is wrong with it."""
    # A misspelt key also leaves the right one missing; the misspelling is the better news.
    unknown = ("extra_forbidden", "unexpected_keyword_argument")
    first = next((e for e in error.errors() if e["type"] in unknown), error.errors()[0])
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] in unknown:
        return "", f"unknown key {where}{_suggestion(kind, first['loc'])}"
    got = "" if isinstance(first["input"], (dict, BaseModel)) else f" (got {shortened(repr(first['input']))})"
    return where, " ".join(first["msg"].removeprefix("Value error, ").split()) + got


def with_changes(values: Mapping[Any, Any], changes: Sequence[str], source: str) -> dict[Any, Any]:
    """Plain settings, nested mappings, after `key.path=value` changes whose values are YAML.

    A mapping is merged into one that is there. RecipeError, in one line, for a change that has no key or value.
    """
    changed = _copied(values)
    for change in changes:
        path, equals, text = change.partition("=")
        names = path.strip().split(".")
        if not equals or not all(names):
            raise RecipeError(f"{source}: --set {change!r} is not KEY.PATH=VALUE, e.g. --set sampling.steps=25")
        place = changed
        for name in names[:-1]:
            inner = plain(place.get(name))
            place[name] = dict(inner) if isinstance(inner, Mapping) else {}
            place = place[name]
        merge(place, {names[-1]: parse_scalar(text)})
    return changed


def nearest(name: str, names: Sequence[str]) -> str | None:
    """The one of `names` closest to a misspelt name."""
    near = difflib.get_close_matches(name, names, 1, 0.5)
    return near[0] if near else None


def shortened(text: str, length: int = 80) -> str:
    """The beginning of a text that may be of any length."""
    return text if len(text) <= length else f"{text[:length]}..."


def _copied(values: Mapping[Any, Any]) -> dict[Any, Any]:
    return {name: _copied(value) if isinstance(value, Mapping) else value for name, value in values.items()}


def merge(place: dict[Any, Any], values: Mapping[Any, Any]) -> None:
    """Merge values into a mapping, recursively."""
    for name, value in values.items():
        inner = plain(value)
        if isinstance(inner, Mapping) and isinstance(place.get(name), dict):
            merge(place[name], inner)
        else:
            place[name] = value


def _coerced(value: Any, hint: Any) -> Any:
    """A value converted for a field of this type; ValueError for invalid YAML where the field takes no text."""
    hints = _alternatives(hint)
    if isinstance(value, PlainScalar):
        if _is_text(value, hints):
            return str(value)
        value = value.value
    if isinstance(value, InvalidYaml):
        raise ValueError(str(value))
    if any(isinstance(one, type) and issubclass(one, BaseModel) for one in hints):
        return value  # its fields coerce what it holds
    inner = _elements(hints)
    if isinstance(value, list):
        return [_coerced(one, inner) for one in value]
    if isinstance(value, dict):
        return {str(name): _coerced(one, inner) for name, one in value.items()}
    return value


def _is_text(value: PlainScalar, hints: Sequence[Any]) -> bool:
    """Whether a field of one of these types takes the text rather than the parsed value."""
    choices = [choice for hint in hints if get_origin(hint) is Literal for choice in get_args(hint)]
    kinds = {hint for hint in hints if isinstance(hint, type)} | {type(choice) for choice in choices}
    return bool(kinds & {str, Path}) and type(value.value) not in kinds - {str, Path}


def _alternatives(hint: Any) -> list[Any]:
    """The types that a hint allows: those of a union, without annotations."""
    if get_origin(hint) is Annotated:
        return _alternatives(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return [one for part in get_args(hint) for one in _alternatives(part)]
    return [hint]


def _elements(hints: Sequence[Any]) -> Any:
    """The type of what a list, tuple or mapping of one of these types holds."""
    for hint in hints:
        if get_origin(hint) in (list, tuple, dict):
            return next((one for one in reversed(get_args(hint)) if one is not Ellipsis), Any)
    return Any


def _suggestion(section: type, location: tuple[int | str, ...]) -> str:
    """The nearest known key beside the unknown one at `location`, or the list of known ones."""
    for part in location[:-1]:
        inner = _alternatives(get_type_hints(section).get(str(part)))
        sections = [one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)]
        if not sections:
            return ""
        section = sections[0]
    keys = [name for name in get_type_hints(section) if not name.startswith("_") and name != "model_config"]
    near = nearest(str(location[-1]), keys)
    return f"; did you mean {near}?" if near else f"; known keys here are {', '.join(keys)}"


class PlainScalar(str):
    """An unquoted YAML scalar: its text, and its parsed `value`."""

    value: Any

    def __new__(cls, text: str, value: Any) -> PlainScalar:
        """The text with its value."""
        scalar = super().__new__(cls, text)
        scalar.value = value
        return scalar


def plain(value: Any) -> Any:
    """A setting as YAML reads it."""
    return value.value if isinstance(value, PlainScalar) else value


class InvalidYaml(str):
    """Text that is not valid YAML, with the reason."""


def read_yaml(data: bytes | str) -> Any:
    """The content of a YAML document: plain scalars as PlainScalar unless they are texts anyway, keys as texts.

    yaml.YAMLError where it is malformed, names a key twice, or is nested too deep.
    """
    try:
        return yaml.load(data, _Loader)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deep") from None


def parse_scalar(text: str) -> Any:
    """A value as `--set` takes it; of quoted text, what stands in the quotes."""
    try:
        value = read_yaml(text)
    except yaml.YAMLError as error:
        value = InvalidYaml(f"not readable as YAML: {' '.join(str(error).split())}")
    if text.strip()[:1] in ("'", '"') and type(value) is str:
        return value
    return PlainScalar(text, plain(value))


def _tag(kind: str) -> str:
    return f"tag:yaml.org,2002:{kind}"


class _Loader(yaml.SafeLoader):
    """SafeLoader with the changes described at `read_yaml`; `1e3` is a number, as in YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Keys are texts, and none is there twice."""
        self.flatten_mapping(node)
        content: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            if key_node.value in content and value_node is not None:
                problem = f"the key {key_node.value!r} stands there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            content[key_node.value] = self.construct_object(value_node, deep=True)
        return content

    def construct_plain(self, node: yaml.ScalarNode) -> Any:
        """Text and value of a plain scalar that SafeLoader takes for a number, a date, a truth value or null."""
        kind = node.tag.rpartition(":")[2]
        try:
            value = getattr(yaml.SafeLoader, f"construct_yaml_{kind}")(self, node)
        except (ValueError, KeyError, AttributeError, IndexError, OverflowError):  # 2024-99-99, !!int word
            value = node.value
        return PlainScalar(node.value, value)

    def construct_text(self, node: yaml.ScalarNode) -> str:
        """The text of `=` and `<<`, which mean something as keys alone."""
        return str(node.value)

    yaml_constructors: ClassVar[dict[str, Any]] = {
        **yaml.SafeLoader.yaml_constructors,
        **dict.fromkeys(map(_tag, ("int", "float", "bool", "null", "timestamp")), construct_plain),
        **dict.fromkeys(map(_tag, ("value", "merge")), construct_text),
        _tag("map"): construct_mapping,
    }


_Loader.add_implicit_resolver(
    _tag("float"), re.compile(r"^[-+]?(?:\d[\d_]*\.?[\d_]*|\.[\d_]+)[eE][-+]?\d+$"), list("-+.0123456789")
)
