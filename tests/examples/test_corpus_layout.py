"""The example of a corpus layout: in a recipe, for `plaudit prepare`, and what is said of layouts that do not work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from plaudit.audio import write_wav
from plaudit.cli.main import app
from plaudit.corpus.shards import ShardSet
from plaudit.corpus.sources import CorpusSettings, corpus_source
from plaudit.errors import CorpusError, RecipeError
from plaudit.pipeline.steps import run_recipe
from plaudit.recipe import load_recipe
from plaudit.reporting import Silent

EXAMPLE = f"{Path(__file__).parents[2] / 'examples' / 'corpus_layout.py'}:list_albums"


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """Three albums of two tracks, one of them without a caption."""
    noise = np.random.default_rng(0).standard_normal(40000).astype(np.float32) / 10
    for album in "abc":
        for track in "12":
            write_wav(tmp_path / "music" / album / f"{track}.wav", noise, 16000)
            (tmp_path / "music" / album / f"{track}.txt").write_text(f"piece {track} of {album}\n")
    (tmp_path / "music" / "c" / "2.txt").unlink()
    return tmp_path / "music"


def test_prepare_takes_it_by_its_file(music: Path, tmp_path: Path) -> None:
    command = ["prepare", "layout", EXAMPLE, str(music), "--set", "test=1", "--set", "validation=0"]
    done = CliRunner().invoke(app, [*command, "--seconds", "2", "-o", str(tmp_path / "shards"), "--json"])
    assert done.exit_code == 0, done.output
    assert "1 audio files have no caption" in done.stderr and json.loads(done.stdout)["clips"] == 5
    shards = ShardSet(tmp_path / "shards")
    assert [id.partition("@")[0] for id in shards.ids] == ["a/1", "a/2", "b/1", "b/2", "c/1"]
    assert shards.splits == ["test"] * 5 and shards.captions[3] == "piece 2 of b"


def test_a_recipe_takes_it_by_its_file(music: Path, tmp_path: Path) -> None:
    changes = [f"corpus.kind={EXAMPLE}", f"corpus.folder={music}", "corpus.options.test=0", "corpus.seconds=2"]
    recipe = load_recipe("smoke", ["precision=no", "reward.kind=load", *changes])
    run_recipe(recipe, tmp_path / "run", Silent(), only="shards")
    assert len(ShardSet(tmp_path / "run" / "shards")) == 5
    before = corpus_source(recipe.corpus).digest()
    (music / "a" / "1.txt").write_text("another caption")
    assert corpus_source(recipe.corpus).digest() != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["corpus.kind=list_albums"], "corpus.kind is synthetic, folder, shards or a layout: no corpus layout"),
        ([f"corpus.kind={EXAMPLE}s"], "defines no list_albumss; did you mean list_albums"),
        ([f"corpus.kind={EXAMPLE}"], "needs corpus.folder"),
        ([f"corpus.kind={EXAMPLE}", "corpus.folder=.", "corpus.options.split=1"], "unexpected .* argument 'split'"),
    ],
)
def test_a_recipe_that_names_it_wrongly_is_one_line(changes: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("smoke", changes)


@pytest.mark.parametrize(
    ("body", "message"), [("return []", "must return a Listing, not list"), ("1 / 0", "fails: ZeroDivisionError")]
)
def test_a_layout_that_does_not_work_is_one_line(body: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(f"def layout(folder):\n    {body}\n")
    settings = CorpusSettings(kind=f"{tmp_path / 'mine.py'}:layout", folder=tmp_path)
    with pytest.raises(CorpusError, match=message):
        corpus_source(settings).listing()
