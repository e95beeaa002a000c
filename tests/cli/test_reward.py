"""`plaudit reward` from files to figures, with errors for unusable input."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from plaudit.audio import write_wav
from plaudit.cli.main import app
from plaudit.errors import PlauditError, VoteError
from plaudit.reward.votes import write_votes
from plaudit.synthetic.corpus import SyntheticCorpus
from plaudit.types import Vote


def plaudit(*arguments: str | Path) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("votes")
    corpus = SyntheticCorpus(12, 2.0, 3)
    for n, clip in enumerate(corpus.clips):
        write_wav(folder / "audio" / f"{n}.wav", corpus.render(clip), corpus.rate)
    random = np.random.default_rng(0)
    for name, count in (("train", 60), ("validation", 20), ("test", 30)):
        pairs = [random.choice(12, 2, replace=False) for _ in range(count)]
        made = [
            Vote(f"{name}{n}", "piano " * 2000 if n % 2 else "", f"{a}", f"{b}", "a" if a > b else "b",
                 f"s{a % 3}", f"s{b % 3}", f"source {n % 2}", "l")
            for n, (a, b) in enumerate(pairs)
        ]  # fmt: skip
        write_votes(folder / f"{name}.jsonl", [*made, Vote(f"{name}-gone", "", "0", "gone", "a", "s0", "s1", "x", "l")])
    return folder


def inputs(work: Path) -> list[str]:
    files = [str(work / f"{name}.jsonl") for name in ("train", "validation", "test")]
    return ["--audio", str(work / "audio"), *(word for file in files for word in ("--votes", file))]


def test_train_then_evaluate_then_probe(work: Path) -> None:
    small = ("--max-epochs", "3", "--features", work / "features", "--save-anyway")
    made = plaudit("reward", "train", *inputs(work), "-o", work / "reward", "--seeds", "0,1", *small, "--json")
    assert made.exit_code == 0, made.exception
    assert "1 clip is missing (gone); 3 votes are left out for it" in made.stderr
    figures = json.loads(made.stdout)
    assert figures["saved"]
    assert set(figures["seeds"]) == {"0", "1"} and figures["best_seed"] in (0, 1)
    config = json.loads((work / "reward" / "config.json").read_text())
    assert config["settings"]["seed"] == figures["best_seed"] and config["seeds"]["accuracy"] == figures["accuracy"]

    votes = ("--votes", work / "test.jsonl", "--audio", work / "audio", "--features", work / "features")
    result = plaudit("reward", "evaluate", work / "reward", *votes, "-o", work / "evaluation")
    assert result.exit_code == 0, result.exception
    found = json.loads((work / "evaluation" / "evaluation.json").read_text())
    assert found["overall"]["accuracy"] == figures["seeds"][str(figures["best_seed"])]["test"]["accuracy"]
    assert f"{found['same_system']} votes are between two clips of one system" in result.stdout

    scored = work / "evaluation" / "scores.csv"
    again = plaudit("reward", "evaluate", "--scores", scored, "-o", work / "again", "--json")
    assert json.loads(again.stdout) == found

    probed = plaudit("reward", "probe", work / "reward", work / "audio", "--json")
    assert probed.exit_code == 0 and json.loads(probed.stdout)["silence_refused"] is True


PROMPT = "calm piano"


@pytest.fixture(scope="module")
def preferences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of clips, and a table of votes: for the clip with less noise, or at random."""
    folder = tmp_path_factory.mktemp("preferences")
    random = np.random.default_rng(0)
    for n in range(40):
        tone = np.sin(2 * np.pi * 440 * np.arange(24000) / 16000)
        wave = 0.3 * tone + 0.3 * 2 ** (-n / 4) * random.normal(size=24000)
        write_wav(folder / "music" / f"{n}.wav", np.clip(wave, -1, 1).astype(np.float32), 16000)
    pairs = [random.choice(40, 2, replace=False) for _ in range(500)]
    for name, better in (("taste", lambda a, b: a > b), ("coin", lambda a, b: random.random() < 0.5)):
        rows = [f"{PROMPT},music/{a}.wav,{b},{'a' if better(a, b) else 'b'}" for a, b in pairs]
        (folder / f"{name}.csv").write_text("\n".join(["prompt,a,b,winner", *rows]) + "\n")
    return folder


