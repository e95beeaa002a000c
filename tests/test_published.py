"""Released files: nothing in them is run, and whatever is wrong with one is said in one line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.utils import parametrizations, weight_norm

from plaudit.errors import ModelError
from plaudit.published import LISTED, fold_weight_norm, read_released, require, require_sizes, unwrap


class Marker:
    """A pickle of this creates a folder when it is read by a reader that runs its code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_never_run(tmp_path: Path, zipped: bool) -> None:
    path, marker = tmp_path / "model.pt", tmp_path / "it-ran"
    content = {"state_dict": {"weight": torch.zeros(2)}, "extra": Marker(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"is refused: reading it would run \w+\.mkdir") as error:
        read_released(path)
    assert "\n" not in str(error.value)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the marker works where nothing stops it
    assert marker.exists()


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"would run torch\.nn\.modules\.linear\.Linear"):
        read_released(tmp_path / "model.pt")


def test_what_training_scripts_leave_beside_the_weights_is_read(tmp_path: Path) -> None:
    state = {"module.weight": torch.arange(3.0)}
    best = {"accuracy": np.float64(0.5), "loss": np.float32(0.25), "epoch": np.int64(3)}
    torch.save({"state_dict": state, "optimizer": {"state": {0: torch.ones(2)}}, "best": best}, tmp_path / "a.pt")
    content = read_released(tmp_path / "a.pt")
    assert content["best"] == best
    assert [*unwrap(content)] == ["weight"]
    assert torch.equal(unwrap(content)["weight"], torch.arange(3.0))


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2)}, tmp_path / "a.safetensors")
    assert torch.equal(unwrap(read_released(tmp_path / "a.safetensors"))["weight"], torch.ones(2))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_that_is_missing_truncated_or_something_else_is_refused_in_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    with pytest.raises(ModelError, match="does not exist"):
        read_released(path)
    state = {"weight": torch.ones(10_000)}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:100], b"", b"<html>not found</html>"):
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match="model") as error:
            read_released(path)
        assert "\n" not in str(error.value) and "weights_only" not in str(error.value)


def test_a_file_without_names_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(2)], tmp_path / "a.pt")
    with pytest.raises(ModelError, match="holds a list, not named weights"):
        read_released(tmp_path / "a.pt")


@pytest.mark.parametrize("prefix", ["", "module.", "ema_model.", "module.ema_model."])
@pytest.mark.parametrize("wrappers", [(), ("state_dict",), ("generator",), ("generator", "state_dict")])
def test_every_wrapping_is_taken_off(prefix: str, wrappers: tuple[str, ...]) -> None:
    content: dict[str, object] = {prefix + "a.module.weight": torch.ones(2), "step": 3}
    for wrapper in wrappers:
        content = {wrapper: content, "epoch": 1}
    assert [*unwrap(content)] == ["a.module.weight"]


@pytest.mark.parametrize("layer", [torch.nn.Conv1d(3, 4, 5), torch.nn.ConvTranspose1d(3, 4, 6), torch.nn.Linear(3, 4)])
@pytest.mark.parametrize("norm", [weight_norm, parametrizations.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weight_norm_folds_to_the_weight_that_it_makes(layer: torch.nn.Module, norm: object) -> None:
    assert callable(norm)
    fresh = type(layer)(*((3, 4) if isinstance(layer, torch.nn.Linear) else (3, 4, 5)))
    model = torch.nn.Sequential(norm(fresh))
    names = {name for name, _ in model.named_parameters()}
    state = dict(model.state_dict())
    for name in names:
        if name.endswith(("weight_g", "original0")):
            state[name] = state[name] * 1.7
    model.load_state_dict(state)
    model(torch.zeros(1, 3) if isinstance(layer, torch.nn.Linear) else torch.zeros(1, 3, 9))
    folded = fold_weight_norm(state)
    assert {*folded} == {"0.weight", "0.bias"}
    torch.testing.assert_close(folded["0.weight"], model[0].weight)
    half = {name: value for name, value in state.items() if not name.endswith(("weight_g", "original0"))}
    assert fold_weight_norm(half).keys() == half.keys()


def test_all_that_differs_is_named_with_shapes_in_one_line() -> None:
    state = {"a": torch.zeros(2), "b": torch.zeros(3), "d": torch.zeros(1)}
    with pytest.raises(ModelError) as error:
        require(state, "a model", {"a": (2,), "b": (4,), "c": (5, 6)})
    assert str(error.value).endswith("fit a model: missing c (5, 6); unknown d (1,); b is (3,), not (4,)")
    require(state, "a model", {"a": (2,), "b": (3,), "d": (1,)})


def test_the_file_of_another_model_does_not_fill_the_screen() -> None:
    state = {f"other.{i}": torch.zeros(1) for i in range(LISTED + 5)}
    with pytest.raises(ModelError, match=r"missing a \(3 axes\); it holds other\.0, .* and 5 more names$"):
        require_sizes(state, "a model", {"a": 3})
    with pytest.raises(ModelError, match=r"unknown other\.0 \(1,\); .*; and 5 more unknown$"):
        require(state, "a model", {})
