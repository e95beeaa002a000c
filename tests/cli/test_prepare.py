"""`plaudit prepare` as it is typed, on music in the layout of MTG-Jamendo, some of it broken."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from benchmarks.jamendo_folder import JamendoFolder, write_jamendo
from plaudit.audio import read_audio, write_wav
from plaudit.cli.main import app
from plaudit.corpus.manifest import split_of
from plaudit.corpus.shards import ShardSet
from plaudit.corpus.sources import CorpusSettings, ShardSource
from plaudit.errors import CorpusError
from plaudit.evaluate.embeddings import load_references
from plaudit.storage import read_json
from plaudit.synthetic.codec import load_synthetic_codec
from plaudit.tables import read_prompts
from tests.cli.command import Done
from tests.cli.command import plaudit as run
from tests.corpus.test_shards import contents


def command(kind: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "plaudit", "prepare", kind, *map(str, arguments)]


def plaudit(kind: str, *arguments: str | Path) -> Done:
    return run("prepare", kind, *arguments)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> JamendoFolder:
    """Twelve tracks of eight seconds, every second one broken in another way."""
    return write_jamendo(tmp_path_factory.mktemp("world"), 12, 8.0, 0.5, rate=16000, channels=1)


def jamendo_args(world: JamendoFolder, output: Path) -> list[str | Path]:
    small = ["--seconds", "2", "--clips-per-track", "3", "--shard-size", "6", "--batch", "4", "--json"]
    splits = ["--validation", "0.2", "--test", "0.2"]
    return [world.audio, "--captions", world.captions, "--rewards", world.scores, "-o", output, *small, *splits]


@pytest.fixture(scope="module")
def whole(world: JamendoFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "shards"
    made = plaudit("jamendo", *jamendo_args(world, output))
    assert made.code == 0, made.err
    report = json.loads(made.out)
    assert (report["clips"], report["quarantined"], report["folder"]) == (18, 6 + 2, str(output))
    return output


def test_every_clip_is_where_it_was_cut_from(world: JamendoFolder, whole: Path) -> None:
    shards, codec = ShardSet(whole), load_synthetic_codec()
    usable = [id for id in world.tracks if id not in world.broken]
    assert sorted({id.split("@")[0] for id in shards.ids}) == sorted(usable) and len(shards) == 3 * len(usable)
    for row in (0, 7, 17):
        track, start = shards.ids[row].split("@")
        path = next(p for p in (world.audio / f"{track}{end}.mp3" for end in ("", "_instrumental")) if p.is_file())
        wave, rate = read_audio(path)
        begin = round(float(start) * rate)
        expected = codec.encode(torch.from_numpy(wave[begin : begin + shards.frames * codec.hop])[None]).mean
        assert torch.allclose(shards.posterior(np.array([row])).mean, expected, atol=5e-2)


def test_splits_rewards_and_captions_are_those_of_the_track(world: JamendoFolder, whole: Path) -> None:
    shards = ShardSet(whole)
    captions = {item["path"][:-4]: item["caption"] for item in json.loads(world.captions.read_text())}
    by_track: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
    for id, split, caption, reward in zip(shards.ids, shards.splits, shards.captions, shards.rewards, strict=True):
        by_track[id.split("@")[0]].add((split, caption, f"{reward:.3f}"))
    assert all(len(facts) == 1 for facts in by_track.values())
    for track, ((split, caption, reward),) in by_track.items():
        place = world.tracks.index(track)
        assert split == split_of(track.partition("/")[2], 0.2, 0.2) and caption == captions[track]
        assert reward == (f"{place / 12:.3f}" if place % 2 == 0 else "nan")


def test_broken_files_are_reported(world: JamendoFolder, whole: Path) -> None:
    report = [json.loads(line) for line in (whole / "quarantine.jsonl").read_text().splitlines()]
    reasons = {
        "missing": "does not exist", "empty": "is empty", "truncated": "is truncated", "garbage": "cannot be decoded",
        "silent": "is silent", "short": "is too short",
    }  # fmt: skip
    found = defaultdict(set)
    for line in report:
        found[line["id"].split("@")[0]].add(line["reason"])
    assert found.keys() == world.broken.keys()
    for track, harm in world.broken.items():
        assert len(found[track]) == 1 and reasons[harm] in found[track].pop()


def test_a_dry_run_describes_the_result_and_writes_nothing(world: JamendoFolder, whole: Path, tmp_path: Path) -> None:
    report = plaudit("jamendo", *jamendo_args(world, tmp_path / "shards"), "--dry-run")
    assert report.code == 0, report.err
    estimate, shards = json.loads(report.out), ShardSet(whole)
    assert not (tmp_path / "shards").exists()
    # Silence is found only in decoding: a track of three clips is lost later.
    assert (estimate["tracks"], estimate["clips"], estimate["unusable"]) == (7, 18 + 3, 5)
    kept = sum((whole / name).stat().st_size for name in contents(whole) if name.endswith(".safetensors"))
    assert estimate["size"] * 18 / 21 == pytest.approx(kept, rel=0.1)
    assert sum(estimate["splits"].values()) == estimate["clips"] and estimate["captions"] == 7
    assert estimate["hours"] == pytest.approx(21 * shards.frames * shards.stats["hop"] / 16000 / 3600)
    assert (
        estimate["clips_per_second"] > 0
        and estimate["seconds"] >= 21 / estimate["clips_per_second"]
        and estimate["free"] > 0
    )


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    world: JamendoFolder, whole: Path, tmp_path: Path
) -> None:
    output, dice, kills = tmp_path / "shards", random.Random(2), 0
    for wanted in (0, 2):
        process = subprocess.Popen(command("jamendo", *jamendo_args(world, output)), stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if output.exists() and len(list(output.glob("latents-*"))) >= wanted:
                break
            time.sleep(0.001)
        time.sleep(dice.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills
    assert plaudit("jamendo", *jamendo_args(world, output)).code == 0
    assert contents(output) == contents(whole)
    assert len(set(ShardSet(output).ids)) == len(ShardSet(output)) == 18


@pytest.mark.slow
def test_ray_makes_the_same_bytes(world: JamendoFolder, whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra scale)")
    made = plaudit("jamendo", *jamendo_args(world, tmp_path / "shards"), "--engine", "ray")
    assert made.code == 0, made.err
    assert contents(tmp_path / "shards") == contents(whole)


def test_a_folder_of_short_clips_keeps_its_names(tmp_path: Path) -> None:
    for name in ("a", "b", "spare"):
        wave = 0.1 * np.random.default_rng(0).standard_normal(32000)
        write_wav(tmp_path / "music" / f"{name}.wav", wave.astype(np.float32), 16000)
    (tmp_path / "music" / "clips.csv").write_text("file,caption,liked\na.wav,calm,0.5\nb.wav,,1\n")
    rest = ["--captions", "clips.csv", "--reward-column", "liked", "--seconds", "2", "-o", tmp_path / "shards"]
    made = plaudit("folder", tmp_path / "music", *rest)
    assert made.code == 0, made.err
    shards = ShardSet(tmp_path / "shards")
    assert shards.ids == ["a"] and list(shards.rewards) == [0.5]
    assert "1 audio files have no caption" in made.err and "spare.wav" in made.err
    assert "the caption is empty" in (tmp_path / "shards" / "quarantine.jsonl").read_text()


def test_a_folder_of_another_data_set_is_left_alone(world: JamendoFolder, whole: Path, tmp_path: Path) -> None:
    """Nor is one of anything else; other settings need --yes."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "model.safetensors").write_bytes(b"weights")
    shards = tmp_path / "shards"
    shutil.copytree(whole, shards)
    table = tmp_path / "table.csv"
    table.write_text("file,caption\n00/100.mp3,calm\n")
    small = ["--seconds", "2", "--clips-per-track", "3", "--shard-size", "6", "--batch", "4"]

    def refused(message: str, *arguments: str | Path) -> None:
        before = {folder: contents(folder) for folder in (mine, shards)}
        with pytest.raises(CorpusError, match=message) as caught:
            app(["prepare", *map(str, arguments)], standalone_mode=False)
        assert "\n" not in str(caught.value) and {f: contents(f) for f in (mine, shards)} == before

    another = r"holds another data set \(data set jamendo, audio .*\); give this one a folder of its own with -o"
    refused(another, "folder", world.audio, "--captions", table, "-o", shards, *small)
    refused("holds files, but no shard set; choose another folder", "jamendo", *jamendo_args(world, mine))
    refused(
        r"other settings \(--batch was 4, is now 3\); add --yes",
        "jamendo",
        *jamendo_args(world, shards),
        "--batch",
        "3",
    )
    other = world.captions.with_name("other.json")
    other.write_text(world.captions.read_text())
    refused(another, "jamendo", world.audio, "--captions", other, "-o", shards, *small)
    other.unlink()
    app(["prepare", "jamendo", *map(str, jamendo_args(world, shards)), "--batch", "3", "--yes"], standalone_mode=False)
    assert read_json(shards / "source.json")["settings"]["--batch"] == 3 and len(ShardSet(shards)) == 18