def train(folder: Path, votes: str, output: Path, *options: str) -> Result:
    audio = ("--audio", folder / "music", "--features", folder / "features")
    return plaudit("reward", "train", "--votes", folder / votes, *audio, "-o", output, *options)


def test_a_table_of_four_columns_trains_a_reward(preferences: Path, tmp_path: Path) -> None:
    made = train(preferences, "taste.csv", tmp_path / "reward")
    assert made.exit_code == 0, made.exception
    assert "held-out votes share" in made.stderr and "warning" not in made.stderr
    config = json.loads((tmp_path / "reward" / "config.json").read_text())
    assert config["settings"]["standardize"] and config["metrics"]["accuracy_interval"][0] > 0.6
    assert config["seeds"]["better_than_chance"] is True
    scored = plaudit("score", "--reward", tmp_path / "reward", "--prompt", PROMPT, preferences / "music", "--csv", "-")
    rows = list(csv.DictReader(scored.stdout.splitlines()))
    scores = {int(Path(row["file"]).stem): float(row["reward"]) for row in rows}
    assert np.mean([scores[n] for n in range(30, 40)]) > np.mean([scores[n] for n in range(10)])


def test_a_reward_at_chance_is_not_saved_by_default(preferences: Path, tmp_path: Path) -> None:
    made = train(preferences, "coin.csv", tmp_path / "reward")
    assert isinstance(made.exception, VoteError) and made.exit_code == 1
    assert "no better than chance" in str(made.exception) and "--save-anyway" in str(made.exception)
    assert "95 % interval" in str(made.exception) and "saved" not in made.stdout
    assert not (tmp_path / "reward").exists()
    (tmp_path / "reward").mkdir()
    (tmp_path / "reward" / "model.safetensors").touch()
    again = train(preferences, "coin.csv", tmp_path / "reward", "--json")
    assert json.loads(again.stdout)["saved"] is False and "an earlier one" in str(again.exception)
    assert (tmp_path / "reward" / "model.safetensors").stat().st_size == 0

    kept = train(preferences, "coin.csv", tmp_path / "kept", "--save-anyway")
    assert kept.exit_code == 0 and "no better than chance" in kept.stderr
    config = json.loads((tmp_path / "kept" / "config.json").read_text())
    assert config["seeds"]["better_than_chance"] is False


def test_each_vote_is_held_out_once_and_compared_with_a_baseline(preferences: Path, tmp_path: Path) -> None:
    options = ("--folds", "3", "--max-epochs", "10")
    made = train(preferences, "taste.csv", tmp_path / "reward", *options, "--baseline", "synthetic", "--json")
    assert made.exit_code == 0, made.exception
    figures = json.loads(made.stdout)
    found = figures["cross_validation"]
    assert (found["folds"], found["votes"], figures["saved"]) == (3, 500, True)
    assert found["accuracy"]["low"] > 0.6 and "held-out votes share" in found["note"]
    assert found["difference"]["mean"] == pytest.approx(found["accuracy"]["mean"] - found["baseline"]["mean"])
    config = json.loads((tmp_path / "reward" / "config.json").read_text())
    assert config["votes"] == {"train": 500} and config["cross_validation"] == found
    other = train(preferences, "taste.csv", tmp_path / "other", *options, "--baseline", "synthetic-clap")
    assert other.exit_code == 0, other.exception
    assert "difference" in other.stdout

    coin = train(preferences, "coin.csv", tmp_path / "coin", *options)
    assert coin.exit_code == 1 and "no better than chance" in str(coin.exception)
    assert not (tmp_path / "coin").exists()


