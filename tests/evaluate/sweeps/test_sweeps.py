"""The numbers of sweeps, on scores with known answers, and their pages."""

import base64
import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from plaudit.errors import RunError
from plaudit.evaluate.pages.sweep import (
    CrossCell,
    CrossTable,
    Sweep,
    cross_table,
    sweep_row,
    write_injections,
    write_scores,
)
from plaudit.evaluate.values import Values
from plaudit.statistics import Interval
from tests.browser import chromium
from tests.evaluate.report_example import changed, values

SCORES = [0.0, 1.0, 2.0, 3.0]


def sweep(slope: float, label: str = "SFT", noise: float = 0.0) -> Sweep:
    points = [values(np.random.default_rng(3), 24, slope * s) for s in SCORES]
    if noise:
        rng = np.random.default_rng(5)
        points = [changed(point, reward=rng.normal(0, noise, 24)) for point in points]
    return Sweep(label, SCORES, points)


def test_a_reward_that_follows_the_score_has_a_rank_correlation_of_one() -> None:
    row = sweep_row(sweep(0.4))
    assert row.reward_correlation == Interval(1.0, 1.0, 1.0)
    assert row.reward_range == pytest.approx(3 * 0.4)
    assert sweep_row(sweep(-0.4)).reward_correlation.mean == -1.0
    unsure = sweep_row(sweep(0.0, noise=1.0)).reward_correlation
    assert unsure.low < 0.0 < unsure.high


def test_each_point_has_the_interval_of_its_clips() -> None:
    row, points = sweep_row(sweep(0.4)), sweep(0.4).points
    for place, point in enumerate(points):
        assert row.means["reward"][place].mean == pytest.approx(point.clip("reward").mean())
        assert row.means["frechet"][place].mean == point.set("frechet").value
        assert row.means["concepts"][place].mean == pytest.approx(np.nanmean(point.clip("concepts")))
        assert row.sets["kernel"][place] == point.set("kernel")
    first = row.means["reward"][0]
    assert first.low < first.mean < first.high


def test_points_that_cannot_be_evaluated_are_listed_and_in_no_number() -> None:
    whole = sweep(0.4)
    part = Sweep("SFT", SCORES[:3], whole.points[:3], {3.0: "0001.wav is silent"})
    row = sweep_row(part)
    assert len(row.means["reward"]) == 3 and row.failed == {3.0: "0001.wav is silent"}
    with pytest.raises(RunError, match=r"has 1 points.*at 3: 0001\.wav is silent"):
        sweep_row(Sweep("SFT", SCORES[:1], whole.points[:1], {3.0: "0001.wav is silent"}))


def cells(silent: bool = False) -> list[CrossCell]:
    """Two models; what was trained under input_add collapses in global_adaln, the other way nothing much happens."""

    def scored(lift: float, seed: int = 1) -> Values:
        return values(np.random.default_rng(seed), 24, lift)

    return [
        CrossCell("adaln", "global_adaln", True, scored(1.0)),
        CrossCell("adaln", "input_add", False, scored(1.0, seed=2)),
        CrossCell("add", "global_adaln", False, "clip 3 is silent" if silent else scored(-1.0)),
        CrossCell("add", "input_add", True, scored(1.0)),
    ]


def test_every_cell_is_compared_with_the_native_injection() -> None:
    table = cross_table(cells())
    assert (table.models, table.injections) == (["adaln", "add"], ["global_adaln", "input_add"])
    fell = {change.metric: change for change in table.cell("add", "global_adaln").changes}
    assert fell["reward"].difference.mean == pytest.approx(-2.0) and fell["reward"].verdict == "worse"
    assert fell["frechet"].difference.mean == pytest.approx(0.2)
    same = {change.metric: change for change in table.cell("adaln", "input_add").changes}
    assert not same["reward"].established and same["reward"].p_holm is not None
    assert table.cell("add", "input_add").changes == []
    # The constant shift of reward has no test; all else of both cells is corrected together.
    assert table.tests == sum(c.p is not None for cell in table.cells for c in cell.changes)


