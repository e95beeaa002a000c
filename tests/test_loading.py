"""Loading a backbone takes about its file's size in memory, not twice that."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "loading.py"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_a_loaded_network_takes_no_more_than_1_3_times_its_file(tmp_path: Path) -> None:
    make = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]); import loading; "
        "print(loading.make_folder(Path(sys.argv[1]), 'fluxaudio-s-16k'))"
    )
    size = int(run("-c", make, str(tmp_path), str(BENCHMARK.parent)))
    assert size > 400e6
    taken = {way: json.loads(run(str(BENCHMARK), "--once", str(tmp_path), way)) for way in ("mapped", "overwritten")}
    assert taken["mapped"]["bytes"] < 1.3 * size < taken["overwritten"]["bytes"]


def run(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True).stdout
