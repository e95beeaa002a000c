"""The base of every command: help with headings and plain bounds, `-h`, and options whose numbers are finite."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

TYPES = {"int": "INTEGER", "integer": "INTEGER", "float": "NUMBER", "str": "TEXT", "path": "PATH", "file": "PATH"}
"""How help calls the types of values, by the last word of what Typer calls them."""


class App(typer.Typer):
    """A group of commands that are all of this package's kind."""

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
        """As of Typer, but for the class of the command."""
        return super().command(name, **{"cls": Command, **settings})


class Command(TyperCommand):
    """A command. Its options stand under headings, those of `rich_help_panel`, which plain help would leave out."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        _prepare(self.params)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then each heading in the order in which the command first uses it; those without one at last."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        rest: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                heading = getattr(parameter, "rich_help_panel", None)
                argument = parameter.param_type_name == "argument"
                place = sections.setdefault(heading or "Arguments", []) if heading or argument else rest
                place.append(record)
        last = "Other options" if len(sections) > 1 else "Options"
        for heading, records in {**sections, last: rest}.items():
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
    """The callback of a parameter, after a look at the numbers it was given."""

    def run(ctx: Any, parameter: Any, value: Any) -> Any:
        for one in value if isinstance(value, (list, tuple)) else [value]:
            _check_number(one, ctx, parameter)
        return value if callback is None else callback(ctx, parameter, value)

    return run


def _check_number(value: Any, ctx: Any, parameter: Any) -> None:
    """Wrong usage where a number is not finite or so large that computing with it overflows."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    from plaudit.settings import MOST, MOST_SEED

    most = MOST_SEED if "seed" in str(parameter.name) else MOST
    if not math.isfinite(value) or abs(value) > most:
        low, high = getattr(parameter, "min", None), getattr(parameter, "max", None)
        low, high = -most if low is None else low, most if high is None else high
        raise typer.BadParameter(f"it must be from {low:,} to {high:,}", ctx=ctx, param=parameter)


def _plain(record_of: Callable[[Any], tuple[str, str] | None]) -> Callable[[Any], tuple[str, str] | None]:
    """What a parameter says of itself in help, with types and bounds in words."""

    def record(ctx: Any) -> tuple[str, str] | None:
        found = record_of(ctx)
        if found is None:
            return None
        left, right = found
        left = re.sub(r"<(?:list\[)?([\w.]+)(?: range)?\]?>|\b(FLOAT|INTEGER)(?: RANGE)?\b", _type, left)
        right = re.sub(r"\bx>=([-\d.e+]+)", r"at least \1", right)
        right = re.sub(r"([-\d.e+]+)<=x<=([-\d.e+]+)", r"from \1 to \2", right)
        return left, re.sub(r"\bx<=([-\d.e+]+)", r"at most \1", right)

    return record


def _type(match: re.Match[str]) -> str:
    name = (match[1] or match[2]).rpartition(".")[2].lower()
    return TYPES.get(name, match[0])
