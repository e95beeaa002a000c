"""Commands whose options come from a settings model, help with headings and readable bounds, and checks of numbers."""

from __future__ import annotations

import functools
import inspect
import keyword
import math
import re
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from typer.core import TyperCommand, TyperGroup

from plaudit.errors import RecipeError
from plaudit.settings import MOST, MOST_SCORE, MOST_SEED, Settings, first_problem, with_changes

TYPES = {"int": "INTEGER", "integer": "INTEGER", "float": "NUMBER", "str": "TEXT", "path": "PATH", "file": "PATH"}
"""How help calls the types of values, by the last word of what Typer calls them."""


class App(typer.Typer):
    """A Typer app whose commands are of class `Command`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            **{
                "cls": Group,
                "context_settings": {"help_option_names": ["-h", "--help"]},
                "rich_markup_mode": None,
                "pretty_exceptions_enable": False,
                **settings,
            }
        )

    def command(self, name: str | None = None, **settings: Any) -> Callable[..., Any]:
        """As Typer's, with `Command` as the class."""
        return super().command(name, **{"cls": Command, **settings})


class Command(TyperCommand):
    """A command whose help groups options under their `rich_help_panel`, which plain help ignores."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        _prepare(self.params)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then the headings in order of first use, then options without a heading."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        ungrouped: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                heading = getattr(parameter, "rich_help_panel", None)
                argument = parameter.param_type_name == "argument"
                place = sections.setdefault(heading or "Arguments", []) if heading or argument else ungrouped
                place.append(record)
        last = "Other options" if len(sections) > 1 else "Options"
        for heading, records in {**sections, last: ungrouped}.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


class Group(TyperGroup):
    """A group of commands; some have options of their own."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        _prepare(self.params)


def _prepare(parameters: Any) -> None:
    for parameter in parameters:
        parameter.callback = _checking(parameter.callback)
        parameter.get_help_record = _plain(parameter.get_help_record)


def _checking(callback: Callable[..., Any] | None) -> Callable[..., Any]:
    """A parameter's callback, preceded by a check of its numbers."""

    def run(ctx: Any, parameter: Any, value: Any) -> Any:
        for one in value if isinstance(value, (list, tuple)) else [value]:
            _check_number(one, ctx, parameter)
        return value if callback is None else callback(ctx, parameter, value)

    return run


def _check_number(value: Any, ctx: Any, parameter: Any) -> None:
    """Wrong usage where a number is not finite or so large that computing with it overflows."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    most = MOST_SEED if "seed" in str(parameter.name) else MOST
    if not math.isfinite(value) or abs(value) > most:
        low, high = getattr(parameter, "min", None), getattr(parameter, "max", None)
        low, high = -most if low is None else low, most if high is None else high
        raise typer.BadParameter(f"it must be from {low:,} to {high:,}", ctx=ctx, param=parameter)


def _plain(record_of: Callable[[Any], tuple[str, str] | None]) -> Callable[[Any], tuple[str, str] | None]:
    """A parameter's help record with types and bounds in words."""

    def record(ctx: Any) -> tuple[str, str] | None:
        help_record = record_of(ctx)
        if help_record is None:
            return None
        left, right = help_record
        left = re.sub(r"<(?:list\[)?([\w.]+)(?: range)?\]?>|\b(FLOAT|INTEGER)(?: RANGE)?\b", _type, left)
        right = re.sub(r"\bx>=([-\d.e+]+)", r"at least \1", right)
        right = re.sub(r"([-\d.e+]+)<=x<=([-\d.e+]+)", r"from \1 to \2", right)
        return left, re.sub(r"\bx<=([-\d.e+]+)", r"at most \1", right)

    return record


def _type(match: re.Match[str]) -> str:
    name = (match[1] or match[2]).rpartition(".")[2].lower()
    return TYPES.get(name, match[0])


class _Null:
    """`null` on the command line: None where that is not the default."""


NULL = _Null()

Leaf = tuple[tuple[str, ...], FieldInfo, bool]
"""The path of a setting that is an option, its field, and whether its default is that of something else, as a model."""


