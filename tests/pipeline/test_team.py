"""Waiting for the leading process, with one process and with two."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from plaudit.training.loop import ProcessGroup, accelerator_for

SCRIPT = """
import sys, time
from pathlib import Path
from plaudit.training.loop import ProcessGroup, accelerator_for
folder = Path(sys.argv[1])
with ProcessGroup(accelerator_for("no")) as team:
    assert team.broadcast("lead's" if team.is_main else "other's") == "lead's"
    with team.main_process_first():
        if team.is_main:
            time.sleep(0.5)
            (folder / "provenance").write_text("")
        assert (folder / "provenance").exists()
    team.barrier()
    (folder / f"done-{team.is_main}").write_text("")
"""


def test_one_process_leads_and_waits_for_nobody() -> None:
    with ProcessGroup(accelerator_for("no")) as team:
        assert team.is_main and team.broadcast(3) == 3
        team.barrier()
        with team.main_process_first():
            pass


@pytest.mark.slow
def test_the_others_find_what_the_lead_made(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launcher, str(tmp_path / "script.py"), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "done-True").exists() and (tmp_path / "done-False").exists()
