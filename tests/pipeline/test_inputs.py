"""External inputs of runs: corpora by content, paths that hold from anywhere, settings by name."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from plaudit.corpus import sources
from plaudit.corpus.shards import ShardSet
from plaudit.corpus.sources import CorpusSettings, corpus_source
from plaudit.errors import RunError
from plaudit.loading import MODELS
from plaudit.pipeline.data import MANIFEST
from plaudit.pipeline.steps import leaves, located, picked, run_recipe, steps
from plaudit.recipe import Recipe, load_recipe
from plaudit.storage import read_json, write_json
from tests.corpus.toy import write_folder
from tests.pipeline.test_runner import RecordingReporter


@pytest.fixture
def music(tmp_path: Path) -> Path:
    write_folder(tmp_path / "music", 6, seconds=3.0, rate=16000)
    return tmp_path / "music"


def recipe(music: Path, *changes: str) -> Recipe:
    """A run on a folder, as small as can be."""
    return load_recipe("smoke", [
        "precision=no", "corpus.kind=folder", f"corpus.folder={music}", f"corpus.table={music / 'clips.csv'}",
        "corpus.seconds=2", "reward.kind=load", *changes,
    ])  # fmt: skip


def settings(music: Path) -> CorpusSettings:
    return CorpusSettings(kind="folder", folder=music, table=music / "clips.csv")


def louder(path: Path) -> None:
    """Other sound in a file of the same size."""
    data = bytearray(path.read_bytes())
    data[-1000:] = bytes(1000)
    path.write_bytes(data)


def test_a_corpus_is_identified_by_content(music: Path, tmp_path: Path) -> None:
    before = corpus_source(settings(music)).digest()
    shutil.copytree(music, tmp_path / "moved", copy_function=shutil.copyfile)
    assert corpus_source(settings(tmp_path / "moved")).digest() == before
    os.utime(music / "003.wav", ns=(1, 1))
    assert corpus_source(settings(music)).digest() == before
    louder(music / "003.wav")
    assert corpus_source(settings(music)).digest() != before
    (music / "003.wav").unlink()
    assert corpus_source(settings(music)).digest() not in (before, "none")
    table = music / "clips.csv"
    table.write_text(table.read_text().replace("caption 0", "another caption", 1))
    assert corpus_source(settings(tmp_path / "nowhere")).digest() == "none"


def test_files_that_did_not_change_are_not_read_again(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reporter = RecordingReporter()
    run_recipe(recipe(music), music.parent / "run", reporter, only="corpus")
    manifest = music.parent / "run" / "corpus" / MANIFEST
    os.utime(music / "003.wav", ns=(1, 1))
    read: list[str] = []
    real = sources.file_digest
    monkeypatch.setattr(sources, "file_digest", lambda path: read.append(path.name) or real(path))
    assert corpus_source(settings(music)).digest(manifest) == corpus_source(settings(music)).digest()
    assert read == ["003.wav", *(f"{n:03d}.wav" for n in range(6))]


def test_a_run_on_a_folder_notices_other_audio_and_other_captions(music: Path, tmp_path: Path) -> None:
    folder, table = tmp_path / "run", music / "clips.csv"
    run_recipe(recipe(music), folder, RecordingReporter(), only="shards")
    (music / "001.wav").touch()
    reporter = RecordingReporter()
    run_recipe(recipe(music), folder, reporter, only="shards")
    assert reporter.busy == []
    louder(music / "001.wav")
    with pytest.raises(RunError, match=r"replace corpus \(the contents of corpus.folder changed\); shards"):
        run_recipe(recipe(music), folder, reporter, only="shards")
    reporter = RecordingReporter(approves=True)
    run_recipe(recipe(music), folder, reporter, only="shards", approve=reporter.approve)
    assert reporter.busy == ["corpus", "shards"]
    table.write_text(table.read_text().replace("caption 0", "another caption", 1))
    with pytest.raises(RunError, match=r"the contents of corpus\.folder changed"):
        run_recipe(recipe(music), folder, RecordingReporter(), only="shards")


def test_a_folder_that_was_moved_meanwhile_is_read_where_it_is(music: Path, tmp_path: Path) -> None:
    run_recipe(recipe(music), tmp_path / "run", RecordingReporter(), only="corpus")
    music.rename(tmp_path / "moved")
    reporter = RecordingReporter()
    run_recipe(recipe(tmp_path / "moved"), tmp_path / "run", reporter, only="shards")
    assert reporter.states == {"corpus": "done", "shards": "started"}
    assert len(ShardSet(tmp_path / "run" / "shards")) == 6


def test_paths_of_a_run_hold_from_any_folder(music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(MODELS["synthetic"].parent / "reward", tmp_path / "my-reward")
    relative = recipe(Path("music"), "reward.name=my-reward")
    run_recipe(relative, Path("run"), RecordingReporter(), only="corpus")
    kept = load_recipe("run/recipe.yaml")
    assert (kept.corpus.folder, kept.corpus.table) == (music, music / "clips.csv")
    assert kept.reward.name == str(tmp_path / "my-reward") and kept.models == relative.models
    rows = [json.loads(line) for line in (tmp_path / "run" / "corpus" / MANIFEST).read_text().splitlines()]
    assert rows[0]["path"] == str(music / "000.wav")
    monkeypatch.chdir("/")
    reporter = RecordingReporter()
    run_recipe(load_recipe(str(tmp_path / "run" / "recipe.yaml")), tmp_path / "run", reporter, only="corpus")
    assert reporter.busy == []


def test_a_registered_name_is_never_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("synthetic", "mine"):
        write_json(tmp_path / name / "config.json", {})
    found = located(load_recipe("smoke", ["models.clap=mine", "stages.pairs.read_from=pairs.jsonl"]))
    assert (found.models.codec, found.models.clap) == ("synthetic", str(tmp_path / "mine"))
    assert found.stage("pairs").model_dump()["read_from"] == tmp_path / "pairs.jsonl"
    inside = located(load_recipe("smoke", ["corpus.kind=folder", "corpus.folder=.", "corpus.table=c.csv",
                                           "reward.kind=load"]))  # fmt: skip
    assert inside.corpus.table == Path("c.csv")  # a name inside the folder, for all that is known


def test_settings_by_name() -> None:
    found = leaves(load_recipe("smoke"))
    assert found["stages.crpo.beta"] == 2000.0 and found["models.codec"] == "synthetic"
    assert found["backbone.overrides.depth"] == 3 and found["stages.sft.train.decay_at"] == [0.8, 0.9]
    names = ["precision", "stages.cross_load.kind", "stages.cross_load.start_from", "stages.cross_load.injection"]
    assert list(picked(found, ["stages.cross_load", "precision"])) == names
    assert "corpus.size" not in picked(found, ["corpus"], ["corpus.size"])
    assert picked(found, ["stages.c"]) == {}


def test_a_prepared_set_is_identified_by_its_ledger(tmp_path: Path) -> None:
    (tmp_path / "shards.json").write_text('{"a": 1}')
    given = ["corpus.kind=shards", f"corpus.folder={tmp_path}", "reward.kind=table"]
    before, digest = (next(s for s in steps(load_recipe("smoke", given)) if s.name == "shards") for _ in range(2))
    first = before.origin({})
    (tmp_path / "shards.json").write_text('{"a": 2}')
    assert digest.origin({}).differences(first) == ["the contents of corpus.folder changed"]
    assert read_json(tmp_path / "shards.json") == {"a": 2}
