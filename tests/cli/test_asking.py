"""Questions before something is replaced: asked at a real terminal, answered by --yes, and never by silence."""

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
print("ANSWER", approval(False)([Outlook("crpo", "replaced", ("beta was 1, is now 2",))]))
"""


@pytest.mark.parametrize(("typed", "answer"), [("y\n", "True"), ("n\n", "False"), ("\n", "False")])
def test_a_person_at_a_terminal_is_asked(typed: str, answer: str) -> None:
    mine, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while b"[y/N]" not in shown:
        shown += os.read(mine, 1000)
    os.write(mine, typed.encode())
    try:
        while b"ANSWER" not in shown or not shown.endswith(b"\n"):
            shown += os.read(mine, 1000)
    except OSError:  # the terminal closes with the process
        pass
    process.wait()
    os.close(mine)
    assert b"would be replaced:\r\n  crpo: beta was 1, is now 2" in shown and f"ANSWER {answer}".encode() in shown


def test_nobody_at_no_terminal_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
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
    with pytest.raises(RunError, match="neither empty nor a folder that plaudit made") as told:
        app([*command, "-o", str(tmp_path)], standalone_mode=False)
    assert "\n" not in str(told.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["report", "reward", "shards", "thesis.tex", "votes"]
