"""Prompts from lists and tables, the seeds of their clips, and the best of several candidates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from plaudit.audio import write_wav
from plaudit.cli.main import app
from plaudit.errors import AudioError, PlauditError
from plaudit.generate.best_of import CANDIDATES, stream_best
from plaudit.generate.clips import ClipRequest, stream_clips
from plaudit.generate.execution import Execution
from plaudit.generate.requests import clip_requests, prompts_in, prompts_of
from plaudit.generate.settings import SamplingSettings
from tests.generate.tiny import tiny_music


class Loud:
    """Likes a clip the more, the louder it is."""

    def score(self, waves: list[Tensor], rate: int, prompts: list[str]) -> Tensor:
        return torch.stack([wave.abs().max() for wave in waves])


def test_prompts_come_one_a_line_or_from_a_column(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("slow piano\n\n fast, drums \n", encoding="utf-8-sig")
    assert prompts_in(tmp_path / "p.txt") == ["slow piano", "fast, drums"]
    (tmp_path / "p.csv").write_text('id,caption\n1,"slow, piano"\n2,fast\n')
    assert prompts_in(tmp_path / "p.csv") == ["slow, piano", "fast"]
    assert prompts_of(["x" * 10_000], "here") == ["x" * 10_000]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.txt", "\n \n", "holds no prompts"),
        ("p.csv", "id,text\n1,slow\n", "has no column 'prompt' or 'caption'"),
        ("p.csv", "prompt,id\n ,1\n", "line 2: the prompt is empty"),
        ("p.csv", "prompt\n", "holds no prompts"),
        ("nowhere.txt", None, "does not exist"),
    ],
)
def test_lists_without_prompts_are_refused(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(PlauditError, match=said) as error:
        prompts_in(tmp_path / name)
    assert "\n" not in str(error.value)


def test_every_candidate_has_a_seed_and_a_name_of_its_own() -> None:
    groups = clip_requests(["Slow piano!", "slow piano?"], count=2, seed=5, candidates=3)
    assert [[request.seed for request in group] for group in groups] == [[5, 6, 7], [8, 9, 10]] * 2
    names = [request.id for group in groups for request in group]
    assert len(set(names)) == 12 and names[0] == "1-slow-piano-5" and names[-1] == "2-slow-piano-10"
    assert clip_requests(["a b"], 1, 0) == [[ClipRequest("a-b-0", "a b", 0)]]


def test_the_best_candidate_of_each_clip_is_kept_and_says_so(tmp_path: Path) -> None:
    music, groups = tiny_music(), clip_requests(["a", "b"], count=1, seed=0, candidates=3)
    requests = [request for group in groups for request in group]

    def best() -> Iterator[Path]:
        files = stream_clips(music, requests, SamplingSettings(steps=2), tmp_path / CANDIDATES, Execution(batch=2))
        return stream_best(groups, files, Loud(), "loud", tmp_path)

    first = next(iter(best()))  # the first prompt's is there before the others are made
    assert first.is_file() and len(list((tmp_path / CANDIDATES).glob("*.wav"))) == 4
    kept = list(best())
    assert [path.parent for path in kept] == [tmp_path, tmp_path]
    assert len(list((tmp_path / CANDIDATES).glob("*.wav"))) == 6
    for path in kept:
        said = json.loads(path.with_suffix(".json").read_text())["best_of"]
        assert said["reward"] == "loud" and said["candidates"] == 3
        mine = next(i for i in range(3) if path.stem.endswith(f"-{i}"))
        assert said["rewards"][mine] == max(said["rewards"])
    before = [path.read_bytes() for path in kept]
    assert [path.read_bytes() for path in best()] == before


def test_candidates_that_cannot_be_scored_are_passed_over(tmp_path: Path) -> None:
    groups = clip_requests(["a"], 1, 0, 3)
    files = [tmp_path / CANDIDATES / f"{request.id}.wav" for request in groups[0]]
    for level, file in zip((0.0, 0.5, 0.0), files, strict=True):
        write_wav(file, level * np.sin(np.arange(8000)), 8000)
        file.with_suffix(".json").write_text("{}")
    assert [path.name for path in stream_best(groups, iter(files), Loud(), "loud", tmp_path)] == ["a-1.wav"]
    with pytest.raises(AudioError, match=r"no candidate for 'a' can be scored: .* is silent"):
        list(stream_best([groups[0][:1]], iter(files), Loud(), "loud", tmp_path))


def test_the_command_takes_a_list_on_standard_input_and_keeps_the_best(tmp_path: Path) -> None:
    words = ["generate", "-", "--best-of", "2", "--steps", "1", "-o", str(tmp_path), "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, words, input="slow piano\n\nfast drums\n")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [row["prompt"] for row in rows] == ["slow piano", "fast drums"]
    assert all(Path(row["file"]).is_file() and row["seed"] in (0, 1) for row in rows)
    wrong = CliRunner().invoke(app, ["generate", "piano", "--prompts", "x.txt"])
    assert wrong.exit_code == 2
