"""Every benchmark starts and explains itself."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import benchmarks

FOLDER = Path(next(iter(benchmarks.__path__)))
COMMANDS = sorted(path.stem for path in FOLDER.glob("*.py") if "typer.run(main)" in path.read_text())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_the_docstring_of_the_command(name: str) -> None:
    command = importlib.import_module(f"benchmarks.{name}").main
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0, result.output
    assert str(command.__doc__).split()[0] in result.output


def test_every_script_with_a_main_is_such_a_command() -> None:
    scripts = {path.stem for path in FOLDER.glob("*.py") if "__main__" in path.read_text()}
    assert scripts - set(COMMANDS) <= {"gpu"}
