"""The best of each prompt, places in a reference, and which clips are meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.errors import AudioError, CorpusError, ModelError
from plaudit.reward.scoring import (
    LISTED_PATHS,
    Clip,
    ScoredClip,
    ScoreReference,
    clips_at,
    clips_in_table,
    copy_ranked,
    load_reference,
    rank_clips,
    save_reference,
    score_reference,
)


def scored(prompt: str, *scores: float | None) -> list[ScoredClip]:
    return [ScoredClip(Clip(Path(f"{prompt}{n}.wav"), prompt), score) for n, score in enumerate(scores)]


def test_the_best_of_each_prompt_with_their_lead() -> None:
    ranked = rank_clips(scored("b", 1.0, 3.0, None, 2.5) + scored("a", -1.0), keep=2)
    places = [(r.scored.clip.file.name, r.rank, r.candidates, r.margin) for r in ranked]
    assert places == [("b1.wav", 1, 3, 0.5), ("b3.wav", 2, 3, 1.5), ("a0.wav", 1, 1, None)]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(-3, 3)), max_size=20), st.integers(1, 5))
def test_ranks_are_in_order_and_equal_scores_keep_theirs(given_scores: list[tuple[str, int]], keep: int) -> None:
    rows = [ScoredClip(Clip(Path(f"{n:02d}"), p), float(score)) for n, (p, score) in enumerate(given_scores)]
    ranked = rank_clips(rows, keep)
    for prompt in "ab":
        default = [r for r in ranked if r.scored.clip.prompt == prompt]
        order = sorted((r for r in rows if r.clip.prompt == prompt), key=lambda r: (-(r.score or 0.0), r.clip.file))
        assert [r.scored for r in default] == order[:keep]
        assert all(r.margin is None or r.margin >= 0 for r in default)


def test_copies_carry_their_rank(tmp_path: Path) -> None:
    rows = []
    for prompt, score in (("x", 1.0), ("x", 2.0), ("y", 0.0)):
        file = tmp_path / f"{score:g}.wav"
        file.write_bytes(f"{prompt}{score}".encode())
        rows.append(ScoredClip(Clip(file, prompt), score))
    copies = copy_ranked(rank_clips(rows, 2), tmp_path / "best")
    assert [path.name for path in copies] == ["1-1-2.wav", "1-2-1.wav", "2-1-0.wav"]
    assert copies[0].read_bytes() == b"x2.0" and len(list((tmp_path / "best").iterdir())) == 3
    assert [path.name for path in copy_ranked(rank_clips(rows[:2], 1), tmp_path / "one")] == ["1-2.wav"]


def test_copies_take_the_sidecar_along_and_replace_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"sound")
    (tmp_path / "x.json").write_text('{"prompt": "p"}')
    ranked = rank_clips([ScoredClip(Clip(tmp_path / "x.wav", "p"), 1.0)], 1)
    best = tmp_path / "best"
    for _ in range(2):  # the same copy again finds its own
        assert copy_ranked(ranked, best) == [best / "1-x.wav"]
    assert {p.name: p.read_bytes() for p in best.iterdir()} == {"1-x.wav": b"sound", "1-x.json": b'{"prompt": "p"}'}
    for name in ("1-x.json", "1-x.wav"):
        other = tmp_path / f"other {name}"
        other.mkdir()
        (other / name).write_bytes(b"of somebody else")
        with pytest.raises(AudioError, match=f"{name} already exists as another file; copy into another folder"):
            copy_ranked(ranked, other)
        assert {p.name: p.read_bytes() for p in other.iterdir()} == {name: b"of somebody else"}


def test_a_percentile_is_the_mid_rank() -> None:
    reference = ScoreReference("ref", "id", [1.0, 2.0, 2.0, 3.0])
    assert [reference.percentile(s) for s in (0.0, 1.0, 1.5, 2.0, 3.0, 9.0)] == [0.0, 12.5, 25.0, 50.0, 87.5, 100.0]
    assert reference.definition == "mid-rank among 4 scores of ref: % below, equal ones counted half"


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30))
def test_a_reference_has_its_middle_at_fifty_percent(scores: list[float]) -> None:
    reference = ScoreReference("ref", "id", scores)
    assert sum(map(reference.percentile, scores)) / len(scores) == pytest.approx(50.0)


def test_a_reference_is_of_one_reward(tmp_path: Path) -> None:
    save_reference(tmp_path / "ref.json", score_reference("ref", "a reward", scored("p", 2.0, None, 1.0)))
    assert load_reference(tmp_path / "ref.json", "a reward").scores == [1.0, 2.0]
    for other in ("another", None):
        with pytest.raises(ModelError, match="is of another reward"):
            load_reference(tmp_path / "ref.json", other)
    (tmp_path / "ref.json").write_text("[]")
    with pytest.raises(ModelError, match="is not a reference"):
        load_reference(tmp_path / "ref.json", "a reward")
    with pytest.raises(ModelError, match="has no scores"):
        score_reference("ref", "a reward", scored("p", None))
    with pytest.raises(ModelError, match="no attribute identity"):
        score_reference("ref", None, scored("p", 1.0))


def test_clips_are_listed_from_paths_and_lines(tmp_path: Path) -> None:
    for name in ("b.wav", "a.WAV", "notes.txt"):
        (tmp_path / name).write_text("")
    found = clips_at([LISTED_PATHS, tmp_path], "p", [f"{tmp_path}/notes.txt\n", "\n"])
    assert [clip.file.name for clip in found] == ["notes.txt", "a.WAV", "b.wav"]
    assert {clip.prompt for clip in found} == {"p"}
    with pytest.raises(AudioError, match="standard input is empty"):
        clips_at([LISTED_PATHS], "", ["\n"])
    (tmp_path / "none").mkdir()
    with pytest.raises(AudioError, match="no audio under"):
        clips_at([tmp_path / "none"], "", [])


def test_without_a_prompt_each_clip_has_the_recorded_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.wav").write_bytes(b"")
    (tmp_path / "a.json").write_text('{"prompt": "slow piano"}')
    assert [clip.prompt for clip in clips_at([tmp_path], None, [])] == ["slow piano", ""]
    assert [clip.prompt for clip in clips_at([tmp_path], "", [])] == ["", ""]
    (tmp_path / "t.csv").write_text("file,prompt\na.wav,\nb.wav,drums\n")
    assert [clip.prompt for clip in clips_in_table(tmp_path / "t.csv", None)] == ["slow piano", "drums"]


def test_a_table_has_a_prompt_and_a_system_per_file(tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    (tmp_path / "a.wav").write_text("")
    table.write_text('file,caption,system,more\na.wav,"slow, sad",one,\nb.wav,,,\n')
    assert clips_in_table(table, "else") == [
        Clip(tmp_path / "a.wav", "slow, sad", "one"), Clip(Path("b.wav"), "else", None)
    ]  # fmt: skip
    for text, said in {
        "path,prompt\na.wav,x\n": "has no column 'file'",
        "file,prompt\n,x\n": "line 2: column 'file' is empty",
        "file,prompt,caption\na.wav,x,y\n": "both columns",
        "file,prompt\n": "no rows",
        "file,prompt\na.wav\n": "1 values for 2 columns",
    }.items():
        table.write_text(text)
        with pytest.raises(CorpusError, match=said):
            clips_in_table(table, "")
