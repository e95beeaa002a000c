"""Confirmation before results are replaced: at a real terminal or by --yes."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from plaudit.cli.console import agreed, approval
from plaudit.cli.main import app
from plaudit.errors import RunError
from plaudit.pipeline.runner import Outlook

SCRIPT = """
from plaudit.pipeline.runner import Outlook
from plaudit.cli.console import approval
for _ in range(3):
    print("ANSWER", approval(False)([Outlook("crpo", "replaced", ("beta was 1, is now 2",))]))
"""


def test_replacing_needs_confirmation_at_a_terminal() -> None:
    mine, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    for typed, answer in (("y\n", b"True"), ("n\n", b"False"), ("\n", b"False")):
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(mine, 1000)
        assert b"would be replaced:\r\n  crpo: beta was 1, is now 2" in shown
        os.write(mine, typed.encode())
        shown = b""
        try:
            while b"ANSWER" not in shown or not shown.endswith(b"\n"):
                shown += os.read(mine, 1)
        except OSError:  # the terminal closes with the process
            pass
        assert b"ANSWER " + answer in shown
    process.wait()
    os.close(mine)


def test_without_a_terminal_replacing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    lost = [Outlook("crpo", "replaced", ("beta was 1, is now 2",))]
    assert not approval(False)(lost) and not agreed(False, ["x"])
    assert capsys.readouterr() == ("", "")
    assert approval(True)(lost)


@pytest.mark.parametrize("command", [["run", "smoke"], ["demo"], ["run", "smoke", "--dry-run"],
                                     ["sweep", "injections", "--recipe", "smoke"]])  # fmt: skip
def test_users_folders_are_refused_by_every_command_that_runs(command: list[str], tmp_path: Path) -> None:
    for name in ("report", "votes", "reward", "shards"):
        (tmp_path / name).mkdir()
    (tmp_path / "report" / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match="neither empty nor a folder that plaudit made") as error:
        app([*command, "-o", str(tmp_path)], standalone_mode=False)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["report", "reward", "shards", "thesis.tex", "votes"]
