"""`plaudit evaluate` and `plaudit concepts` as they are typed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from plaudit.audio import write_wav
from plaudit.synthetic.corpus import SyntheticCorpus
from tests.cli.command import Done
from tests.cli.command import plaudit as run

Plaudit = Callable[..., Done]


@pytest.fixture
def plaudit(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Plaudit:
    """The command with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    return run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders out (six clips, 0 to 5) and music (eight), and prompts.csv."""
    root = tmp_path_factory.mktemp("world")
    lines = ["id,prompt"]
    for name, count, seed in (("out", 6, 41), ("music", 8, 42)):
        corpus = SyntheticCorpus(count, 3.0, seed, flawed_fraction=0.0, miscaptioned_fraction=0.0)
        for number, clip in enumerate(corpus.clips):
            write_wav(root / name / f"{number}.wav", corpus.render(clip), corpus.rate)
            lines += [f'{number},"{clip.caption}"'] if name == "out" else []
    (root / "prompts.csv").write_text("\n".join(lines) + "\n")
    return root


def test_a_folder_against_music_and_then_against_its_statistics(plaudit: Plaudit, world: Path, tmp_path: Path) -> None:
    stats, saved = tmp_path / "music.safetensors", tmp_path / "e"
    common = ("evaluate", world / "out", "--prompts", world / "prompts.csv")
    encoders = ("--embedding", "synthetic", "--embedding", "statistics")
    first = plaudit(
        *common, "--reference", world / "music", *encoders, "--export-reference", stats, "-o", saved, "--json"
    )
    assert first.code == 0, first.err
    summary = json.loads(first.out)
    assert summary == json.loads((saved / "summary.json").read_text())
    values = {(m["metric"], m["embedding"]): m["value"] for m in summary["metrics"]}
    assert {("frechet", "synthetic"), ("frechet", "statistics"), ("reward", "")} <= set(values)
    assert summary["settings"]["detector_errors"]["missed"]["genre"]["total"] > 100
    with (saved / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == list("012345") and float(rows[0]["clip-frechet-statistics"]) > 0

    again = plaudit(*common, "--reference", stats, *encoders, "--metric", "frechet", "--json")
    assert again.code == 0, again.err
    by_stats = {m["embedding"]: m["value"] for m in json.loads(again.out)["metrics"]}
    assert by_stats == {name: values["frechet", name] for name in ("synthetic", "statistics")}

    refused = plaudit(*common, "--reference", stats, "--metric", "kernel")
    assert refused.code == 1 and "export it --with-embeddings" in refused.err
    assert len(refused.err.splitlines()) == 1
    table = plaudit(*common, "--reference", stats)
    assert table.code == 0 and "matching clips reach 0." in table.out


def test_the_table_of_the_readme(plaudit: Plaudit, world: Path, tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    table.write_text(f"file,caption\n{world}/out/0.wav,piano\n{world}/out/1.wav,calm drums\n")
    done = plaudit("evaluate", table, "--reference", world / "music", "--csv", "-")
    assert done.code == 0, done.err
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["prompt"] for row in rows] == ["piano", "calm drums"] and "clip-frechet-synthetic" in rows[0]


def test_missing_damaged_and_unmatched_clips_are_a_line_each(plaudit: Plaudit, world: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for number in range(3):
        (tmp_path / "out" / f"{number}.wav").write_bytes((world / "out" / f"{number}.wav").read_bytes())
    (tmp_path / "out" / "3.wav").write_bytes(b"")
    (tmp_path / "p.csv").write_text("id,prompt\n0,piano\n1,drums\n3,bells\n9,flute\n")
    done = plaudit("evaluate", tmp_path / "out", "--prompts", tmp_path / "p.csv", "--metric", "reward", "--json")
    assert done.code == 1
    assert "1 of 4 files" in done.err and "3.wav is empty" in done.err and "is called '9'" in done.err
    assert "2 of 4 clips have no values and are in no mean" in done.err
    assert json.loads(done.out)["metrics"][0]["clips"] == 2


def test_clips_in_the_reference_are_noted(plaudit: Plaudit, world: Path) -> None:
    common = ("evaluate", world / "out", "--prompts", world / "prompts.csv")
    done = plaudit(*common, "--reference", world / "out", "--metric", "frechet")
    assert done.code == 0 and "6 of the clips are files of the reference too" in done.err


def test_a_reference_of_another_encoder_is_refused(plaudit: Plaudit, world: Path, tmp_path: Path) -> None:
    stats = tmp_path / "s"
    common = ("evaluate", world / "out", "--prompts", world / "prompts.csv", "--metric", "frechet")
    made = plaudit(
        *common, "--reference", world / "music", "--embedding", "statistics", "--export-reference", stats
    )
    assert made.code == 0, made.err
    refused = plaudit(*common, "--reference", stats)
    assert refused.code == 1 and len(refused.err.splitlines()) == 1
    assert "is of the embedding 'statistics', not of 'synthetic'" in refused.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--metric", "fad"), 1, "no metric 'fad'"),
        (("--embedding", "nowhere"), 1, "no audio encoder 'nowhere'"),
        (("--embedding", "synthetic", "--embedding", "synthetic"), 1, "named twice"),
        (("--vocabulary", "nowhere.yaml"), 1, "nowhere.yaml does not exist"),
        (("--concept-errors", "nowhere.json"), 1, "holds no error rates"),
        (("--reference", "nowhere"), 1, "nowhere does not exist"),
        (("--metric", "frechet"), 1, "give --reference"),
        (("--export-reference", "x"), 2, "needs a --reference"),
    ],
)
def test_usage_errors_give_advice(
    plaudit: Plaudit, world: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = plaudit("evaluate", world / "out", "--prompts", world / "prompts.csv", *arguments)
    assert done.code == code and said in " ".join(done.err.split())
    assert code == 2 or len(done.err.splitlines()) == 1


def test_a_folder_without_prompts_is_an_error_with_advice(plaudit: Plaudit, world: Path) -> None:
    done = plaudit("evaluate", world / "out")
    assert done.code == 1 and "give --prompts" in done.err and len(done.err.splitlines()) == 1


def test_a_detector_is_measured_and_its_rates_are_used(plaudit: Plaudit, world: Path, tmp_path: Path) -> None:
    words, errors = tmp_path / "words.yaml", tmp_path / "errors.json"
    words.write_text("genre:\n  text: '{} music'\n  per_clip: 1\n  concepts:\n    jazz: [jazz]\n    rock: [rock]\n")
    options = ("--detector", "clap", "--vocabulary", words)
    made = plaudit("concepts", *options, "--clips", 12, "--seconds", 3, "--codec", "synthetic", "-o", errors, "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["detector"].startswith("zero-shot ")
    common = ("evaluate", world / "out", "--prompts", world / "prompts.csv", "--metric", "concepts", *options, "--json")
    used = json.loads(plaudit(*common, "--concept-errors", errors).out)
    measured = used["settings"]["detector_errors"]["measured_on"]
    assert measured == "12 clean synthetic clips of 3 s, corpus 811, as the codec synthetic returns them"
    assert json.loads(plaudit(*common).out)["settings"]["detector_errors"] is None
