"""Which clips belong to which prompts."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from plaudit.errors import PlauditError
from plaudit.evaluate.prompt_matching import match_prompts
from plaudit.sidecars import mark_candidates


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out" / "more").mkdir(parents=True)
    for name in ("000.wav", "001.flac", "more/x.mp3"):
        (tmp_path / "out" / name).write_bytes(b"")
    return tmp_path / "out"


def listed(tmp_path: Path, text: str, name: str = "p.csv") -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_ids_find_their_files_and_numbers_may_have_zeros(folder: Path, tmp_path: Path) -> None:
    found, notes = match_prompts(folder, listed(tmp_path, "id,prompt\n0,piano\n1,drums\nmore/x,both\n"))
    assert notes == []
    assert [(e.id, e.prompt) for e in found] == [("0", "piano"), ("1", "drums"), ("more/x", "both")]
    assert [e.file for e in found] == [folder / name for name in ("000.wav", "001.flac", "more/x.mp3")]


def test_missing_files_and_prompts_are_reported(folder: Path, tmp_path: Path) -> None:
    found, notes = match_prompts(folder, listed(tmp_path, "id,caption\n1,drums\n7,bells\n"))
    assert [e.error is None for e in found] == [True, False]
    assert "is called '7'" in str(found[1].error)
    (note,) = notes
    assert "2 of 3 files" in note and "000.wav" in note and "x.mp3" in note


def test_files_can_be_named_by_the_list(folder: Path, tmp_path: Path) -> None:
    found, _ = match_prompts(folder, listed(tmp_path, "file,prompt\n000.wav,piano\nnone.wav,drums\n"))
    assert (found[0].id, found[0].file) == ("000", folder / "000.wav")
    assert found[1].file is None and "none.wav does not exist" in str(found[1].error)
    both, _ = match_prompts(folder, listed(tmp_path, "id,file,prompt\na,000.wav,piano\n"))
    assert [(e.id, e.file) for e in both] == [("a", folder / "000.wav")]


def test_a_list_of_lines_counts_from_one(folder: Path, tmp_path: Path) -> None:
    found, notes = match_prompts(folder, listed(tmp_path, "drums\n", "p.txt"))
    assert (found[0].id, found[0].file) == ("1", folder / "001.flac") and len(notes) == 1


def test_a_table_supplies_prompts(folder: Path, tmp_path: Path) -> None:
    table = listed(tmp_path, "file,caption,id\nout/000.wav,piano,a\nout/001.flac,drums,\n")
    found, notes = match_prompts(table, None)
    assert [(e.id, e.prompt) for e in found] == [("a", "piano"), ("out/001", "drums")] and notes == []


def generated(folder: Path, *clips: tuple[str, str, int]) -> None:
    """Clips as plaudit generate leaves them: (name, prompt, seed)."""
    for name, prompt, seed in clips:
        (folder / f"{name}.wav").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.wav").write_bytes(b"")
        (folder / f"{name}.json").write_text(json.dumps({"prompt": prompt, "seed": seed, "sampling": {}}))


def test_clips_are_matched_by_recorded_prompts(tmp_path: Path) -> None:
    out = tmp_path / "out"
    generated(out, *((f"1-slow-piano-{s}", "slow piano", s) for s in (0, 1)), ("2-drums-2", "drums", 2))
    generated(out, ("2-drums-3", "drums", 3), ("bells-0", "bells", 0), ("candidates/drums-4", "drums", 4))
    mark_candidates(out / "candidates")
    entries, notes = match_prompts(out, listed(tmp_path, "slow piano\ndrums\nharp\n", "p.txt"))
    assert [(e.id, e.prompt, e.seed, e.file and e.file.stem) for e in entries] == [
        ("1", "slow piano", 0, "1-slow-piano-0"), ("1", "slow piano", 1, "1-slow-piano-1"),
        ("2", "drums", 2, "2-drums-2"), ("2", "drums", 3, "2-drums-3"), ("3", "harp", None, None),
    ]  # fmt: skip
    assert "was generated from that prompt; generate it" in str(entries[-1].error)
    assert len(notes) == 2 and "candidates" in notes[0] and "1 of 5 files" in notes[1] and "bells-0" in notes[1]
    entries, _ = match_prompts(out, listed(tmp_path, "prompt\tid\ndrums\tx\n", "p.tsv"))
    assert [(e.id, e.seed) for e in entries] == [("x", 2), ("x", 3)]


def test_a_duplicate_prompt_divides_its_clips(tmp_path: Path) -> None:
    out = tmp_path / "out"
    generated(out, *((f"{i + 1}-a-{2 * i + k}", "a", 2 * i + k) for i in (0, 1) for k in (0, 1)))
    entries, _ = match_prompts(out, listed(tmp_path, "a\na\n", "p.txt"))
    assert [(e.id, e.seed) for e in entries] == [("1", 0), ("1", 1), ("2", 2), ("2", 3)]
    (out / "2-a-3.wav").unlink()
    with pytest.raises(PlauditError, match="3 clips were generated from 'a', which is listed 2 times"):
        match_prompts(out, listed(tmp_path, "a\na\n", "p.txt"))


def test_clips_of_several_settings_are_noted(tmp_path: Path) -> None:
    generated(tmp_path, ("a-0", "a", 0), ("b-0", "b", 0))
    assert match_prompts(tmp_path, None)[1] == []
    (tmp_path / "b-0.json").write_text(json.dumps({"prompt": "b", "seed": 0, "sampling": {"steps": 3}}))
    assert "generated in 2 ways" in match_prompts(tmp_path, None)[1][0]


def test_nothing_to_evaluate_is_an_immediate_error(folder: Path) -> None:
    with pytest.raises(PlauditError, match=r"none of 3 clips can be evaluated; the first: .*give --prompts"):
        match_prompts(folder, None)


def test_clips_of_plaudit_generate_use_their_sidecars(folder: Path) -> None:
    (folder / "000.json").write_text(json.dumps({"prompt": " piano ", "seed": 0}))
    (folder / "001.json").write_text("{}")
    found, _ = match_prompts(folder, None)
    assert [(e.id, e.prompt, e.error is None) for e in found] == [
        ("000", "piano", True), ("001", "", False), ("more/x", "", False)
    ]  # fmt: skip
    assert "give --prompts" in str(found[1].error)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,prompt\n1,a\n001,b\n", "id '001' stands there twice"),
        ("id,prompt\n1,\n", "line 2: the prompt is empty"),
        ("id,prompt\n,a\n", "line 2: column 'id' is empty"),
        ("id,prompt\n", "no rows"),
        ("id,words\n1,a\n", "no column 'prompt' or 'caption'"),
        ("id,prompt,caption\n1,a,b\n", "both columns"),
        ("name,prompt\n1,a\n", "no column 'id'"),
        ("file,prompt\n,a\n", "column 'file' is empty"),
        ("", "is empty"),
    ],
)
def test_malformed_lists_are_one_line(folder: Path, tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(PlauditError) as error:
        match_prompts(folder, listed(tmp_path, text))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_two_files_of_one_id_and_prompts_beside_a_table_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "1.wav").write_bytes(b"")
    prompts = listed(tmp_path, "id,prompt\n1,a\n")
    with pytest.raises(PlauditError, match=r"id '1' has 2 files, 001\.flac and 1\.wav"):
        match_prompts(folder, prompts)
    with pytest.raises(PlauditError, match="without --prompts"):
        match_prompts(prompts, prompts)
    with pytest.raises(PlauditError, match="does not exist"):
        match_prompts(tmp_path / "nowhere", None)
    (tmp_path / "none").mkdir()
    with pytest.raises(PlauditError, match="no audio"):
        match_prompts(tmp_path / "none", None)


def test_ids_match_in_either_unicode_normalization(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / unicodedata.normalize("NFD", "größe.wav")).touch()
    prompts = tmp_path / "prompts.csv"
    for column, name in (("id", "größe"), ("file", "größe.wav")):
        prompts.write_text(unicodedata.normalize("NFC", f"{column},prompt\n{name},x\n"), encoding="utf-8")
        (found,), notes = match_prompts(tmp_path / "clips", prompts)
        assert found.file is not None and found.error is None and notes == []
    table = tmp_path / "prompts.tsv"
    table.write_text(unicodedata.normalize("NFC", "id\tprompt\ngröße\tslow, sad\n"), encoding="utf-8")
    (found,), _ = match_prompts(tmp_path / "clips", table)
    assert found.prompt == "slow, sad" and found.error is None
