"""Errors of one line before work is distributed, and what needs no Ray."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from plaudit.cli.main import app
from plaudit.errors import EngineError
from plaudit.ray_engine import Cluster, on_ray
from plaudit.registry import portable_name


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"pip install 'plaudit\[scale\]'") as caught:
        list(on_ray(lambda: lambda task: task, [1], Cluster()))
    assert "\n" not in str(caught.value)


def test_folders_and_files_are_absolute_and_names_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert [portable_name(name) for name in ("mine", "synthetic", "my.py:Reward")] == [
        str(tmp_path / "mine"),
        "synthetic",
        f"{tmp_path}/my.py:Reward",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        ["generate", "piano", "--engine", "spark"],
        ["generate", "piano", "--engine", "ray", "--optimize", "synthetic"],
        ["score", "clip.wav", "--engine", "spark"],
    ],
)
def test_wrong_usage(wrong: list[str]) -> None:
    assert CliRunner().invoke(app, wrong).exit_code == 2


def test_an_address_without_a_server() -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra scale)")
    with pytest.raises(EngineError, match=r"no Ray cluster at 127.0.0.1:9 .*check the address") as caught:
        list(on_ray(lambda: lambda task: task, [1], Cluster("127.0.0.1:9")))
    assert "\n" not in str(caught.value)