def test_a_preset_that_does_not_fit_the_encoders_is_warned_of(preferences: Path, tmp_path: Path) -> None:
    made = train(
        preferences, "taste.csv", tmp_path / "reward", "--preset", "published", "--max-epochs", "1", "--save-anyway"
    )
    assert made.exit_code == 0
    assert "--preset published does not fit the encoders synthetic and statistics; --preset synthetic" in made.stderr


def test_any_reward_can_be_evaluated_on_votes(preferences: Path, tmp_path: Path) -> None:
    votes = ("--votes", preferences / "taste.csv", "--audio", preferences / "music")
    result = plaudit("reward", "evaluate", "synthetic-clap", *votes, "-o", tmp_path / "evaluation", "--json")
    assert result.exit_code == 0, result.exception
    assert json.loads(result.stdout)["overall"]["votes"] == 500


def test_ablate_writes_one_table(work: Path) -> None:
    small = ("--preset", "synthetic", "--max-epochs", "2", "--features", work / "features", "--seeds", "0,1")
    made = plaudit("reward", "ablate", *inputs(work), "-o", work / "ablation", *small)
    assert made.exit_code == 0, made.exception
    rows = json.loads((work / "ablation" / "ablation.json").read_text())["rows"]
    assert [row["name"] for row in rows] == [*(f"A{n}" for n in range(1, 8)), "without source 0", "without source 1"]
    assert "A7" in made.stdout and "±" in made.stdout


def refusals(work: Path, folder: Path) -> dict[str, list[str | Path]]:
    """What each message is said of."""
    (folder / "empty").mkdir()
    (folder / "damaged").mkdir()
    (folder / "damaged" / "config.json").write_text('{"kind": "tunejury"}')
    tie = Vote("1", "", "0", "1", "tie", "", "", "", "")
    write_votes(folder / "ties.jsonl", [tie])
    write_votes(folder / "one.jsonl", [Vote("1", "", "0", "1", "a", "", "", "", "")])
    write_votes(folder / "gone.jsonl", [Vote("1", "", "x", "y", "a", "", "", "", "")])
    audio: list[str | Path] = ["--audio", work / "audio"]
    evaluate: list[str | Path] = ["evaluate", "synthetic", *audio, "-o", folder / "out", "--votes"]
    return {
        "all of the 1 votes are ties": [*evaluate, folder / "ties.jsonl"],
        "which are called 0.wav, 1.wav, 10.wav and 9 more; missing are x, y": [*evaluate, folder / "gone.jsonl"],
        "1 votes on 1 pair of clips leave none for": ["train", *audio, "--votes", folder / "one.jsonl"],
        "holds no audio": ["train", "--audio", folder / "empty", "--votes", work / "train.jsonl"],
        "does not describe a reward": ["probe", folder / "damaged", work / "audio"],
        "no audio under": ["probe", "synthetic", folder / "empty"],
        "give one for cross-validation": ["train", *inputs(work), "--folds", "5"],
        "--baseline is compared with in cross-validation; give --folds too": [
            "train", *inputs(work), "--baseline", "synthetic",
        ],
        "--folds trains one reward on all votes; give one seed": [
            "train", *audio, "--votes", work / "train.jsonl", "--folds", "5", "--seeds", "0,1",
        ],
        "1 votes are too few for cross-validation": ["train", *audio, "--votes", folder / "one.jsonl", "--folds", "3"],
        "must be different whole numbers": ["train", *inputs(work), "--seeds", "1,1"],
        "one or more distinct of": ["train", *inputs(work), "--blocks", "mert", "-o", folder / "reward",
                                     "--features", work / "features"],
        "give a reward with --votes and --audio, or --scores alone": ["evaluate", "synthetic"],
    }  # fmt: skip


def test_what_cannot_be_used_is_one_line(work: Path, tmp_path: Path) -> None:
    for said, arguments in refusals(work, tmp_path).items():
        done = plaudit("reward", *arguments)
        assert isinstance(done.exception, PlauditError) and said in str(done.exception), (said, done.exception)
        assert "\n" not in str(done.exception)
