"""Files that appear whole or not at all, also where there is no room for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from plaudit.assets import load_tensors, save_checkpoint, save_tensors

NO_ROOM = """
import resource, sys, torch
from pathlib import Path
from plaudit import assets

resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))  # as a full disk does, it ends a file in the middle
try:
    getattr(assets, sys.argv[1])(Path(sys.argv[2]), {"weights": torch.ones(100_000)})
except OSError as error:
    print(error.strerror, error.filename)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes")
@pytest.mark.parametrize("save", [save_checkpoint, save_tensors])
def test_a_file_that_does_not_fit_is_named_and_the_one_before_stays(save, tmp_path: Path) -> None:
    path = tmp_path / "file"
    save(path, {"weights": torch.zeros(10)})
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", NO_ROOM, save.__name__, path], capture_output=True, text=True)
    assert done.stdout == f"File too large {path}\n", done.stderr
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_tensors_come_back(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a", {"x": torch.arange(3.0)})
    assert torch.equal(load_tensors(tmp_path / "a")["x"], torch.arange(3.0))
