"""What the package imports is declared, and what is declared is imported."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def named(requirements: list[str]) -> set[str]:
    """The distributions of some requirements, as they are compared."""
    return {normal(re.split(r"[\s\[<>=!~;]", requirement)[0]) for requirement in requirements}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


BASE = named(PROJECT["dependencies"])
EXTRAS = named([r for name, group in PROJECT["optional-dependencies"].items() if name != "dev" for r in group])


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


def foreign() -> dict[str, dict[bool, list[str]]]:
    """For each package that is not ours or Python's, the files that import it, by whether they do so lazily."""
    found: dict[str, dict[bool, list[str]]] = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        for package, lazy in imports(ast.parse(path.read_text(encoding="utf-8"))):
            if package != "plaudit" and package not in sys.stdlib_module_names and package != "__future__":
                found.setdefault(package, {}).setdefault(lazy, []).append(path.name)
    return found


def distributions(package: str) -> set[str]:
    """What may bring a package: for one that is not installed here, a distribution of its name."""
    return {normal(name) for name in packages_distributions().get(package, [package])}


def test_every_package_that_is_imported_is_declared() -> None:
    for package, files in foreign().items():
        brought = distributions(package)
        if False in files:
            assert brought & BASE, f"{files[False][0]} imports {package}, which pyproject.toml does not declare"
        assert brought & (BASE | EXTRAS), f"{files[True][0]} imports {package}, which pyproject.toml does not declare"


def test_every_dependency_is_imported() -> None:
    used = {name for package in foreign() for name in distributions(package)}
    assert not BASE - used
