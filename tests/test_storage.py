"""Files that appear whole or not at all, also where there is no room for them."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from plaudit.errors import ModelError
from plaudit.models.inspecting import parameters
from plaudit.places import SHIPPED_WEIGHTS, cache_dir, models_dir
from plaudit.storage import (
    DIGEST,
    WholeFolder,
    checkpoint_damage,
    dequantized,
    differences,
    fill_module,
    load_tensors,
    quantized,
    read_json,
    save_checkpoint,
    save_tensors,
    tensors_digest,
    to_json,
    write_json,
)

NO_ROOM = """
import resource, sys, torch
from pathlib import Path
from plaudit import storage

resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))  # as a full disk does, it ends a file in the middle
try:
    getattr(storage, sys.argv[1])(Path(sys.argv[2]), {"weights": torch.ones(100_000)})
except OSError as error:
    print(error.strerror, error.filename)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes")
@pytest.mark.parametrize("save", [save_checkpoint, save_tensors])
def test_a_file_that_does_not_fit_is_named_and_the_one_before_stays(save, tmp_path: Path) -> None:
    path = tmp_path / "file"
    save(path, {"weights": torch.zeros(10)})
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", NO_ROOM, save.__name__, path], capture_output=True, text=True)
    assert done.stdout == f"File too large {path}\n", done.stderr
    assert path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_tensors_come_back(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a", {"x": torch.arange(3.0)})
    assert torch.equal(load_tensors(tmp_path / "a")["x"], torch.arange(3.0))


MIXED = {
    "half": torch.arange(6).reshape(2, 3).to(torch.bfloat16),
    "whole": torch.arange(4),
    "scalar": torch.tensor(True),
    "none": torch.zeros(0, 3),
}


def test_one_flipped_bit_in_weights_is_noticed(tmp_path: Path) -> None:
    """Wherever it is: the file doesn't load, or what it holds is what was written."""
    path = tmp_path / "model.safetensors"
    save_tensors(path, MIXED)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in range(len(whole)):
        path.write_bytes(flipped(whole, place, place % 8))
        try:
            loaded = load_tensors(path)
        except ModelError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            continue
        assert place < header, "a flipped value was loaded"
        assert tensors_digest(loaded) == tensors_digest(MIXED), "other tensors were loaded"


def test_one_flipped_bit_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    """Wherever it is: the damage is named, or what it holds is what was written."""
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"weights": torch.arange(100.0), "step": 3})
    assert checkpoint_damage(path) is None
    whole = path.read_bytes()
    values = whole.index(torch.arange(100.0).numpy().tobytes())
    for place in [*range(values, values + 400, 7), *range(0, len(whole), 11)]:
        path.write_bytes(flipped(whole, place, place % 8))
        if checkpoint_damage(path) is None:
            try:
                loaded = torch.load(path, weights_only=True)
            except Exception:  # PyTorch itself notices
                continue
            assert loaded["step"] == 3 and torch.equal(loaded["weights"], torch.arange(100.0))


def flipped(whole: bytes, place: int, bit: int) -> bytes:
    return whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]


@pytest.mark.parametrize("path", sorted(SHIPPED_WEIGHTS.glob("*/model.safetensors")), ids=lambda path: path.parent.name)
def test_shipped_weights_hold_their_digest(path: Path) -> None:
    with safe_open(path, "pt") as file:
        assert file.metadata()[DIGEST] == tensors_digest({name: file.get_tensor(name) for name in file.keys()})


def test_weights_of_others_need_no_digest(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.ones(2)}, tmp_path / "theirs.safetensors", {"format": "pt"})
    module = torch.nn.ParameterDict({"x": torch.nn.Parameter(torch.zeros(2))})
    fill_module(module, load_tensors(tmp_path / "theirs.safetensors"), tmp_path)
    assert module["x"].tolist() == [1, 1]


def test_weights_have_the_permissions_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_tensors(tmp_path / "a", {"x": torch.ones(1)})
        save_checkpoint(tmp_path / "b", {"x": torch.ones(1)})
    finally:
        os.umask(before)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"} == {0o640}


