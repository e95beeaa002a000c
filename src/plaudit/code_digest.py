"""Digests of the source code that a function runs, by which its output is known to be stale once the code changes.

The digest covers the function and every definition that it reaches, by name, through the package: functions, classes,
constants. Comments, docstrings, layout and the wording of error messages don't count. Of a plain class only the methods
count whose names are used; of a Settings class that is only read, not constructed, the fields don't count either, since
their values are settings of the steps that read them.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from plaudit.storage import digest_of

PACKAGE = "plaudit"

BOOKKEEPING = (
    *("code_digest", "errors", "machine", "reporting", "pipeline.run_folder", "pipeline.runner"),
)
UNCOUNTED = {PACKAGE, *(f"{PACKAGE}.{name}" for name in BOOKKEEPING)}
"""Modules that no result depends on: the package itself, which imports lazily, errors, and bookkeeping."""

SETTINGS = (f"{PACKAGE}.settings", "Settings")
CALLED_UNNAMED = {"close"}
"""Methods that the standard library calls (contextlib.closing)."""
PLAIN_BASES = {"Protocol", "object"}
PLAIN_DECORATORS = {"property", "cached_property", "staticmethod", "classmethod", "contextmanager", "override"}

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
    """The names used in one statement (as values, in annotations, as attributes), and its digest."""

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
def _user_folder(module: str) -> Path | None:
    """The folder of a module that is a user's file, not part of an installed package."""
    path = path_of(module.partition(".")[0])
    if path is None or path.name == "__init__.py" or {"site-packages", "dist-packages"} & set(path.parts):
        return None
    return path.parent


@cache
def read_module(module: str) -> Source | None:
    """A module's source, split into definitions."""
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
    """Whether a module-level statement assigns to a name, or to an attribute or item of it."""
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
    references = _References(module, source, aliases)
    references.visit(statement)
    digest = digest_of(repr(_plain(statement)).encode())[:16]
    return Scanned(
        frozenset(references.values), frozenset(references.annotations), frozenset(references.attributes), digest
    )


class _References(ast.NodeVisitor):
    """Collects the names used in a statement."""

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
    """A tree as nested tuples, without positions, docstrings and error messages; the same in all versions of Python."""
    if isinstance(node, ast.Raise):
        return "Raise", "" if node.exc is None else last_name(node.exc)
    if isinstance(node, ast.AST):
        parts = ((name, _plain(value)) for name, value in ast.iter_fields(node) if name not in ("ctx", "kind"))
        return type(node).__name__, *(part for part in parts if part[1] not in (None, ()))
    if isinstance(node, list):
        return tuple(_plain(item) for item in node if not is_docstring(item))
    return node if node is None else repr(node)


def code_digests(*functions: Callable[..., Any]) -> dict[str, str]:
    """For each module that the functions reach, a digest of the definitions reached in it."""
    return _digests(tuple(dict.fromkeys(root for function in functions for root in _roots(function))))


def outside_digest(target: str) -> str:
    """A digest of the code behind `module:name` of another package or file, and of the code beside it that it uses."""
    module, _, name = target.partition(":")
    digests = _digests(((module, name.partition(".")[0]),))
    return digest_of(repr(sorted(digests.items())).encode())[:16]


def _roots(function: Callable[..., Any]) -> Iterator[Symbol]:
    """The module-level definitions that a function, or the parts of a partial one, are in."""
    if isinstance(function, partial):
        for part in (function.func, *function.args, *function.keywords.values()):
            if callable(part):
                yield from _roots(part)
    else:
        yield function.__module__, function.__qualname__.partition(".")[0]


@cache
def _digests(roots: tuple[Symbol, ...]) -> dict[str, str]:
    closure = _Closure(roots)
    by_module: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)
    for (module, name), digests in closure.digests.items():
        by_module[module].append((name, sorted(digests)))
    return {
        module: digest_of(repr(sorted(parts)).encode())[:16]
        for module, parts in sorted(by_module.items())
    }