def test_wrong_usage_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "captions.json").write_text('[{"path": "14/214.mp3", "caption": "x"}]')
    given = [tmp_path, "--captions", tmp_path / "captions.json", "-o", tmp_path / "shards"]
    nothing = plaudit("jamendo", *given)
    assert nothing.code == 1 and "none of the 1 clips" in nothing.err
    assert nothing.err.strip().count("\n") == 0 and "214.mp3 does not exist" in nothing.err
    for wrong in (["--engine", "spark"], ["--place", "middle"]):
        assert CliRunner().invoke(app, ["prepare", "jamendo", *map(str, given), *wrong]).exit_code == 2


def test_vocals_are_removed_except_from_instrumental_files(tmp_path: Path) -> None:
    """With an untrained separation model, which changes whatever it is given."""
    pytest.importorskip("demucs", reason="needs the extra separate")
    from tests.generate.test_separation import hybrid, save

    (tmp_path / "separator").mkdir()
    save(hybrid(), tmp_path / "separator", "aaaa")
    (tmp_path / "music").mkdir()
    noise = np.random.default_rng(0).standard_normal(32000).astype(np.float32) / 10
    for name in ("song", "song_instrumental"):
        write_wav(tmp_path / "music" / f"{name}.wav", noise, 16000)
    (tmp_path / "music" / "c.csv").write_text("file,caption\nsong.wav,a song\nsong_instrumental.wav,no voice\n")
    options = ["--captions", "c.csv", "--seconds", "2", "--validation", "0", "--test", "0"]
    made = []
    for passes in ("0", "1"):
        output = tmp_path / f"passes-{passes}"
        separation = ["--separate", passes, "--separator", str(tmp_path / "separator")]
        arguments = ["prepare", "folder", str(tmp_path / "music"), *options, *separation, "-o", str(output)]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        shards = ShardSet(output)
        made.append(dict(zip(shards.captions, shards.posterior(np.arange(2)).mean, strict=True)))
    plain, separated = made
    assert torch.equal(plain["no voice"], separated["no voice"])
    assert not torch.allclose(plain["a song"], separated["a song"], atol=0.1)


