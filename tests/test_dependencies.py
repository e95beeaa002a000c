"""What is imported is declared, what is declared is imported, and the built package runs by itself."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FOLDERS = ("src", "tools", "benchmarks", "examples", "tests")
OURS = {"plaudit", *FOLDERS, *(path.stem for name in ("tools", "benchmarks") for path in (ROOT / name).glob("*.py"))}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required(*groups: list[str]) -> set[str]:
    """The distributions of some requirements, in the form in which they are compared."""
    return {normal(re.split(r"[\s\[<>=!~;]", line)[0]) for group in groups for line in group}


OPTIONAL = PROJECT["optional-dependencies"]
BASE = required(PROJECT["dependencies"])
EXTRAS = BASE | required(*(group for name, group in OPTIONAL.items() if name != "dev"))
ALL = EXTRAS | required(OPTIONAL["dev"])


def imports(tree: ast.AST, lazy: bool = False) -> Iterator[tuple[str, bool]]:
    """(top package, whether only when a function runs) of every import but those for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0], lazy
        else:
            yield from imports(node, lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


EXTRA_PACKAGES = (ROOT / "src" / "plaudit" / "studio",)
"""Packages of ours that are imported only when a function runs, and need an extra."""


def third_party(folder: str) -> Iterator[tuple[Path, str, bool]]:
    """(file, package, whether imported when a function runs) of every import of other projects under a folder."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        inside = any(path.is_relative_to(package) for package in EXTRA_PACKAGES)
        for package, lazy in imports(ast.parse(path.read_text(encoding="utf-8")), inside):
            if package not in OURS and package not in sys.stdlib_module_names:
                yield path.relative_to(ROOT), package, lazy


@cache
def distributions(package: str) -> set[str]:
    """The distributions that have a package; one of its name for a package that is not installed here."""
    return {normal(name) for name in packages_distributions().get(package, [package])}


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_imported_package_is_declared(folder: str) -> None:
    for path, package, lazy in third_party(folder):
        declared = {"src": EXTRAS if lazy else BASE, "examples": BASE}.get(folder, ALL)
        assert distributions(package) & declared, f"{path} imports {package}, which pyproject.toml does not declare"


def test_every_dependency_is_imported() -> None:
    assert not BASE - {name for _, package, _ in third_party("src") for name in distributions(package)}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the built wheel is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    unused = shutil.ignore_patterns("__pycache__", "*.egg-info", "node_modules")
    shutil.copytree(ROOT / "src", source / "src", ignore=unused)
    for name in ("pyproject.toml", PROJECT["readme"]):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "target"), str(wheel)], check=True)
    return folder / "target"


def files_under(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def test_a_built_wheel_holds_every_file(installed: Path) -> None:
    source = ROOT / "src" / "plaudit"
    page = source / "studio" / "page"  # its build lies in studio/static
    expected = {path for path in files_under(source) if page not in (source / path).parents}
    assert files_under(installed / "plaudit") == expected


@pytest.mark.slow
def test_a_built_wheel_runs_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("-c", "import plaudit; print(plaudit.__file__)").startswith(str(installed))
    command = str(installed / "bin" / "plaudit")
    assert run(command, "--version").split() == ["plaudit", PROJECT["version"]]
    run(command, "generate", "slow piano", "--steps", "1", "-o", "clips", "--device", "cpu")
    assert (tmp_path / "clips" / "slow-piano-0.wav").is_file()
