"""`plaudit votes`: published layouts to files, and files checked."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from plaudit.audio import read_audio
from plaudit.cli.main import app
from plaudit.errors import ModelError, VoteError
from plaudit.models.fetch import dataset_from_hub
from plaudit.reward.sources.importing import split_by_ids
from plaudit.reward.system_votes import read_system_votes
from plaudit.reward.votes import read_votes, write_votes
from plaudit.types import Vote
from tests.reward.sources import layouts
from tests.reward.sources.layouts import battle


def votes_command(*arguments: object) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["votes", *map(str, arguments), "--json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return {"exit": done.exit_code, **json.loads(done.stdout)}


def clips(folder: Path) -> dict[str, str]:
    with (folder / "clips.csv").open() as file:
        return {row["id"]: row["file"] for row in csv.DictReader(file)}


def test_import_references_files_and_writes_votes(tmp_path: Path) -> None:
    source = layouts.music_arena(tmp_path / "in", [battle(n, preference="AB"[n % 2]) for n in range(4)])
    (source / "list_audio_files" / "07-2026FEB" / "3b.wav").unlink()
    said = votes_command("import", "music-arena", source, "-o", tmp_path / "out")
    assert said["splits"]["votes"]["votes"] == 4 and said["splits"]["votes"]["systems"] == 2
    assert said["clips_with_audio"] == 7 and said["remarks"] == [f"1 clips have no audio under {source}"]
    assert len(read_votes(tmp_path / "out" / "votes.jsonl")) == 4
    assert clips(tmp_path / "out")["uuid-0_a"] == "../in/list_audio_files/07-2026FEB/0a.wav"
    checked = votes_command("check", tmp_path / "out" / "votes.jsonl", "--audio", tmp_path / "out" / "clips.csv")
    assert checked["exit"] == 1
    assert checked["doubts"] == [f"1 clips are not in {tmp_path / 'out' / 'clips.csv'}: uuid-3_b"]


def test_import_extracts_clips_from_parquet_on_request(tmp_path: Path) -> None:
    source, out = layouts.musicprefs(tmp_path / "in"), tmp_path / "out"
    said = votes_command("import", "musicprefs", source, "-o", out)
    assert said["remarks"] == ["5 clips lie inside Parquet files; --audio FOLDER writes them"] and clips(out) == {}
    said = votes_command("import", "musicprefs", source, "-o", out, "--audio", out / "clips")
    assert said["clips_with_audio"] == 5 and clips(out)["z_1"] == "clips/z_1.wav"
    wave, rate = read_audio(out / "clips" / "z_1.wav")
    assert np.abs(np.fft.rfft(wave)).argmax() * rate / len(wave) == pytest.approx(420, abs=2)
    assert votes_command("check", out / "votes.jsonl", "--audio", out / "clips.csv")["doubts"] == [
        "2 decided votes for 4 systems are too few to tell them apart"
    ]


def test_excerpts_are_cut_as_played_to_listeners(tmp_path: Path) -> None:
    out = tmp_path / "out"
    votes_command("import", "aime", layouts.aime(tmp_path / "in"), "-o", out, "--audio", out)
    wave, rate = read_audio(out / clips(out)["aime-05331-2"])
    assert len(wave) == rate
    assert np.abs(np.fft.rfft(wave)).argmax() == pytest.approx(1000, abs=2)
    assert sorted(path.name for path in out.iterdir()) == [
        "aime-01226-0.wav",
        "aime-05331-2.wav",
        "clips.csv",
        "votes.jsonl",
    ]


def test_a_clip_that_is_not_audio_is_reported_and_skipped(tmp_path: Path) -> None:
    cells = [{"bytes": b"", "path": "x_0.wav"}]
    source = layouts.musicprefs(tmp_path / "in")
    layouts.write_parquet(source / "data" / "train-00000-of-00002.parquet", {"audio": cells}, ("audio",))
    said = votes_command("import", "musicprefs", source, "-o", tmp_path / "out", "--audio", tmp_path / "out")
    assert len(said["unusable"]) == 1 and "no audio for x_0" in said["unusable"][0]
    assert said["clips_with_audio"] == 2


def test_published_splits_make_a_file_each(tmp_path: Path) -> None:
    source = layouts.music_arena(tmp_path / "in", [battle(n) for n in range(5)])
    split = {"metadata": {}, "train": ["uuid-4", "uuid-0"], "valid": ["uuid-1"], "test": ["uuid-2", "gone"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    out = tmp_path / "out"
    said = votes_command("import", "music-arena", source, "-o", out, "--splits", tmp_path / "split.json")
    assert {part: row["votes"] for part, row in said["splits"].items()} == {"train": 2, "validation": 1, "test": 1}
    assert [vote.id for vote in read_votes(out / "train.jsonl")] == ["uuid-4", "uuid-0"]
    assert said["remarks"] == [f"1 ids of {tmp_path / 'split.json'} are not among the votes"]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"train": ["v0"], "test": ["v1"]}, "no list of ids under 'validation or valid or val'"),
        ({"train": ["v0"], "val": ["v0"], "test": ["v1"]}, "names an id twice"),
        ({"train": ["v0"], "val": ["x"], "test": ["v1"]}, "none of the 1 ids under validation is among these 2 votes"),
        ([], "no list of ids under 'train'"),
    ],
)
def test_splits_that_do_not_fit_are_refused(tmp_path: Path, split: Any, message: str) -> None:
    (tmp_path / "split.json").write_text(json.dumps(split))
    with pytest.raises(VoteError, match=message):
        split_by_ids([vote(0), vote(1)], tmp_path / "split.json")


def vote(number: int, winner: str = "a", systems: tuple[str, str] = ("one", "two")) -> Vote:
    return Vote(f"v{number}", "calm", f"x{number}", f"y{number}", winner, *systems, "test", "")  # type: ignore[arg-type]


def test_check_reports_weaknesses_of_votes(tmp_path: Path) -> None:
    file = tmp_path / "votes.csv"
    write_votes(file, [vote(0), vote(1, "b"), vote(2, "tie")])
    assert votes_command("check", file) == {
        "exit": 0, "votes": 3, "ties": 1, "both_bad": 0, "without_prompt": 0, "systems": 2, "prompts": 1, "clips": 6,
        "listeners": 0, "doubts": [],
    }  # fmt: skip
    write_votes(file, [vote(0, systems=("one", "one")), vote(1)])
    said = votes_command("check", file)
    assert said["exit"] == 1 and len(said["doubts"]) == 2
    assert "every decided vote is for a" in said["doubts"][0] and "a system with itself" in said["doubts"][1]
    write_votes(file, [vote(0, "tie"), vote(1, "tie")])
    assert votes_command("check", file)["doubts"] == ["all 2 votes are ties; nothing can be learned from them"]
    write_votes(file, [vote(n, "ab"[n % 2]) for n in range(5)])
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "x0.wav").write_bytes(layouts.wav(300))
    (doubt,) = votes_command("check", file, "--audio", tmp_path / "clips")["doubts"]
    assert doubt.startswith("9 clips are not in") and doubt.endswith("y0, x1, y1, x2, y2, x3, y3, x4, y4")


def test_a_data_set_without_a_network_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"ASLP-lab/SongEval is not in the cache and offline mode is on") as error:
        dataset_from_hub("ASLP-lab/SongEval", tmp_path / "songeval")
    assert "\n" not in str(error.value)


BATTLES = "preference,system_a,system_b\nA,u,v\na,u,v\nB,w,u\nTIE,v,w\nBOTH_BAD,u,v\nA,u,u\n"


def test_a_leaderboard_ranks_systems_and_leaves_out_both_bad(tmp_path: Path) -> None:
    (tmp_path / "battles.csv").write_text(BATTLES)
    board = votes_command("leaderboard", tmp_path / "battles.csv")
    best = board["strengths"][0]
    assert (best["system"], best["rank"], best["votes"]) == ("u", 1, 3)
    assert (board["votes"], board["ties"], board["both_bad"], board["resampled"]) == (4, 1, 1, "votes")
    assert best["strength"]["low"] <= best["strength"]["mean"] <= best["strength"]["high"]
    names = ("winner", "system_a", "system_b")
    records = [dict(zip(names, line.split(","), strict=True)) for line in BATTLES.split()[1:]]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert votes_command("leaderboard", tmp_path / "votes.jsonl") == board
    half = votes_command("leaderboard", tmp_path / "battles.csv", "--ties", "half", "--prior-sd", "1")
    assert half["tie"] is None and half["strengths"][0]["arena_score"] < board["strengths"][0]["arena_score"]


def test_a_leaderboard_says_which_systems_cannot_be_compared(tmp_path: Path) -> None:
    rows = "".join(f"a,{a},{b},l{k}\n" for k in range(3) for a, b in (("u", "v"), ("x", "y")))
    (tmp_path / "votes.csv").write_text("winner,system_a,system_b,listener\n" + rows)
    done = CliRunner().invoke(app, ["votes", "leaderboard", str(tmp_path / "votes.csv")])
    assert done.exit_code == 0 and "intervals are over listeners" in done.stderr
    assert "no vote links these groups of systems, whose scores cannot be compared: u, v; x, y" in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("winner,system_a,system_b\nA,u,\n", "line 2: field 'system_b' is empty"),
        ("winner,system_a,system_b\nleft,u,v\n", "line 2: field 'winner' (or 'preference') must be one of a, "),
        ("winner,system_a\nA,u\n", "has no column 'system_b'"),
        ("winner,system_a,system_b\nA,u,u\n", "holds no votes between two systems"),
    ],
)
def test_votes_that_no_leaderboard_can_use_are_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "votes.csv").write_text(content)
    with pytest.raises(VoteError) as raised:
        read_system_votes(tmp_path / "votes.csv")
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_vote_in_jsonl_must_be_an_object_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    number = '{"system_a": 1, "system_b": "v"}'
    for line, message in (("3", "a vote is an object"), (number, "'system_a' must be text")):
        path.write_text(line)
        with pytest.raises(VoteError, match=message):
            read_system_votes(path)
