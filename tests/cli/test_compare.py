"""`plaudit compare` as a command: what it prints, and how it fails."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

from tests.evaluate.compare.tables import clips, write_table


def plaudit(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "plaudit", "compare", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_comparison_from_the_command_line(tmp_path: Path) -> None:
    first, second = clips(1), clips(2, lift=0.5)
    a, b = write_table(tmp_path / "a" / "clips.csv", first).parent, write_table(tmp_path / "b.csv", second[:-1])
    failed = plaudit(a, b)
    assert failed.returncode == 1 and len(failed.stderr.strip().splitlines()) == 1
    assert "a has a prompt that b lacks (id '019')" in failed.stderr
    done = plaudit(a, b, "--common", "-o", tmp_path / "page", "--margin", "reward=0.1")
    assert done.returncode == 0, done.stderr
    assert "1 prompts that not every system answers were left out; 19 are compared" in done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("Of 2 differences 1 are beyond chance") and "No system raised reward" in last
    assert (tmp_path / "page" / "index.html").is_file()
    told = plaudit(a, b, "--common", "--json", "--metric", "reward")
    found = json.loads(told.stdout)
    assert found["left_out"] == 1 and [row["metric"] for row in found["comparisons"]] == ["reward"]
    rows = list(csv.DictReader(plaudit(a, b, "--common", "--csv", "-").stdout.splitlines()))
    assert [row["metric"] for row in rows] == ["reward", "clap"]
    assert float(rows[0]["difference_mean"]) == found["comparisons"][0]["difference"]["mean"]


def test_a_margin_without_a_size_is_wrong_usage(tmp_path: Path) -> None:
    table = write_table(tmp_path / "a.csv", clips(1))
    for margin in ("reward", "reward=much", "=1"):
        assert plaudit(table, table, "--margin", margin).returncode == 2
