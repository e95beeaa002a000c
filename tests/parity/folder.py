"""Where the parity fixtures lie, and how they are read: each is chosen by its kind, so that any new one is compared."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

FOLDER = Path(os.environ.get("PLAUDIT_PARITY_DIR", Path(__file__).parents[2] / "../shared/parity"))

LARGE = ("fluxaudio", "meanaudio", "mel_vae", "bigvgan", "clap")
"""Kinds whose fixtures, but for the tiny ones, take seconds to make weights for."""


def reader() -> ModuleType:
    """The module that reads the fixtures, which lies beside them."""
    specification = importlib.util.spec_from_file_location("parity_fixtures", FOLDER / "fixtures.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def fixtures_of(kind: str) -> list[Any]:
    """The names of the fixtures of one kind, as test parameters; large networks are slow."""
    paths = sorted(FOLDER.glob("*.json"))
    names = [path.stem for path in paths if json.loads(path.read_text()).get("kind") == kind]
    if not names:
        reason = f"no {kind} fixtures in {FOLDER}; set PLAUDIT_PARITY_DIR"
        return [pytest.param("", marks=pytest.mark.skip(reason=reason))]
    slow = [name for name in names if kind in LARGE and "tiny" not in name]
    return [pytest.param(name, marks=pytest.mark.slow if name in slow else ()) for name in names]


def load(name: str) -> Any:
    """One fixture, its inputs and outputs as tensors."""
    fixture = reader().load(name, FOLDER)
    fixture.inputs, fixture.outputs = tensors(fixture.inputs), tensors(fixture.outputs)
    return fixture


def tensors(arrays: dict[str, Any]) -> dict[str, Tensor]:
    """NumPy arrays and scalars as tensors."""
    return {name: torch.as_tensor(value) for name, value in arrays.items()}


def assert_equal(output: Tensor, expected: Tensor, tolerance: float) -> None:
    """The largest difference is at most `tolerance`; it is printed (`pytest -s`)."""
    print(f"largest difference {(output - expected).abs().max().item():.2e}", end=" ")
    torch.testing.assert_close(output, expected, atol=tolerance, rtol=0)
