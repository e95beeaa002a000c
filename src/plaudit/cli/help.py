"""Help whose options stand under headings: those of `rich_help_panel`, which plain help would leave out."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


class GroupedHelp(TyperCommand):
    """A command with more options than can be read in one list."""

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
        for heading, records in {**sections, "Other options": rest}.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