def test_captions_that_are_too_long_are_counted(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal(32000).astype(np.float32) / 10
    for name in "ab":
        write_wav(tmp_path / "music" / f"{name}.wav", noise, 16000)
    (tmp_path / "c.csv").write_text(f"file,caption\na.wav,calm\nb.wav,{'calm ' * 31}drums\n")
    words = ["prepare", "folder", tmp_path / "music", "--captions", tmp_path / "c.csv", "-o", tmp_path / "shards"]
    done = CliRunner().invoke(app, [str(word) for word in [*words, "--seconds", 2, "--json"]])
    assert done.exit_code == 0, done.output
    message = '1 of 2 captions are not read in full; in the first, only the first 31 words are read, not "drums"'
    assert message in done.stderr


def describer(folder: Path, tracks: int = 6) -> Path:
    """The Song Describer Dataset in small: tracks of two seconds, each with two captions."""
    rows = []
    for track in range(tracks):
        wave = 0.1 * np.random.default_rng(track).standard_normal(2 * 16000)
        (folder / "audio" / "00").mkdir(parents=True, exist_ok=True)
        write_wav(folder / "audio" / "00" / f"{track}.2min.wav", wave.astype(np.float32), 16000)
        rows += [f"{2 * track + n},{track},caption {n} of {track},00/{track}.wav" for n in range(2)]
    (folder / "song_describer.csv").write_text("caption_id,track_id,caption,path\n" + "\n".join(rows) + "\n")
    return folder


def test_song_describers_prompts_and_reference(tmp_path: Path) -> None:
    data, prompts, reference = describer(tmp_path / "sdd"), tmp_path / "prompts.csv", tmp_path / "sdd.safetensors"
    done = plaudit("song-describer", data, "--prompts", prompts, "-n", "4", "--reference", reference)
    assert done.code == 0, done.err
    assert done.out.splitlines() == [f"Prompts: {prompts}", f"Reference of 6 tracks: {reference}"]
    drawn = read_prompts(prompts)
    tracks = [int(text.split()[-1]) for text in drawn]
    assert len(drawn) == 4 and tracks == sorted(set(tracks)) and all(text.startswith("caption ") for text in drawn)
    [stored] = load_references(reference)
    assert (stored.embedding, stored.clips) == ("synthetic", 6) and stored.embeddings is not None
    files = [tmp_path / f"{name}.csv" for name in ("again", "other")]
    for file, seed in zip(files, ("0", "1"), strict=True):
        assert plaudit("song-describer", data, "--prompts", file, "-n", "4", "--seed", seed).code == 0
    assert read_prompts(files[0]) == drawn != read_prompts(files[1])
    assert not (tmp_path / "shards").exists()


def test_song_describer_says_what_it_cannot_write(tmp_path: Path) -> None:
    data = describer(tmp_path / "sdd", 2)
    nothing = plaudit("song-describer", data)
    assert nothing.code == 2 and "give --output, --prompts or --reference" in " ".join(nothing.err.split())
    few = plaudit("song-describer", data, "--prompts", tmp_path / "prompts.csv")
    assert few.code == 1 and "2 captioned tracks for 100 prompts; lower --count" in " ".join(few.err.split())
    assert not (tmp_path / "prompts.csv").exists()
    made = plaudit("song-describer", data, "-o", tmp_path / "shards", "--seconds", "1", "--json")
    assert made.code == 0 and json.loads(made.out)["clips"] == 4


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """Six tracks of five seconds, the last a copy of the first, prepared as published: the set, report and messages."""
    folder = tmp_path_factory.mktemp("published")
    world = write_jamendo(folder, 6, 5.0, 0.0, rate=16000, channels=1)
    first, last = (next(world.audio.glob(f"{world.tracks[n]}*.mp3")) for n in (0, 5))
    last.write_bytes(first.read_bytes())
    blocks = [
        f"{id}.mp3\nT by A from Jamendo: http://x/{n}\nAvailable: http://creativecommons.org/licenses/{kind}/3.0/\n"
        for n, (id, kind) in enumerate(zip(world.tracks, ["by", "by-nc-sa", "by", "by-sa", "by"], strict=False))
    ]
    (folder / "audio_licenses.txt").write_text("\n".join(blocks))
    scores = "".join(f"jamendo_{id.replace('/', '_')},0.5,{n}\n" for n, id in enumerate(world.tracks[:5]))
    (folder / "scores.csv").write_text(
        f"track_id,reward_score,instrumental_reward_score\n{scores}jamendo_99_99999,1,1\n"
    )
    made = plaudit(
        "jamendo", world.audio, "--captions", world.captions, "-o", folder / "shards", "--seconds", "2", "--json",
        "--place", "published", "--peak", "0.95", "--validation", "0.3", "--test", "0.3",
        "--rewards", folder / "scores.csv", "--reward-column", "instrumental_reward_score",
        "--licences", folder / "audio_licenses.txt",
    )  # fmt: skip
    assert made.code == 0, made.err
    return folder / "shards", json.loads(made.out), made.err


def test_a_set_prepared_as_published_counts_what_it_is_made_of(published: tuple[Path, dict[str, Any], str]) -> None:
    folder, report, messages = published
    shards = ShardSet(folder)
    by_track = defaultdict(list)
    for id, split, licence, reward in zip(shards.ids, shards.splits, shards.licences, shards.rewards, strict=True):
        by_track[id.split("@")[0]].append((id, split, licence, reward))
    tracks = [f"{n % 100:02d}/{n}" for n in (214 + 97 * i for i in range(6))]
    assert sorted(by_track) == sorted(tracks) and report["clips"] == len(shards) == 12
    second = float(by_track[tracks[1]][1][0].split("@")[1])
    assert 2.99 <= second < 3.2  # it ends where the file does, whose MP3 frames are a little more than five seconds
    assert {row[1] for row in by_track[tracks[5]]} == {row[1] for row in by_track[tracks[0]]}
    assert [by_track[t][0][2] for t in tracks] == [
        "CC-BY-3.0", "CC-BY-NC-SA-3.0", "CC-BY-3.0", "CC-BY-SA-3.0", "CC-BY-3.0", "",
    ]  # fmt: skip
    assert [by_track[t][0][3] for t in tracks[:5]] == [0, 1, 2, 3, 4] and np.isnan(by_track[tracks[5]][0][3])
    assert report["duplicate_files"] == 1
    assert report["licences"] == {"CC-BY-3.0": 6, "CC-BY-NC-SA-3.0": 2, "CC-BY-SA-3.0": 2}
    for line in (
        "1 files are copies of others by content", "1 tracks have no score", "1 of 6 scores in",
        "jamendo_99_99999", "1 tracks have no licence in the table",
    ):  # fmt: skip
        assert line in messages


def test_recipes_take_the_set_only_as_it_was_prepared(published: tuple[Path, dict[str, Any], str]) -> None:
    folder = published[0]

    def source(**settings: Any) -> ShardSource:
        return ShardSource(CorpusSettings(kind="shards", folder=folder, seconds=2, **settings))

    source().check_preparation()
    source(place="published", peak=0.95, clips_per_track=10, duplicates="together").check_preparation()
    for change, said in (
        ({"place": "start"}, "prepared with --place published, the recipe has corpus.place start"),
        ({"peak": 0.5}, "prepared with --peak 0.95, the recipe has corpus.peak 0.5"),
        ({"duplicates": "separate"}, "prepared with --duplicates together, the recipe has corpus.duplicates separate"),
        ({"clips_per_track": 3}, "prepared with --clips-per-track 10"),
    ):
        with pytest.raises(CorpusError, match=said):
            source(**change).check_preparation()
