"""The long table of values: written and read exactly, opened by pandas, refused where damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from plaudit.errors import EvaluationError
from plaudit.evaluate.values import VALUES, Values, replicates_key


def values_of(system: str, rewards: np.ndarray, condition: str = "") -> Values:
    where = {"system": system, "condition": condition, "metric": "reward"}
    rows = [
        {**where, "prompt_id": f"{i}", "prompt": f"p{i}", "seed": 7 + i, "value": None if np.isnan(v) else float(v)}
        for i, v in enumerate(rewards)
    ]
    rows.append({**where, "metric": "frechet", "embedding": "clap", "value": 0.5, "low": 0.4, "high": 0.6, "clips": 3})
    return Values.of_rows(rows, {replicates_key(system, condition, "frechet", "clap"): np.arange(4.0)})


@given(arrays(np.float64, 5, elements=st.floats(allow_infinity=False, width=64)))
def test_it_is_read_back_exactly(tmp_path_factory: pytest.TempPathFactory, rewards: np.ndarray) -> None:
    folder = tmp_path_factory.mktemp("values")
    both = Values.concat([values_of("a", rewards), values_of("b", -rewards)])
    both.write(folder / VALUES)
    again = Values.read(folder)
    assert again.table == both.table and again.systems == ["a", "b"] and again.metrics == ["reward", "frechet"]
    np.testing.assert_array_equal(again.select(system="a").clip("reward"), rewards)
    frechet = again.select(system="b").set("frechet")
    assert frechet is not None and frechet.replicates is not None and frechet.replicates.tolist() == [0, 1, 2, 3]
    assert again.select(system="a").set("reward") is None and again.clip("frechet").size == 0
    assert again.select(system="a").prompts == [f"p{i}" for i in range(5)]


def test_pandas_opens_it(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    values_of("a", np.array([1.0, np.nan, 3.0])).write(tmp_path / VALUES)
    frame = pandas.read_parquet(tmp_path / VALUES)
    assert frame[frame.metric == "reward"].value.mean() == 2.0
    assert frame.seed.dropna().tolist() == [7, 8, 9]
    values_of("a", np.array([1.0, np.nan, 3.0])).write(tmp_path / "values.csv")
    assert pandas.read_csv(tmp_path / "values.csv").value.count() == 3


def test_damaged_files_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="does not exist"):
        Values.read(tmp_path)
    values_of("a", np.ones(3)).write(tmp_path / VALUES)
    for name in ("replicates.npz", VALUES):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(EvaluationError, match="is damaged") as error:
            Values.read(tmp_path)
        assert "\n" not in str(error.value)
        (tmp_path / name).write_bytes(whole)