def test_a_cell_that_cannot_be_evaluated_has_a_reason_and_no_numbers() -> None:
    table = cross_table(cells(silent=True))
    cell = table.cell("add", "global_adaln")
    assert (cell.means, cell.changes, cell.failed) == ({}, [], "clip 3 is silent")
    assert table.clips == 24
    with pytest.raises(RunError, match="no cell of the table could be evaluated; the first: clip 3 is silent"):
        cross_table([replace(one, values="clip 3 is silent") for one in cells()])


def held(page: str, name: str) -> str:
    address = re.search(rf'href="data:[^"]*base64,([^"]+)" download="{re.escape(name)}"', page)
    assert address is not None, name
    return base64.b64decode(address[1]).decode()


def test_the_files_of_a_sweep_over_scores(tmp_path: Path) -> None:
    rows = [sweep_row(sweep(0.4)), sweep_row(sweep(0.1, "CRPO <b>"))]
    page = write_scores(rows, {"seed": 42}, tmp_path, "conditioning score").read_text()
    numbers = json.loads((tmp_path / "sweep.json").read_text())
    assert [model["stage"] for model in numbers["models"]] == ["SFT", "CRPO <b>"]
    assert numbers["models"][0]["reward_correlation"]["mean"] == 1.0 and numbers["settings"] == {"seed": 42}
    table = list(csv.DictReader((tmp_path / "sweep.csv").open()))
    assert {row["metric"] for row in table} == {"reward", "clap", "concepts", "utility", "frechet", "kernel", "recall"}
    first = next(row for row in table if row["metric"] == "reward" and row["score"] == "2.0")
    assert float(first["low"]) == rows[0].means["reward"][2].low
    assert held(page, "sweep.csv") == (tmp_path / "sweep.csv").read_text()
    assert "<b>" not in page and "CRPO &lt;b&gt;" in page
    figure = (tmp_path / "sweep.svg").read_text()
    assert "SFT" in figure and "Reward" in figure and "Fréchet" in figure and (tmp_path / "sweep-dark.svg").is_file()


def test_the_files_of_a_cross_load_table(tmp_path: Path) -> None:
    table = cross_table(cells(silent=True))
    page = write_injections(table, {}, tmp_path).read_text()
    assert "clip 3 is silent" in page
    drawn = held(page, "injections-reward.svg")
    assert drawn.count("<!-- not measured -->") == 1
    assert drawn.count("stroke: #1c2430") == 2  # the frames of the diagonal
    rows = list(csv.DictReader((tmp_path / "sweep.csv").open()))
    assert [row["note"] for row in rows if row["note"]] == ["clip 3 is silent"]
    moved = next(r for r in rows if (r["trained"], r["run"], r["metric"]) == ("adaln", "input_add", "reward"))
    change = next(c for c in table.cell("adaln", "input_add").changes if c.metric == "reward")
    assert float(moved["change_low"]) == change.difference.low and float(moved["p_holm"]) == change.p_holm


def test_in_a_browser_both_pages_load_and_fit(tmp_path: Path) -> None:
    pages = [
        write_scores([sweep_row(sweep(0.4))], {"prompts": ["a" * 300]}, tmp_path / "score", "conditioning score"),
        write_injections(_five(), {}, tmp_path / "injections"),
    ]
    with chromium(tmp_path / "profile") as browser:
        for page in pages:
            for width, dark in ((1280, True), (390, False)):
                browser.open(page, width, dark=dark).assert_sound()


def _five() -> CrossTable:
    names = ["global_adaln", "input_add", "score_token", "cross_attention", "film"]
    point = values(np.random.default_rng(1), 8, 0.5)
    return cross_table([CrossCell(f"sft-{a}", b, a == b, point) for a in names for b in names])
