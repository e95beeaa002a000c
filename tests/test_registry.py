"""Registries: parts by name, from packages, files and folders."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from plaudit import loading
from plaudit.errors import ModelError, RecipeError
from plaudit.registry import NO_IDENTITY, Registry

PART = """
from dataclasses import dataclass
from helper import SIZE

@dataclass
class Part:
    size: int = SIZE

def broken():
    raise RuntimeError("no weights")

class Empty: ...
"""


@pytest.fixture
def registry() -> Registry:
    return Registry(
        "part",
        "plaudit.parts",
        {"path": "pathlib:Path"},
        folder_kinds={"counted": lambda folder: len(list(folder.iterdir()))},
        requires=("size",),
        call=True,
        error=RecipeError,
    )


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "helper.py").write_text("SIZE = 3\n")
    (tmp_path / "part.py").write_text(PART)
    sys.modules.pop("helper", None)
    yield tmp_path / "part.py"
    sys.modules.pop("helper", None)


def test_a_built_in_part_is_imported_when_it_is_loaded(registry: Registry) -> None:
    assert registry.load("path") == Path()
    registry.register("three", lambda: 3)
    assert registry.load("three") == 3 and registry.names() == ["path", "three"]


def test_a_file_is_found_from_the_base_folder_and_imports_those_beside_it(
    registry: Registry, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert registry.load(f"{file}:Part").size == 3
    assert type(registry.load("part.py:Part", file.parent)) is type(registry.load(f"{file}:Part"))
    monkeypatch.chdir(file.parent)
    assert registry.load("part.py:Part").size == registry.load("part.py:Part", Path("/")).size == 3
    assert str(file.parent) not in sys.path


def test_the_identity_of_a_file_changes_with_it_and_with_those_it_imports(registry: Registry, file: Path) -> None:
    name, seen = f"{file}:Part", []
    for path, text in ((file, PART), (file, PART + "\n"), (file.with_name("helper.py"), "SIZE = 4\n")):
        path.write_text(text)
        seen.append(registry.identity(name))
    assert len(set(seen)) == 3 and registry.identity(name) == seen[-1]
    assert registry.identity("nowhere.py:Part") == registry.identity("nowhere") == NO_IDENTITY
    assert registry.load(name).size == 4


@pytest.mark.parametrize(
    "name, message",
    [
        (
            "pat",
            "no part 'pat': did you mean 'path'.* give one of path, path/to/file.py:NAME, or a model folder$",
        ),
        ("missing.py:Part", "there is no file missing.py; check the path$"),
        ("part.py:Prat", "part 'part.py:Prat': the file defines no Prat; did you mean Part\\?$"),
        ("part.py:broken", r"fails at .*part.py, line 10: RuntimeError: no weights; correct its code$"),
        ("part.py:Empty", "part 'part.py:Empty' has no size; a part needs size$"),
        ("wrong.py:Part", r"fails at .*wrong.py, line 2: SyntaxError: .*; correct its code$"),
        ("late.py:Part", r"fails at .*late.py, line 3: ModuleNotFoundError: No module named 'nothing_here'"),
        ("json:nothing", "part 'json:nothing' fails: AttributeError"),
    ],
)
def test_errors_are_one_line(registry: Registry, file: Path, name: str, message: str) -> None:
    file.with_name("wrong.py").write_text("x = 1\ndef (:\n")
    file.with_name("late.py").write_text("\n\nimport nothing_here\n")
    with pytest.raises(RecipeError, match=message) as error:
        registry.load(name, file.parent)
    assert "\n" not in str(error.value)


def test_folders_are_read_by_their_kind(registry: Registry, tmp_path: Path) -> None:
    for kind in ("counted", "other"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "config.json").write_text(json.dumps({"kind": kind}))
    assert registry.load(str(tmp_path / "counted")) == registry.load("counted", tmp_path) == 1
    assert registry.is_folder("counted") and not registry.is_folder("path")
    with pytest.raises(RecipeError, match=r"is of kind 'other', which is no part; kinds that are: counted$"):
        registry.load("other", tmp_path)
    before = registry.identity(str(tmp_path / "counted"))
    (tmp_path / "counted" / "more").write_text("")
    assert registry.identity(str(tmp_path / "counted")) != before


def test_a_registry_can_include_another_and_refer_to_it(tmp_path: Path) -> None:
    names = Registry[str]("name", "plaudit.names", {"a": "string:ascii_letters"})
    both = Registry[str](
        "word", "plaudit.words", {"b": "string:digits"}, include=(names,), references={"of.name": names},
        folder_kinds={"text": lambda folder: folder.name},
    )  # fmt: skip
    assert both.names() == ["a", "b"] and both.load("b") == "0123456789"
    (tmp_path / "config.json").write_text(json.dumps({"kind": "text", "of": {"name": "a"}}))
    assert both.identity(str(tmp_path)).endswith(" string:ascii_letters")


INSTALLED = """
import torch

class Loud:
    name, sample_rate, dim = "loud", 8000, 1
    def audio(self, wave):
        return wave.square().mean(1, keepdim=True)

def broken():
    raise RuntimeError("no weights")
"""


def test_an_installed_package_brings_an_encoder_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loud.py").write_text(INSTALLED)
    information = tmp_path / "loud-1.5.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.5\n")
    points = "[plaudit.audio_encoders]\nloud = loud:Loud\n[plaudit.claps]\nbroken = loud:broken\nquiet = loud:Loud\n"
    (information / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(tmp_path))

    embeddings = loading.AUDIO_ENCODERS.load("loud").audio(torch.full((2, 8000), 0.5))
    assert embeddings.tolist() == [[0.25], [0.25]]
    assert loading.AUDIO_ENCODERS.identity("loud").startswith("loud:Loud of loud 1.5 ")
    assert {"broken", "loud", "quiet", "statistics", "synthetic"} <= set(loading.AUDIO_ENCODERS.names())
    with pytest.raises(ModelError, match=r"installed CLAP 'quiet' \(loud:Loud\) has no text"):
        loading.CLAPS.load("quiet")
    with pytest.raises(ModelError, match=r"installed CLAP 'broken' .* fails: RuntimeError"):
        loading.CLAPS.load("broken")
    with pytest.raises(ModelError, match=r"no CLAP 'loud'"):
        loading.CLAPS.load("loud")