def options(
    model: type[Settings], /, skip: Collection[str] = (), **defaults: Any
) -> Callable[..., Callable[..., None]]:
    """Add the options of a settings model to a command: one per field declared with `plaudit.settings.option`.

    The command's parameter `settings` is the model with what was typed, and last what `--set KEY.PATH=VALUE` changes.
    skip: paths that are left out. defaults: by the first name in a path, for options whose default in a command is
    another. A value that does not fit is an error of one line that names the option.
    """
    leaves = {
        _parameter(path, field): (path, field, foreign)
        for path, field, foreign in _leaves(model)
        if ".".join(path) not in skip
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        written = list(inspect.signature(command, eval_str=True).parameters.values())
        place = next(i for i, p in enumerate(written) if p.name == "settings")
        generated = [_typer_parameter(name, *leaf, defaults) for name, leaf in leaves.items()]
        has_sections = any(_section(field) for field in model.model_fields.values())
        if takes_changes := has_sections and not any(p.name == _CHANGES.name for p in written):
            generated.append(_CHANGES)
        shown = [p.replace(kind=p.KEYWORD_ONLY) for p in (*written[:place], *generated, *written[place + 1 :])]

        @functools.wraps(command)
        def run(**values: Any) -> None:
            typed: dict[str, Any] = {}
            flags = {}
            for name, (path, field, _) in leaves.items():
                value = _typed(values.pop(name), field)
                if value is not None:
                    inner = typed
                    for section in path[:-1]:
                        inner = inner.setdefault(section, {})
                    inner[path[-1]] = None if value is NULL else value
                    flags[".".join(path)] = _extra(field)["flags"][-1]
            merged = with_changes(typed, (values.pop(_CHANGES.name) if takes_changes else None) or [], "settings")
            command(settings=_settings(model, merged, flags), **values)

        run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
        run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        return run

    return decorate


def _settings(model: type[Settings], values: dict[str, Any], flags: Mapping[str, str]) -> Settings:
    """The model with these values. Invalid ones are a usage error that names the flag, or else a RecipeError."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        where, message = first_problem(model, error)
        flag = flags.get(where) or flags.get(where.rpartition(".")[0])  # of a mapping, its entry is wrong
        if flag is not None:
            raise typer.BadParameter(message, param_hint=flag) from None
        if not where and not message.startswith("unknown key"):
            raise typer.BadParameter(message) from None
        raise RecipeError(f"settings: {where + ': ' if where else ''}{message}") from None


_CHANGES = inspect.Parameter(
    "changes",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change any setting, such as sampling.steps=10. Repeatable."),
    ],
)


def _leaves(model: type[BaseModel], path: tuple[str, ...] = (), foreign: bool = False) -> Iterator[Leaf]:
    for name, field in model.model_fields.items():
        inner = _section(field)
        if "flags" in _extra(field):
            yield (*path, name), field, foreign
        elif inner is not None:
            yield from _leaves(inner, (*path, name), foreign or "default_of" in _extra(field))


def _extra(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def _alternatives(hint: Any) -> list[Any]:
    """The types of a union without None, or the type alone, without annotations."""
    if get_origin(hint) is Annotated:
        return _alternatives(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return [one for part in get_args(hint) if part is not type(None) for one in _alternatives(part)]
    return [hint]


def _is_mapping(field: FieldInfo) -> bool:
    return get_origin(_alternatives(field.annotation)[0]) is dict


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kinds = [kind for kind in _alternatives(field.annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return kinds[0] if kinds else None


def _parameter(path: tuple[str, ...], field: FieldInfo) -> str:
    """The parameter's name: the option's, or the field's where that is no name in Python."""
    name = str(max(_extra(field)["flags"], key=len)).removeprefix("--").replace("-", "_")
    return name if not keyword.iskeyword(name) else path[-1]


def _typed(value: Any, field: FieldInfo) -> Any:
    """The value that was typed on the command line, or None."""
    extra = _extra(field)
    if isinstance(value, bool):
        return None if not value else not field.default if extra["value"] is None else extra["value"]
    if isinstance(value, list):
        if _is_mapping(field):
            pairs = [text.rpartition("=") for text in value]
            if not all(name for name, _, _ in pairs):
                raise typer.BadParameter("say NAME=VALUE", param_hint=_extra(field)["flags"][-1])
            return {name: text for name, _, text in pairs} or None
        return tuple(value) or None
    return value


def _typer_parameter(
    name: str, path: tuple[str, ...], field: FieldInfo, foreign: bool, defaults: Mapping[str, Any]
) -> inspect.Parameter:
    extra, kind = _extra(field), _alternatives(field.annotation)[0]
    nullable = type(None) in get_args(field.annotation)
    default = defaults.get(name, None if foreign or field.is_required() else field.default)
    settings: dict[str, Any] = {"rich_help_panel": extra["panel"], "help": field.description}
    flag = kind is bool or extra["value"] is not None
    if foreign and default is None and not flag and "Default:" not in str(field.description):
        settings["help"] += " Default: the model's own."
    if flag:
        kind, default = bool, False
    elif _is_mapping(field):
        kind, default = list[str], None
        settings["metavar"] = "NAME=VALUE"
    elif get_origin(kind) in (tuple, list):
        kind, default = list[_alternatives(get_args(kind)[0])[0]], None  # type: ignore[misc]
    elif get_origin(kind) is Literal and not all(isinstance(choice, str) for choice in get_args(kind)):
        kind = type(get_args(kind)[0])
    elif kind in (int, float):
        settings |= _bounds(field)
    if nullable and field.default is not None and kind in (int, float):
        number = kind
        settings = {k: v for k, v in settings.items() if k not in ("min", "max")}
        settings |= {"parser": lambda text: NULL if text in ("null", "none") else number(text), "metavar": "NUMBER"}
    hint = kind if default is not None else kind | None
    required = field.is_required() and name not in defaults
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else default,
        annotation=Annotated[hint, typer.Option(*extra["flags"], **settings)],
    )


def _bounds(field: FieldInfo) -> dict[str, float]:
    """The minimum and maximum of a field, without those that only guard against overflow."""
    bounds: dict[str, float] = {}
    for constraint in _constraints(field):
        low, high = getattr(constraint, "ge", None), getattr(constraint, "le", None)
        if low is not None and abs(low) < MOST_SCORE:
            bounds["min"] = _plain_number(max(low, bounds.get("min", low)))
        if high is not None and abs(high) < MOST_SCORE:
            bounds["max"] = _plain_number(min(high, bounds.get("max", high)))
    return bounds


def _constraints(field: FieldInfo) -> Iterator[Any]:
    yield from field.metadata
    for part in get_args(field.annotation):
        if get_origin(part) is Annotated:
            for one in get_args(part)[1:]:
                yield from one.metadata if isinstance(one, FieldInfo) else [one]


def _plain_number(value: float) -> float:
    return int(value) if value == int(value) else value