class _Closure:
    """All definitions that some reach. digests: of each one's statements, by module and name (`Class.method`)."""

    def __init__(self, roots: Iterable[Symbol]) -> None:
        self.digests: dict[Symbol, set[str]] = defaultdict(set)
        self._packages = {PACKAGE, *(module.partition(".")[0] for module, _ in roots)}
        self._folders = {folder for module, _ in roots if (folder := _user_folder(module)) is not None}
        self._waiting: list[tuple[Symbol, bool]] = [(root, True) for root in roots]
        self._seen: set[tuple[Symbol, bool]] = set()
        self._outside = {root for root in roots if root[0].partition(".")[0] != PACKAGE}
        self._attributes = set(_called_of_others()) if self._outside else set[str]()
        self._unused: dict[str, list[tuple[str, str, ast.stmt]]] = defaultdict(list)
        while self._waiting:
            entry = self._waiting.pop()
            if entry not in self._seen:
                self._seen.add(entry)
                self._follow(*entry)

    def _follow(self, symbol: Symbol, as_value: bool) -> None:
        module, name = symbol
        source = read_module(module) if self._counts(module) else None
        if source is None:
            return
        if name == "*":
            self._waiting += [((module, each), True) for each in (*source.definitions, *source.aliases)]
        elif name in source.definitions:
            for statement in source.definitions[name]:
                if isinstance(statement, ast.ClassDef):
                    self._add_class(module, statement, as_value)
                else:
                    self._add(module, name, statement)
            for number, statement in enumerate(source.loose):
                self._add(module, f"line {number}", statement)
        elif name in source.aliases:
            target = source.aliases[name]
            self._waiting.append(((target[0], target[1] or "*"), as_value))
        elif read_module(f"{module}.{name}") is not None:
            self._waiting.append(((f"{module}.{name}", "*"), True))

    def _counts(self, module: str) -> bool:
        if module in UNCOUNTED:
            return False
        return module.partition(".")[0] in self._packages or _user_folder(module) in self._folders

    def _add(self, module: str, name: str, statement: ast.stmt) -> None:
        """Add a statement and everything that it names."""
        scanned = scan(module, statement)
        self.digests[module, name].add(scanned.digest)
        self._waiting += [(symbol, True) for symbol in scanned.values]
        self._waiting += [(symbol, False) for symbol in scanned.annotations]
        for attribute in scanned.attributes - self._attributes:
            self._attributes.add(attribute)
            for place_of, qualified, method in self._unused.pop(attribute, ()):
                self._add(place_of, qualified, method)

    def _add_class(self, module: str, statement: ast.ClassDef, as_value: bool) -> None:
        """Add a class: all of it where external code calls its methods, else the members in use."""
        kind = _kind(module, statement)
        if kind == "whole" or (module, statement.name) in self._outside:
            self._add(module, statement.name, statement)
            return
        methods = [s for s in statement.body if isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef)]
        fields = [s for s in statement.body if s not in methods and not _names_settings(s)]
        read_only = kind == "settings" and not as_value
        if kind == "settings":  # sections within it are read, or constructed, as it is
            self._waiting += [(symbol, as_value) for part in fields for symbol in scan(module, part).annotations]
        header = _header(module, statement, () if read_only else tuple(fields))
        self._add(module, statement.name, header)
        for method in methods:
            qualified = f"{statement.name}.{method.name}"
            plain = {last_name(d) for d in method.decorator_list} <= PLAIN_DECORATORS
            used = method.name in self._attributes | CALLED_UNNAMED or _is_special(method.name)
            if used or not (plain or read_only):
                self._add(module, qualified, method)
            else:
                self._unused[method.name].append((module, qualified, method))


def _names_settings(statement: ast.stmt) -> bool:
    """Whether a statement in a stage's class names its settings class, of which only the values matter."""
    return isinstance(statement, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id == "Settings" for target in statement.targets
    )


@cache
def _called_of_others() -> frozenset[str]:
    """Methods that this package calls on external components: those of its protocols."""
    types = read_module(f"{PACKAGE}.types")
    assert types is not None
    parts = (part for statements in types.definitions.values() for s in statements for part in ast.walk(s))
    return frozenset(part.name for part in parts if isinstance(part, ast.FunctionDef))


@cache
def _header(module: str, statement: ast.ClassDef, fields: tuple[ast.stmt, ...]) -> ast.ClassDef:
    """A class without its methods, and with these of its fields."""
    return ast.ClassDef(statement.name, statement.bases, statement.keywords, list(fields), statement.decorator_list)


@cache
def _kind(module: str, statement: ast.ClassDef) -> str:
    """ "settings", "plain", or "whole" for a class whose methods are called by code that is not followed."""
    if any(last_name(decorator) != "dataclass" for decorator in statement.decorator_list):
        return "whole"
    for base in statement.bases:
        name = last_name(base.value if isinstance(base, ast.Subscript) else base)
        if name in PLAIN_BASES:
            continue
        resolved = _class(module, name)
        if resolved is None:
            return "whole"
        if resolved[0] == SETTINGS or _kind(*resolved[1]) == "settings":
            return "settings"
        if _kind(*resolved[1]) == "whole":
            return "whole"
    return "plain"


def _class(module: str, name: str) -> tuple[Symbol, tuple[str, ast.ClassDef]] | None:
    """The class that a name refers to in a module of this package."""
    source = read_module(module)
    if source is None:
        return None
    for statement in source.definitions.get(name, []):
        if isinstance(statement, ast.ClassDef):
            return (module, name), (module, statement)
    target = source.aliases.get(name)
    return None if target is None or target[1] is None else _class(target[0], target[1])


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")
