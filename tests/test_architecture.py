"""Imports point one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "plaudit"

ORDER = (
    (
        *("errors", "settings", "types", "writing", "files", "places", "storage", "machine", "devices", "tables"),
        *("processors", "workers"),
        *("published", "statistics", "prefetch", "sidecars", "containers", "audio", "audio_format"),
        *("code_digest", "registry", "reporting"),
    ),
    ("corpus",),
    ("codec",),
    ("encoders",),
    ("backbone",),
    ("reward",),
    ("generate", "flow"),
    ("training",),
    ("evaluate",),
    ("synthetic",),
    ("recipe", "loading", "models", "stages"),
    ("ray_engine",),
    ("pipeline",),
    ("api",),
    ("studio",),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}


def test_only_registries_know_the_synthetic_world() -> None:
    """It is loaded by name, like any codec, encoder, corpus or detector of others."""
    outside = [path for path in SOURCE.rglob("*.py") if path.relative_to(SOURCE).parts[0] != "synthetic"]
    assert not [path for path in outside if any("plaudit.synthetic" in name for name in imported(path))]


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_upwards(path: Path) -> None:
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if own in ("__init__", "__main__"):
        return
    assert own in LEVEL, f"{own} has no place in the order; give it one in docs/architecture.md and here"
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "plaudit" and len(parts) > 1 and parts[1] in LEVEL:
            assert LEVEL[parts[1]] <= LEVEL[own], f"{path.name} imports {name}, which comes later"


def imported(path: Path) -> list[str]:
    """The modules that a file imports, wherever in it."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module] if node.module != "plaudit" else [f"plaudit.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names
