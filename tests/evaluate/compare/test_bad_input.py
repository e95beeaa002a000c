"""Input that does not fit together is an error of one line, and no value is dropped silently."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plaudit.errors import PlauditError
from plaudit.evaluate.comparison import Pairing, compare, pair
from plaudit.evaluate.pages.comparison import write_comparison
from plaudit.evaluate.systems import read_systems
from tests.evaluate.compare.tables import clips, write_table, write_values

Rows = list[dict[str, Any]]


def two(tmp_path: Path, change: Callable[[Rows], Rows], **options: Any) -> Pairing:
    """A system and the same one's rows under a change."""
    paths = write_table(tmp_path / "a.csv", clips(1)), write_table(tmp_path / "b.csv", change(clips(2)))
    return pair(read_systems(paths), **options)


def with_value(column: str, value: Any, row: int = 3) -> Callable[[Rows], Rows]:
    def change(rows: Rows) -> Rows:
        rows[row][column] = value
        return rows

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[:-2], "a has 2 prompts that b lacks (id '018'); make them, or compare .* --shared-prompts"),
        (lambda rows: [*rows, {**rows[0], "id": "extra"}], "b has a prompt that a lacks \\(id 'extra'\\)"),
        (lambda rows: [*rows, rows[0]], "b.csv line 22: id '000' stands there twice"),
        (with_value("reward", "nan"), "b.csv line 5: 'reward' is 'nan', not a finite number"),
        (with_value("reward", "inf"), "'reward' is 'inf', not a finite number"),
        (with_value("reward", "good"), "b.csv line 5: 'reward' is 'good', not a finite number"),
        (with_value("reward", ""), "b has no reward for '003'; evaluate it again, or leave .* --shared-prompts"),
        (with_value("prompt", "another"), "'003' is the prompt 'prompt 3, with a comma' in a and 'another' in b"),
        (lambda rows: [{**r, "error": "gone.wav is missing" if r["id"] == "003" else ""} for r in rows],
         "b has no values for '003' \\(gone.wav is missing\\)"),
        (lambda rows: [{"id": r["id"], "fad": 1.0} for r in rows], "in common: a has reward, clap; b has fad"),
        (lambda rows: [{"id": r["id"], "remark": "fine"} for r in rows], "no column of numbers"),
        (lambda rows: [{"name": r["id"], "reward": r["reward"]} for r in rows], "no column 'id' or 'prompt'"),
        (lambda rows: [{**r, "seed": k} for r in rows for k in (1, 2)], "a has 1 clips for '000', b has 2 for '000'"),
        (lambda rows: [{**r, "seed": 1} for r in [*rows, rows[4]]], "id '004' with seed 1 stands there twice; remove"),
        (lambda rows: [{**r, "seed": "" if r["id"] == "007" else 1} for r in rows], "line 9: column 'seed' is empty"),
        (with_value("id", ""), "line 5: no id to pair the clip by"),
    ],
)  # fmt: skip
def test_mismatched_input_is_an_error_of_one_line(tmp_path: Path, change: Callable[[Rows], Rows], said: str) -> None:
    with pytest.raises(PlauditError, match=said.replace("(id '018')", "\\(id '018'\\)")) as error:
        two(tmp_path, change)
    assert "\n" not in str(error.value)


def test_common_prompts_are_compared_and_the_others_counted(tmp_path: Path) -> None:
    def change(rows: Rows) -> Rows:
        rows[3]["reward"] = ""
        return [*rows[:-2], {**rows[0], "id": "extra"}]

    pairing = two(tmp_path, change, common=True)
    assert len(pairing.prompts) == 17 and pairing.left_out == 4  # two of a, one of b, one without a value
    assert "left out 4 of 21 prompts, for which not every system has a clip with values" in pairing.notes
    assert compare(pairing).rows[0].prompts == 17


def test_a_metric_that_no_system_has_of_a_prompt_is_compared_over_the_others(tmp_path: Path) -> None:
    rows = [{**row, "concepts": "" if row["id"] < "002" else 0.1 * len(row["id"])} for row in clips(1)]
    others = [{**row, "concepts": row["concepts"] and row["clap"]} for row in rows]
    paths = write_table(tmp_path / "a.csv", rows), write_table(tmp_path / "b.csv", others)
    pairing = pair(read_systems(paths), ["concepts"])
    assert pairing.notes == ["concepts: 2 prompts have no value in any system and are not in its comparison"]
    assert compare(pairing).rows[0].prompts == 18


def test_metrics_and_columns_that_are_not_compared_are_named(tmp_path: Path) -> None:
    pairing = two(tmp_path, lambda rows: [{**r, "fad": 1.0, "remark": "x"} for r in rows])
    assert pairing.metrics == ["reward", "clap"]
    assert pairing.notes == ["not every system has fad: not compared", "no numbers in remark: not compared"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: clips(1), "'reward' of a and b are the same for every prompt.*is one a copy of the other"),
        (lambda rows: [{**r, "reward": r["reward"] + 1} for r in clips(1)], "'reward' of a and b differ by 1 for"),
    ],
)
def test_without_spread_there_is_nothing_to_test(tmp_path: Path, change: Callable[[Rows], Rows], said: str) -> None:
    with pytest.raises(PlauditError, match=said):
        compare(two(tmp_path, change))


