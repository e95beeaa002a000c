"""`plaudit evaluate` and `plaudit concepts` as they are typed."""

from __future__ import annotations

import csv
import io
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from plaudit.audio import write_wav
from plaudit.cli.main import main
from plaudit.synthetic.corpus import SyntheticCorpus


@dataclass(frozen=True)
class Done:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


Plaudit = Callable[..., Done]


@pytest.fixture
def plaudit(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Plaudit:
    """The command in this process: loading PyTorch again for each of these tests takes longer than they do."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))

    def run(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["plaudit", *map(str, arguments)])
        before = signal.getsignal(signal.SIGINT)
        try:
            main()
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
        finally:
            signal.signal(signal.SIGINT, before)
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

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
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    assert told == json.loads((saved / "summary.json").read_text())
    values = {(m["metric"], m["embedding"]): m["value"] for m in told["metrics"]}
    assert {("frechet", "synthetic"), ("frechet", "statistics"), ("reward", "")} <= set(values)
    assert told["settings"]["detector_errors"]["missed"]["genre"]["asked"] > 100
    with (saved / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == list("012345") and float(rows[0]["clip-frechet-statistics"]) > 0

    again = plaudit(*common, "--reference", stats, *encoders, "--metric", "frechet", "--json")
    assert again.returncode == 0, again.stderr
    by_stats = {m["embedding"]: m["value"] for m in json.loads(again.stdout)["metrics"]}
    assert by_stats == {name: values["frechet", name] for name in ("synthetic", "statistics")}

    refused = plaudit(*common, "--reference", stats, "--metric", "kernel")
    assert refused.returncode == 1 and "export it --with-embeddings" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    table = plaudit(*common, "--reference", stats)
    assert table.returncode == 0 and "matching clips reach 0." in table.stdout


def test_the_table_of_the_readme(plaudit: Plaudit, world: Path, tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    table.write_text(f"file,caption\n{world}/out/0.wav,piano\n{world}/out/1.wav,calm drums\n")
    done = plaudit("evaluate", table, "--reference", world / "music", "--csv", "-")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["prompt"] for row in rows] == ["piano", "calm drums"] and "clip-frechet-synthetic" in rows[0]


def test_missing_damaged_and_unasked_clips_are_a_line_each(plaudit: Plaudit, world: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for number in range(3):
        (tmp_path / "out" / f"{number}.wav").write_bytes((world / "out" / f"{number}.wav").read_bytes())
    (tmp_path / "out" / "3.wav").write_bytes(b"")
    (tmp_path / "p.csv").write_text("id,prompt\n0,piano\n1,drums\n3,bells\n9,flute\n")
    done = plaudit("evaluate", tmp_path / "out", "--prompts", tmp_path / "p.csv", "--metric", "reward", "--json")
    assert done.returncode == 1
    assert "1 of 4 files" in done.stderr and "3.wav is empty" in done.stderr and "is called '9'" in done.stderr
    assert "2 of 4 clips have no values and are in no mean" in done.stderr
    assert json.loads(done.stdout)["metrics"][0]["clips"] == 2


def test_clips_that_are_the_reference_are_told(plaudit: Plaudit, world: Path) -> None:
    common = ("evaluate", world / "out", "--prompts", world / "prompts.csv")
    done = plaudit(*common, "--reference", world / "out", "--metric", "frechet")
    assert done.returncode == 0 and "6 of the clips are files of the reference too" in done.stderr


def test_a_reference_of_another_encoder_is_refused(plaudit: Plaudit, world: Path, tmp_path: Path) -> None:
    stats = tmp_path / "s"
    common = ("evaluate", world / "out", "--prompts", world / "prompts.csv", "--metric", "frechet")
    made = plaudit(
        *common, "--reference", world / "music", "--embedding", "statistics", "--export-reference", stats
    )
    assert made.returncode == 0, made.stderr
    refused = plaudit(*common, "--reference", stats)
    assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1
    assert "is of the embedding 'statistics', not of 'synthetic'" in refused.stderr


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
def test_wrong_usage_says_what_to_do(
    plaudit: Plaudit, world: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = plaudit("evaluate", world / "out", "--prompts", world / "prompts.csv", *arguments)
    assert done.returncode == code and said in " ".join(done.stderr.split())
    assert code == 2 or len(done.stderr.splitlines()) == 1


def test_a_folder_without_prompts_says_how_to_give_them(plaudit: Plaudit, world: Path) -> None:
    done = plaudit("evaluate", world / "out")
    assert done.returncode == 1 and "give --prompts" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_detector_is_measured_and_its_rates_are_used(plaudit: Plaudit, world: Path, tmp_path: Path) -> None:
    words, errors = tmp_path / "words.yaml", tmp_path / "errors.json"
    words.write_text("genre:\n  text: '{} music'\n  heard: 1\n  concepts:\n    jazz: [jazz]\n    rock: [rock]\n")
    options = ("--detector", "clap", "--vocabulary", words)
    made = plaudit("concepts", *options, "--clips", 12, "--seconds", 3, "--codec", "synthetic", "-o", errors, "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["detector"].startswith("zero-shot ")
    common = ("evaluate", world / "out", "--prompts", world / "prompts.csv", "--metric", "concepts", *options, "--json")
    used = json.loads(plaudit(*common, "--concept-errors", errors).stdout)
    measured = used["settings"]["detector_errors"]["measured_on"]
    assert measured == "12 clean synthetic clips of 3 s, corpus 811, as the codec synthetic returns them"
    assert json.loads(plaudit(*common).stdout)["settings"]["detector_errors"] is None
