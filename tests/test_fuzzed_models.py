"""Model folders whose config.json somebody or something has changed: they load, or are refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from plaudit import loading
from plaudit.errors import ModelError
from plaudit.generate.model import read_model_config
from plaudit.models.exporting import model_card
from plaudit.models.inspecting import flatten_values, inspect_folder, parts_of
from plaudit.places import SHIPPED_WEIGHTS
from plaudit.storage import to_json
from tests.mutations import Change, mutated, mutations


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shipped model, whose config.json may be changed."""
    return Path(shutil.copytree(SHIPPED_WEIGHTS / "model", tmp_path_factory.mktemp("models") / "model"))


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shipped reward."""
    return Path(shutil.copytree(SHIPPED_WEIGHTS / "reward", tmp_path_factory.mktemp("models") / "reward"))


def changed(folder: Path, original: Path, changes: list[Change]) -> Path:
    tree = json.loads((original / "config.json").read_text())
    text = json.dumps(mutated(tree, changes), default=str)
    (folder / "config.json").write_bytes(text.encode(errors="surrogatepass"))
    return folder


def one_line(error: ModelError) -> None:
    assert "\n" not in str(error) and len(str(error)) < 2000


def check_reading(model: Path, changes: list[Change]) -> None:
    changed(model, SHIPPED_WEIGHTS / "model", changes)
    for read in (read_model_config, lambda folder: parts_of(inspect_folder(folder)["config"])):
        try:
            result = read(model)
        except ModelError as error:
            one_line(error)
            continue
        if not isinstance(result, dict):
            to_json(result.to_dict())
            flatten_values(result.to_dict())


@settings(max_examples=300, deadline=None)
@given(changes=mutations())
def test_any_config_of_a_model_is_read_or_refused(model: Path, changes: list[Change]) -> None:
    check_reading(model, changes)


@pytest.mark.slow
@settings(max_examples=6000, deadline=None)
@given(changes=mutations())
def test_any_of_many_configs_of_a_model_is_read_or_refused(model: Path, changes: list[Change]) -> None:
    check_reading(model, changes)


@settings(max_examples=40, deadline=None)
@given(changes=mutations())
def test_any_changed_model_loads_or_is_refused(model: Path, changes: list[Change]) -> None:
    changed(model, SHIPPED_WEIGHTS / "model", changes)
    loading.CODECS.identity(str(model))
    loading.start_digest(str(model))
    for load in (model_card, lambda folder: loading.load(str(folder), "cpu")):
        try:
            result = load(model)
        except ModelError as error:
            one_line(error)
            continue
        if not isinstance(result, str):
            assert result.frames >= 0


@settings(max_examples=60, deadline=None)
@given(changes=mutations())
def test_any_changed_reward_loads_or_is_refused(reward: Path, changes: list[Change]) -> None:
    changed(reward, SHIPPED_WEIGHTS / "reward", changes)
    loading.REWARDS.identity(str(reward))
    try:
        loading.load_reward(str(reward))
    except ModelError as error:
        one_line(error)


SUM = {
    "kind": "sum",
    "parts": [{"reward": "synthetic-clap", "weight": 1.0, "mean": 0.0, "std": 1.0, "identity": "x"}],
}


@pytest.mark.parametrize("tree", [SUM, {"kind": "clap", "clap": "synthetic"}], ids=["sum", "clap"])
@settings(max_examples=100, deadline=None)
@given(changes=mutations())
def test_any_changed_reward_of_another_kind_loads_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any], changes: list[Change]
) -> None:
    folder = tmp_path_factory.mktemp("rewards")
    text = json.dumps(mutated(tree, changes), default=str)
    (folder / "config.json").write_bytes(text.encode(errors="surrogatepass"))
    try:
        loading.load_reward(str(folder))
    except ModelError as error:
        one_line(error)


def test_rewards_that_are_parts_of_each_other_are_refused(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        part = {**SUM["parts"][0], "reward": str(tmp_path / other)}  # type: ignore[dict-item,index]
        (tmp_path / name / "config.json").write_text(json.dumps({"kind": "sum", "parts": [part]}))
    with pytest.raises(ModelError) as error:
        loading.load_reward(str(tmp_path / "a"))
    one_line(error.value)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\udce9", ".", "..", "/", ""])
def test_any_name_is_a_model_or_refused(name: str) -> None:
    for load in (loading.load, loading.load_reward, lambda n: loading.CODECS.load(n)):
        with pytest.raises(ModelError) as error:
            load(name)
        one_line(error.value) if len(name) < 100 else None