@settings(max_examples=100)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    )
)
def test_json_is_always_json(value: object) -> None:
    for ascii in (False, True):
        text = to_json(value, ascii=ascii).encode("ascii" if ascii else "utf-8")
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_json_that_is_written_is_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"慢": [1.5, float("nan")], "caf\udce9": "\ud83d"})
    assert read_json(tmp_path / "a.json") == {"慢": [1.5, None], "caf\udce9": "\ud83d"}


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "1" * 5000, "\udc00", b"\xff\x00", ""])
def test_what_is_no_json_is_one_line(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
    with pytest.raises(ModelError, match=r"config\.json is not valid JSON") as error:
        read_json(path)
    assert "\n" not in str(error.value)


def test_without_a_home_the_folders_are_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "PLAUDIT_MODELS", "USERPROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as it answers for a user who is not in passwd
    for folder in (models_dir, cache_dir):
        with pytest.raises(ModelError, match="set HOME"):
            folder()
    monkeypatch.setenv("PLAUDIT_MODELS", "/models")
    assert models_dir() == Path("/models")


def test_a_folder_is_replaced_whole_and_its_link_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "old").write_text("old")
    (tmp_path / "link").symlink_to("there")
    with pytest.raises(ZeroDivisionError), WholeFolder(tmp_path / "link").draft() as draft:
        (draft / "new").write_text("half")
        raise ZeroDivisionError
    assert os.listdir(tmp_path / "there") == ["old"]
    with WholeFolder(tmp_path / "link").draft() as draft:
        (draft / "new").write_text("new")
    assert (tmp_path / "link").is_symlink() and os.listdir(tmp_path / "there") == ["new"]
    assert sorted(os.listdir(tmp_path)) == ["link", "there"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "old").write_text("old")
    real = os.replace

    def not_the_draft(source: Path, target: Path) -> None:
        if Path(target).name == "there" and not Path(source).name.endswith(".before"):
            raise OSError(errno.EIO, "no")
        real(source, target)

    monkeypatch.setattr(os, "replace", not_the_draft)
    with pytest.raises(OSError), WholeFolder(tmp_path / "there").draft() as draft:
        (draft / "new").write_text("new")
    assert os.listdir(tmp_path) == ["there"] and os.listdir(tmp_path / "there") == ["old"]
    with pytest.raises(NotADirectoryError), WholeFolder(tmp_path / "there" / "old").draft():
        pass
    assert (tmp_path / "there" / "old").read_text() == "old"


def test_a_draft_that_was_cut_off_is_continued_by_the_same_origin_alone(tmp_path: Path) -> None:
    def fill(origin: dict[str, object], name: str, fail: bool = False) -> None:
        with WholeFolder(tmp_path / "cell", origin).draft(resume=True) as draft:
            (draft / name).write_text(name)
            (draft / f".{name}.torn.partial").touch()
            if fail:
                raise ZeroDivisionError

    def files() -> list[str]:
        return sorted(path.name for path in (tmp_path / "cell").iterdir())

    with pytest.raises(ZeroDivisionError):
        fill({"steps": 1}, "a", fail=True)
    assert not (tmp_path / "cell").exists()
    fill({"steps": 1}, "b")
    assert files() == ["a", "b", "origin.json"] and os.listdir(tmp_path) == ["cell"]
    with pytest.raises(ZeroDivisionError):
        fill({"steps": 1}, "c", fail=True)
    fill({"steps": 2}, "d")
    assert files() == ["d", "origin.json"] and os.listdir(tmp_path) == ["cell"]


def test_a_folder_says_in_what_it_was_made_from_something_else(tmp_path: Path) -> None:
    origin = {"sampling": {"steps": 1, "weight": 3.0}, "prompts": ("a", "b")}
    with WholeFolder(tmp_path / "cell", origin).draft():
        pass
    assert WholeFolder(tmp_path / "cell", origin).differences() == {}
    other = {"sampling": {"steps": 1, "weight": 4.0}, "seed": 1}
    assert WholeFolder(tmp_path / "cell", other).differences() == {
        "sampling.weight": (3.0, 4.0),
        "seed": (None, 1),
        "prompts": (["a", "b"], None),
    }
    (tmp_path / "cell" / "origin.json").write_text("[]")
    with pytest.raises(ModelError, match="is damaged"):
        WholeFolder(tmp_path / "cell", other).differences()
    assert differences({"a": {"b": 1}}, {"a": 1}) == {"a": ({"b": 1}, 1)}


@given(st.integers(0, 1000), st.sampled_from([(3, 5), (4, 2, 3), (1, 1)]))
@settings(max_examples=20)
def test_quantized_weights_are_within_half_a_step_of_each_row(seed: int, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(shape, generator=generator) * 10 ** torch.randn(shape[0], *[1] * (len(shape) - 1))
    weights[0] = 0
    vector, count = torch.randn(7, generator=generator), torch.tensor([1, 2])
    stored = quantized({"weight": weights, "bias": vector, "count": count})
    assert stored["weight"].dtype == torch.int8 and stored["bias"].dtype == torch.float16
    loaded = dequantized(stored)
    assert list(loaded) == ["weight", "bias", "count"] and torch.equal(loaded["count"], count)
    step = weights.flatten(1).abs().amax(1) / 127
    error = (loaded["weight"] - weights).flatten(1).abs().amax(1)
    assert (error <= step * 0.501 + 1e-30).all() and torch.equal(loaded["weight"][0], torch.zeros(shape[1:]))


def test_quantized_weights_take_a_byte_each_and_are_read_as_others(tmp_path: Path) -> None:
    weights = {"weight": torch.randn(64, 256, generator=torch.Generator().manual_seed(0))}
    save_tensors(tmp_path / "w.safetensors", quantized(weights))
    assert (tmp_path / "w.safetensors").stat().st_size < 1.1 * 64 * 256
    assert torch.allclose(load_tensors(tmp_path / "w.safetensors")["weight"], weights["weight"], atol=0.02)
    assert parameters(tmp_path / "w.safetensors") == 64 * 256
