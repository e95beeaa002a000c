"""Source code as data: what a module defines and imports, what a statement names, and digests of statements."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from plaudit.storage import digest_of

Symbol = tuple[str, str]
"""A module and the name of one of its definitions; "*" for all of them."""

TARGET = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+):([A-Za-z_]\w*)")


@dataclass(frozen=True)
class Source:
    """One module: its definitions by name, what it imports by name, and statements that define nothing."""

    definitions: dict[str, list[ast.stmt]] = field(default_factory=lambda: defaultdict(list))
    aliases: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    loose: list[ast.stmt] = field(default_factory=list)


@dataclass(frozen=True)
class Scanned:
    """What one statement names: definitions as values or in annotations, attributes; and its digest."""

    values: frozenset[Symbol]
    annotations: frozenset[Symbol]
    attributes: frozenset[str]
    digest: str


@cache
def path_of(module: str) -> Path | None:
    """The file of a module's source; None where there is none. Nothing is imported for it."""
    top, _, rest = module.partition(".")
    if not rest:
        return _top_path(module)
    first = _top_path(top)
    if first is None or first.name != "__init__.py":
        return None
    place = first.parent.joinpath(*rest.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


@cache
def _top_path(name: str) -> Path | None:
    if name in sys.stdlib_module_names:
        return None
    origin = getattr(sys.modules.get(name), "__file__", None)
    try:
        spec = None if origin else importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None
    origin = origin or (spec.origin if spec is not None else None)
    return Path(origin) if origin and origin.endswith(".py") and Path(origin).is_file() else None


@cache
def own_folder(module: str) -> Path | None:
    """The folder of a module that is a file of somebody's own, not part of an installed package."""
    path = path_of(module.partition(".")[0])
    if path is None or path.name == "__init__.py" or {"site-packages", "dist-packages"} & set(path.parts):
        return None
    return path.parent


@cache
def read_module(module: str) -> Source | None:
    """A module's source, cut into definitions."""
    path = path_of(module)
    if path is None:
        return None
    source = Source()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    try:
        _collect(ast.parse(path.read_bytes()).body, source, package)
    except (OSError, SyntaxError, ValueError):
        return None
    return source


def _collect(statements: Iterable[ast.stmt], source: Source, package: str) -> None:
    for statement in statements:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            source.aliases.update(_imported(statement, package))
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            source.definitions[statement.name].append(statement)
        elif isinstance(statement, ast.If | ast.Try | ast.With):
            for part in ("body", "orelse", "finalbody"):
                _collect(getattr(statement, part, []), source, package)
            for handler in getattr(statement, "handlers", []):
                _collect(handler.body, source, package)
        elif names := [n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and _is_target(n, statement)]:
            for name in names:
                source.definitions[name].append(statement)
        elif not is_docstring(statement):
            source.loose.append(statement)


def _is_target(name: ast.Name, statement: ast.stmt) -> bool:
    """Whether a statement at module level assigns to a name, or to a part of what it stands for."""
    if isinstance(name.ctx, ast.Store):
        return True
    targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
    return any(isinstance(t, ast.Attribute | ast.Subscript) and _first_name(t) is name for t in targets)


def _first_name(node: ast.expr) -> ast.expr:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node


def _imported(statement: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, tuple[str, str | None]]]:
    """Local name, and (module, name in it), or (module, None) where the name is the module."""
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            name = alias.name if alias.asname else alias.name.partition(".")[0]
            yield alias.asname or name, (name, None)
        return
    parents = package.split(".")[: len(package.split(".")) - statement.level + 1] if statement.level else []
    origin = ".".join([*parents, *([statement.module] if statement.module else [])])
    for alias in statement.names:
        inner = f"{origin}.{alias.name}"
        target = (inner, None) if path_of(inner) is not None else (origin, alias.name)
        yield alias.asname or alias.name, target


@cache
def scan(module: str, statement: ast.stmt) -> Scanned:
    """The names that a top-level statement of a module refers to."""
    source, path = read_module(module), path_of(module)
    assert source is not None and path is not None
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    aliases = dict(source.aliases)
    for node in ast.walk(statement):
        if isinstance(node, ast.Import | ast.ImportFrom):
            aliases.update(_imported(node, package))
    found = _References(module, source, aliases)
    found.visit(statement)
    digest = digest_of(repr(_plain(statement)).encode())[:16]
    return Scanned(frozenset(found.values), frozenset(found.annotations), frozenset(found.attributes), digest)


class _References(ast.NodeVisitor):
    """Collects what a statement names."""

    def __init__(self, module: str, source: Source, aliases: dict[str, tuple[str, str | None]]) -> None:
        self._module, self._source, self._aliases = module, source, aliases
        self._in_annotation = False
        self.values: set[Symbol] = set()
        self.annotations: set[Symbol] = set()
        self.attributes: set[str] = set()

    def visit_Name(self, node: ast.Name) -> None:
        self._name([node.id])

    def visit_Attribute(self, node: ast.Attribute) -> None:
        parts, inner = [node.attr], node.value
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        self.attributes.update(parts)
        if isinstance(inner, ast.Name):
            self._name([inner.id, *reversed(parts)])
        else:
            self.visit(inner)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            if target := TARGET.fullmatch(node.value):
                self._add((target[1], target[2]))
            elif node.value.isidentifier():  # perhaps of getattr
                self.attributes.add(node.value)

    def visit_arg(self, node: ast.arg) -> None:
        self._annotation(node.annotation)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._annotation(node.annotation)
        for part in (node.target, node.value):
            if part is not None:
                self.visit(part)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._annotation(node.returns)
        for part in (*node.decorator_list, node.args, *node.body):
            self.visit(part)

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_Expr(self, node: ast.Expr) -> None:
        if not is_docstring(node):
            self.generic_visit(node)

    def _annotation(self, node: ast.expr | None) -> None:
        if node is not None:
            before, self._in_annotation = self._in_annotation, True
            self.visit(node)
            self._in_annotation = before

    def _name(self, parts: list[str]) -> None:
        first, *rest = parts
        if first in self._aliases:
            module, name = self._aliases[first]
            while name is None and rest and path_of(f"{module}.{rest[0]}") is not None:
                module, rest = f"{module}.{rest[0]}", rest[1:]
            self._add((module, name or (rest[0] if rest else "*")))
        elif first in self._source.definitions:
            self._add((self._module, first))

    def _add(self, symbol: Symbol) -> None:
        (self.annotations if self._in_annotation else self.values).add(symbol)


def last_name(node: ast.expr) -> str:
    """The last part of a dotted name, called or not; empty where the expression is no name."""
    if isinstance(node, ast.Call):
        return last_name(node.func)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def is_docstring(node: Any) -> bool:
    """Whether a statement is a bare string, which does nothing."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _plain(node: Any) -> Any:
    """A tree as nested tuples: without places, docstrings and messages of errors, alike in all versions of Python."""
    if isinstance(node, ast.Raise):
        return "Raise", "" if node.exc is None else last_name(node.exc)
    if isinstance(node, ast.AST):
        parts = ((name, _plain(value)) for name, value in ast.iter_fields(node) if name not in ("ctx", "kind"))
        return type(node).__name__, *(part for part in parts if part[1] not in (None, ()))
    if isinstance(node, list):
        return tuple(_plain(item) for item in node if not is_docstring(item))
    return node if node is None else repr(node)
