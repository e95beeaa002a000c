"""Barriers and broadcasts, with one process and with two."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from plaudit.training.distributed import ProcessGroup, accelerator_for

SCRIPT = """
import sys, time
from pathlib import Path
from plaudit.training.distributed import ProcessGroup, accelerator_for
folder = Path(sys.argv[1])
with ProcessGroup(accelerator_for("no")) as processes:
    assert processes.broadcast("main's" if processes.is_main else "other's") == "main's"
    with processes.main_process_first():
        if processes.is_main:
            time.sleep(0.5)
            (folder / "provenance").write_text("")
        assert (folder / "provenance").exists()
    processes.barrier()
    (folder / f"done-{processes.is_main}").write_text("")
"""


def test_one_process_is_main_and_does_not_wait() -> None:
    with ProcessGroup(accelerator_for("no")) as processes:
        assert processes.is_main and processes.broadcast(3) == 3
        processes.barrier()
        with processes.main_process_first():
            pass


@pytest.mark.slow
def test_the_others_see_the_main_process_s_work(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launcher, str(tmp_path / "script.py"), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "done-True").exists() and (tmp_path / "done-False").exists()