def test_a_metric_without_spread_leaves_the_others_to_be_compared(tmp_path: Path) -> None:
    table = compare(two(tmp_path, lambda rows: [{**r, "clap": c["clap"]} for r, c in zip(rows, clips(1), strict=True)]))
    assert table.metrics == ["reward"] == [row.metric for row in table.rows]
    assert table.untested == ["'clap' of a and b are the same for every prompt"] == table.to_json()["untested"]
    assert table.rows[0].p_holm == table.rows[0].p  # corrected for what was tested alone
    index = write_comparison(table, tmp_path / "page", sort=None)
    assert "Not tested: &#39;clap&#39; of a and b are the same" in index.read_text()


def test_a_metric_with_a_single_value_leaves_the_others_to_be_compared(tmp_path: Path) -> None:
    def change(rows: Rows) -> Rows:
        return [{**row, "concepts": 0.5 if row["id"] == "004" else ""} for row in rows]

    paths = write_table(tmp_path / "a.csv", change(clips(1))), write_table(tmp_path / "b.csv", change(clips(2)))
    pairing = pair(read_systems(paths))
    assert pairing.metrics == ["reward", "clap"]
    assert "'concepts' has a value for 1 prompts, it needs 2: not compared" in pairing.notes
    with pytest.raises(PlauditError, match="'concepts' has a value for 1 prompts, it needs 2"):
        pair(read_systems(paths), ["concepts"])


def test_rewards_of_different_models_are_not_compared(tmp_path: Path) -> None:
    for n, name in enumerate("ab"):
        write_values(tmp_path / name, clips(n))
        settings = {"reward_identity": f"reward {n}", "clap_digest": "the same"}
        (tmp_path / name / "summary.json").write_text(json.dumps({"settings": settings}))
    systems = read_systems([tmp_path / "a", tmp_path / "b"])
    pairing = pair(systems)
    assert pairing.metrics == ["clap"] and pairing.notes[0].startswith("reward is of different models")
    with pytest.raises(PlauditError, match=r"reward is of different models .* plaudit evaluate"):
        pair(systems, ["reward"])


def test_folders_with_the_same_name_are_labelled_by_path(tmp_path: Path) -> None:
    for place in ("x", "y"):
        write_values(tmp_path / place / "evaluation", clips(1))
    names = [system.name for system in read_systems([tmp_path / "x" / "evaluation", tmp_path / "y" / "evaluation"])]
    assert names == [str(tmp_path / "x" / "evaluation"), str(tmp_path / "y" / "evaluation")]


def test_one_prompt_is_no_comparison(tmp_path: Path) -> None:
    paths = [write_table(tmp_path / f"{name}.csv", clips(n, count=1)) for n, name in enumerate("ab")]
    with pytest.raises(PlauditError, match="share 1 prompts, a comparison needs 2"):
        pair(read_systems(paths))


def test_system_names_must_be_distinct(tmp_path: Path) -> None:
    one = write_values(tmp_path / "x", clips(1))
    with pytest.raises(PlauditError, match="there is one system, 'x'"):
        read_systems([one])
    with pytest.raises(PlauditError, match=r"two systems are called '.*/x'"):
        read_systems([one, one])
    with pytest.raises(PlauditError, match=r"has no values\.parquet; write it with plaudit evaluate"):
        read_systems([tmp_path, one])
    with pytest.raises(PlauditError, match="does not exist"):
        read_systems([tmp_path / "nowhere.csv", one])
    unnamed = write_table(tmp_path / "s.csv", [{**r, "system": ""} for r in clips(1)])
    with pytest.raises(PlauditError, match="line 2: column 'system' is empty"):
        read_systems([unnamed])
    double = write_table(tmp_path / "d.csv", [{**r, "caption": "x"} for r in clips(1)])
    with pytest.raises(PlauditError, match="both names of one column"):
        read_systems([double])


def test_prompts_pair_where_there_are_no_ids(tmp_path: Path) -> None:
    def bare(rows: Rows) -> Rows:
        return [{k: v for k, v in row.items() if k != "id"} for row in rows]

    paths = write_table(tmp_path / "a.csv", clips(1)), write_table(tmp_path / "b.csv", bare(clips(2))[::-1])
    assert pair(read_systems(paths)).prompts[0].key == "prompt 0, with a comma"
    with pytest.raises(PlauditError, match="line 2: no id to pair the clip by"):
        pair(read_systems(paths), by="id")
    with pytest.raises(PlauditError, match="a has no metric 'x'; all have reward, clap"):
        pair(read_systems(paths), ["x"])
