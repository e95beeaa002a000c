"""The command `plaudit compare`: output and errors."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from plaudit.cli.main import app
from plaudit.errors import EvaluationError
from tests.evaluate.compare.tables import clips, write_table, write_values


def plaudit(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


@pytest.fixture
def systems(tmp_path: Path) -> tuple[Path, Path]:
    """A folder as plaudit evaluate leaves it, and a table that lacks one of its prompts."""
    a = write_values(tmp_path / "a", clips(1))
    return a, write_table(tmp_path / "b.csv", clips(2, lift=0.5)[:-1])


def test_systems_of_different_prompts_are_not_compared(systems: tuple[Path, Path]) -> None:
    done = plaudit(*systems)
    assert done.exit_code == 1 and isinstance(done.exception, EvaluationError)
    assert "a has a prompt that b lacks (id '019')" in str(done.exception)


def test_a_comparison_is_printed_and_written(systems: tuple[Path, Path], tmp_path: Path) -> None:
    done = plaudit(*systems, "--shared-prompts", "-o", tmp_path / "page", "--margin", "reward=0.1")
    assert done.exit_code == 0, done.output
    assert "left out 1 of 20 prompts" in done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert "1 are significant" in last and "No system raised reward" in last
    assert (tmp_path / "page" / "index.html").is_file()


def test_machines_read_json_and_csv(systems: tuple[Path, Path]) -> None:
    found = json.loads(plaudit(*systems, "--shared-prompts", "--json", "--metric", "reward").stdout)
    assert found["left_out"] == 1 and [row["metric"] for row in found["comparisons"]] == ["reward"]
    rows = list(csv.DictReader(plaudit(*systems, "--shared-prompts", "--csv", "-").stdout.splitlines()))
    assert [row["metric"] for row in rows] == ["reward", "clap"]
    assert float(rows[0]["difference_mean"]) == found["comparisons"][0]["difference"]["mean"]


def test_a_series_is_watched(tmp_path: Path) -> None:
    rows = [r for place in range(3) for r in clips(place, lift=0.5 * place, system=f"step-{place}")]
    table = write_table(tmp_path / "steps.csv", rows)
    assert "Reward and clap" in plaudit(table, "--ordered").stdout
    assert len(json.loads(plaudit(table, "--ordered", "--json").stdout)["series"]) == 1


@pytest.mark.parametrize("margin", ["reward", "reward=much", "=1"])
def test_a_margin_without_a_size_is_wrong_usage(systems: tuple[Path, Path], margin: str) -> None:
    assert plaudit(*systems, "--margin", margin).exit_code == 2
