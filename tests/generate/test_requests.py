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
from plaudit.errors import AudioError, PlauditError, PromptError
from plaudit.generate.clips import ClipRequest, clip_requests, stream_best_of, stream_clips
from plaudit.generate.settings import Execution, SamplingSettings
from plaudit.sidecars import CANDIDATES
from plaudit.tables import checked_prompt, parse_prompts, read_prompts
from tests.generate.tiny import tiny_music


class Loud:
    """Likes a clip the more, the louder it is."""

    def score(self, waves: list[Tensor], rate: int, prompts: list[str]) -> Tensor:
        return torch.stack([wave.abs().max() for wave in waves])


def test_prompts_come_one_a_line_or_from_a_column(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("slow piano\n\n fast, drums \n", encoding="utf-8-sig")
    assert read_prompts(tmp_path / "p.txt") == ["slow piano", "fast, drums"]
    (tmp_path / "p.csv").write_text('id,caption\n1,"slow, piano"\n2,fast\n')
    assert read_prompts(tmp_path / "p.csv") == ["slow, piano", "fast"]
    assert parse_prompts(b"x" * 10_000, "here") == ["x" * 10_000]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.tsv", 'id\tprompt\n1\t"slow, sad" piano\n2\tfast; drums\n'),
        ("p.txt", '\ufeffid\tcaption\r\n1\t"slow, sad" piano\r\n2\tfast; drums\r\n'),
        ("p.csv", "id\tprompt\n1\tslow, sad piano\n2\tfast; drums\n"),
        ("p.csv", 'prompt\n"slow, sad piano"\nfast; drums\n'),
    ],
)
def test_tables_may_be_separated_by_tabs(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text.replace('"slow, sad" piano', "slow, sad piano"))
    assert read_prompts(tmp_path / name) == ["slow, sad piano", "fast; drums"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.txt", "\n \n", "holds no prompts"),
        ("p.csv", "id,text\n1,slow\n", "has no column 'prompt' or 'caption'"),
        ("p.csv", "prompt,id\n ,1\n", "line 2: the prompt is empty"),
        ("p.csv", "prompt\n", "holds no prompts"),
        ("nowhere.txt", None, "does not exist"),
        ("p.txt", "1\tslow piano\n2\tdrums\n", "line 1 holds tabs; give a table as a file .* header line"),
        ("p.tsv", "id\ttext\n1\tslow\n", "has no column 'prompt' or 'caption'"),
        ("p.txt", "slow\0piano\n", "line 1: the prompt holds zero bytes"),
    ],
)
def test_lists_without_prompts_are_refused(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(PlauditError, match=message) as error:
        read_prompts(tmp_path / name)
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"here is not UTF-8 text \(line 2\)"):
        parse_prompts(b"slow\ncaf\xe9\n", "here")
    with pytest.raises(PromptError, match="PROMPT: the prompt is not UTF-8 text"):
        checked_prompt("caf\udce9", "PROMPT")
    with pytest.raises(PromptError, match="is a folder"):
        read_prompts(tmp_path)


def test_every_candidate_has_a_seed_and_a_name_of_its_own() -> None:
    groups = clip_requests(["Slow piano!", "slow piano?"], count=2, seed=5, candidates=3)
    assert [[r.seed for r in group] for group in groups] == [[5, 6, 7], [8, 9, 10], [11, 12, 13], [14, 15, 16]]
    names = [request.id for group in groups for request in group]
    assert len(set(names)) == 12 and names[0] == "1-slow-piano-5" and names[-1] == "2-slow-piano-16"
    assert clip_requests(["a b"], 1, 0) == [[ClipRequest("a-b-0", "a b", 0)]]


def test_seeds_fit_into_64_bits() -> None:
    assert clip_requests(["a"], 2, 2**64 - 2)[1][0].seed == 2**64 - 1
    for seed in (2**64 - 1, -1):
        with pytest.raises(PromptError, match="must lie between 0 and"):
            clip_requests(["a"], 2, seed)


def test_the_best_candidate_of_each_clip_is_kept_and_says_so(tmp_path: Path) -> None:
    music, groups = tiny_music(), clip_requests(["a", "b"], count=1, seed=0, candidates=3)
    requests = [request for group in groups for request in group]

    def best() -> Iterator[Path]:
        files = stream_clips(music, requests, SamplingSettings(steps=2), tmp_path / CANDIDATES, Execution(batch=2))
        return stream_best_of(groups, files, Loud(), "loud", tmp_path)

    first = next(iter(best()))  # the first prompt's is there before the others are made
    assert first.is_file() and len(list((tmp_path / CANDIDATES).glob("*.wav"))) == 4
    kept = list(best())
    assert [path.parent for path in kept] == [tmp_path, tmp_path]
    assert len(list((tmp_path / CANDIDATES).glob("*.wav"))) == 6
    for path in kept:
        recorded = json.loads(path.with_suffix(".json").read_text())["best_of"]
        assert recorded["reward"] == "loud" and recorded["candidates"] == 3
        mine = int(path.stem.rsplit("-", 1)[1]) % 3
        assert recorded["rewards"][mine] == max(recorded["rewards"])
    before = [path.read_bytes() for path in kept]
    assert [path.read_bytes() for path in best()] == before


def test_candidates_that_cannot_be_scored_are_passed_over(tmp_path: Path) -> None:
    groups = clip_requests(["a"], 1, 0, 3)
    files = [tmp_path / CANDIDATES / f"{request.id}.wav" for request in groups[0]]
    noise = np.random.default_rng(0).uniform(-1, 1, 8000).astype(np.float32)
    for level, file in zip((0.0, 0.5, 0.0), files, strict=True):
        write_wav(file, level * noise, 8000)
        file.with_suffix(".json").write_text("{}")
    assert [path.name for path in stream_best_of(groups, iter(files), Loud(), "loud", tmp_path)] == ["a-1.wav"]
    with pytest.raises(AudioError, match=r"no candidate for 'a' can be scored: .* is silent"):
        list(stream_best_of([groups[0][:1]], iter(files), Loud(), "loud", tmp_path))


def test_the_command_takes_a_list_on_standard_input_and_keeps_the_best(tmp_path: Path) -> None:
    words = ["generate", "-", "--best-of", "2", "--steps", "1", "-o", str(tmp_path), "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, words, input="slow piano\n\nfast drums\n")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [row["prompt"] for row in rows] == ["slow piano", "fast drums"]
    assert all(Path(row["file"]).is_file() and row["seed"] // 2 == place for place, row in enumerate(rows))
    wrong = CliRunner().invoke(app, ["generate", "piano", "--prompts", "x.txt"])
    assert wrong.exit_code == 2
