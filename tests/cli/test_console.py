"""Command lines in messages."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from plaudit.cli.console import as_invoked

COMMAND = "plaudit generate hi --model runs/plaudit"


@pytest.mark.parametrize("on_path", [True, False])
def test_a_command_is_named_as_the_shell_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_path: bool
) -> None:
    program = tmp_path / "my venv" / "bin" / "plaudit"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("PATH", str(program.parent) if on_path else os.defpath)
    monkeypatch.chdir(tmp_path)
    for started in (program, Path("my venv/bin/plaudit")):
        monkeypatch.setattr(sys, "argv", [str(started), "demo"])
        assert as_invoked(COMMAND) == (COMMAND if on_path else f"'my venv/bin/plaudit' {COMMAND.split(' ', 1)[1]}")
    monkeypatch.setattr(sys, "argv", [str(program), "demo"])
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert as_invoked(COMMAND).startswith("plaudit generate" if on_path else f"'{program}' generate")


def test_a_module_is_named_by_its_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/plaudit/__main__.py"])
    assert as_invoked(COMMAND) == f"{sys.executable} -m plaudit generate hi --model runs/plaudit"
