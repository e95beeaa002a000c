"""Digests of the source code that a function runs, so that what it made is known to be stale once its code changes.

The digest covers the function and every definition that it reaches, by name, through the package: functions, classes,
constants. Comments, docstrings, layout and the wording of error messages don't count. Of a plain class only the methods
count whose names are used; of a Settings class that is only read, not constructed, the fields don't count either, since
their values are settings of whatever reads them.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import Any

from plaudit.code_reading import Symbol, last_name, own_folder, read_module, scan
from plaudit.storage import digest_of

PACKAGE = "plaudit"

BOOKKEEPING = (
    *("code_digest", "code_reading", "errors", "machine", "reporting"),
    *("pipeline.run_folder", "pipeline.runner"),
)
UNCOUNTED = {PACKAGE, *(f"{PACKAGE}.{name}" for name in BOOKKEEPING)}
"""Modules that decide nothing about a result: the lazy front, errors, bookkeeping, waiting for other processes."""

SETTINGS = (f"{PACKAGE}.settings", "Settings")
CALLED_UNNAMED = {"close"}
"""Methods that the standard library calls for those who name them nowhere (contextlib.closing)."""
PLAIN_BASES = {"Protocol", "object"}
PLAIN_DECORATORS = {"property", "cached_property", "staticmethod", "classmethod", "contextmanager", "override"}


def code_digests(*functions: Callable[..., Any]) -> dict[str, str]:
    """For each module that the functions reach, a digest of the definitions reached in it."""
    return _digests(tuple(dict.fromkeys(root for function in functions for root in _roots(function))))


def outside_digest(target: str) -> str:
    """A digest of the code behind `module:name` of another package or file, and of the code beside it that it uses."""
    module, _, name = target.partition(":")
    found = _digests(((module, name.partition(".")[0]),))
    return digest_of(repr(sorted(found.items())).encode())[:16]


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
        self._folders = {folder for module, _ in roots if (folder := own_folder(module)) is not None}
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
        return module.partition(".")[0] in self._packages or own_folder(module) in self._folders

    def _add(self, module: str, name: str, statement: ast.stmt) -> None:
        """Count a statement, and follow what it names."""
        scanned = scan(module, statement)
        self.digests[module, name].add(scanned.digest)
        self._waiting += [(symbol, True) for symbol in scanned.values]
        self._waiting += [(symbol, False) for symbol in scanned.annotations]
        for attribute in scanned.attributes - self._attributes:
            self._attributes.add(attribute)
            for place_of, qualified, method in self._unused.pop(attribute, ()):
                self._add(place_of, qualified, method)

    def _add_class(self, module: str, statement: ast.ClassDef, as_value: bool) -> None:
        """Count a class: whole where something outside calls its methods, else what is used of it."""
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
    """Whether a statement in a stage's class says which settings it has, which only count by their values."""
    return isinstance(statement, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id == "Settings" for target in statement.targets
    )


@cache
def _called_of_others() -> frozenset[str]:
    """Methods that this package calls of what others bring, by the protocols that they follow."""
    types = read_module(f"{PACKAGE}.types")
    assert types is not None
    parts = (part for found in types.definitions.values() for s in found for part in ast.walk(s))
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
        found = _class(module, name)
        if found is None:
            return "whole"
        if found[0] == SETTINGS or _kind(*found[1]) == "settings":
            return "settings"
        if _kind(*found[1]) == "whole":
            return "whole"
    return "plain"


def _class(module: str, name: str) -> tuple[Symbol, tuple[str, ast.ClassDef]] | None:
    """The class that a name stands for in a module of this package."""
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
