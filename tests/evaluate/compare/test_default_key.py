"""The default key that pairs clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plaudit.evaluate.comparison import Pairing, pair
from plaudit.evaluate.systems import read_systems
from tests.evaluate.compare.tables import clips, write_table


def paired(folder: Path, first: list[dict[str, Any]], second: list[dict[str, Any]]) -> Pairing:
    return pair(read_systems([write_table(folder / "a.csv", first), write_table(folder / "b.csv", second)]))


def clip_rows(seed: int, seeds: int, name: str) -> list[dict[str, Any]]:
    """Rows whose ids are of clips, as those of a generated folder."""
    return [
        {**row, "id": f"{row['id']}-{name}-{k}", "seed": k} for k in range(seeds) for row in clips(seed * 10 + k)
    ]


def test_several_clips_of_a_prompt_count_as_seeds(tmp_path: Path) -> None:
    pairing = paired(tmp_path, clip_rows(1, 3, "x"), clip_rows(2, 3, "x"))
    assert (len(pairing.prompts), pairing.seeds) == (20, 3)


def test_other_names_of_the_same_prompts_are_paired_by_prompt(tmp_path: Path) -> None:
    pairing = paired(tmp_path, clip_rows(1, 1, "x"), clip_rows(2, 1, "y"))
    assert len(pairing.prompts) == 20 and pairing.prompts[0].key == "prompt 0, with a comma"


def test_prompt_ids_pair_clips(tmp_path: Path) -> None:
    doubled = [{**row, "prompt": "the same" if i < 2 else row["prompt"]} for i, row in enumerate(clips(1))]
    assert [p.key for p in paired(tmp_path, doubled, doubled).prompts] == [row["id"] for row in doubled]
    seeded = [{**row, "seed": i} for i, row in enumerate(doubled)]
    assert len(paired(tmp_path, seeded, seeded).prompts) == 20


def test_a_missing_clip_needs_no_seed(tmp_path: Path) -> None:
    rows = [{**row, "seed": 1, "error": ""} for row in clips(1)]
    gone = [*rows[:-1], {**rows[-1], "seed": "", "reward": "", "clap": "", "error": "no file"}]
    pairs = pair(
        read_systems([write_table(tmp_path / "a.csv", rows), write_table(tmp_path / "b.csv", gone)]), common=True
    )
    assert len(pairs.prompts) == 19 and pairs.left_out == 1
