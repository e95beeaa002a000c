from pathlib import Path

import pytest

from plaudit.errors import VoteError
from plaudit.reward.ablation import INPUT_ABLATIONS, run_ablation
from plaudit.reward.training import fit_reward
from tests.reward.taste import FAST, store, votes


def test_every_input_and_source_has_a_row_and_done_cells_are_not_done_again(tmp_path: Path) -> None:
    encoded = store(tmp_path / "features")
    train, validation, test = (
        votes(count, seed, "one") + votes(count, seed + 10, "two") for count, seed in ((150, 0), (40, 1), (80, 2))
    )
    counts: list[tuple[int, int]] = []
    rows = run_ablation(train, validation, test, encoded, FAST, [0, 1], tmp_path, lambda *count: counts.append(count))
    assert [row.name for row in rows] == [*INPUT_ABLATIONS, "without one", "without two"]
    assert counts[-1] == (18, 18) and all(len(row.accuracies) == 2 for row in rows)
    by_name = {row.name: row for row in rows}
    assert by_name["A3"].accuracies == [0.5, 0.5] and by_name["A7"].votes == 160 and by_name["without two"].votes == 80

    seen, stopping, held_out = ([v for v in part if v.source == "two"] for part in (train, validation, test))
    assert held_out
    alone = fit_reward(seen, stopping, [v for v in test if v.source == "one"], encoded, FAST)
    assert by_name["without one"].accuracies[0] == alone.metrics.accuracy

    cells = sorted((tmp_path / "cells").iterdir())
    assert len(cells) == 18
    cells[0].unlink()
    cells[1].write_text("{")  # as a disk may leave it
    before = {cell: cell.stat().st_mtime_ns for cell in cells[2:]}
    assert run_ablation(train, validation, test, encoded, FAST, [0, 1], tmp_path) == rows
    assert {cell: cell.stat().st_mtime_ns for cell in cells[2:]} == before and cells[0].exists()


def test_a_source_without_which_nothing_is_left_has_no_row(tmp_path: Path) -> None:
    train, validation = votes(60, 0, "one"), votes(30, 1, "one")
    test = votes(30, 2, "one") + votes(30, 3, "two")
    rows = run_ablation(train, validation, test, store(tmp_path / "features"), FAST, [0], tmp_path)
    assert [row.name for row in rows][7:] == ["without two"]
    with pytest.raises(VoteError, match="each need a vote that is not a tie"):
        run_ablation(train, validation, votes(9, 2, winner="tie"), store(tmp_path / "features"), FAST, [0], tmp_path)
