"""Registries: parts of one interface by name, from this package, installed packages, Python files and model folders."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any, Generic, TypeVar

from plaudit.code_digest import outside_digest
from plaudit.errors import ModelError, PlauditError, listed
from plaudit.places import SHIPPED_WEIGHTS, is_model_folder, user_model
from plaudit.storage import digest_of, file_digest, folder_digest, read_json

T = TypeVar("T")

FILE = re.compile(r"(.+\.py):([^\W\d]\w*)")
MODULE = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")
NO_IDENTITY = "none"
"""The identity of what does not exist."""

Target = str | Path | Callable[..., Any]
"""Where a built-in part is: "module:name", a folder of one of the registry's kinds, or the object itself."""


class Registry(Generic[T]):
    """Parts of one interface, by name.

    A name is, in this order: a built-in one; an entry point of `group` in an installed package; NAME in a Python file
    or module, as `path/to/file.py:NAME` or `package.module:NAME`; or a model folder, by its path or by the name it was
    imported under, whose config.json has one of `folder_kinds` as its `kind`.

    what: the word for one part in messages.
    folder_kinds: kind -> the function that reads such a folder, itself or as "module:function".
    requires: attributes that a part must have.
    call: whether a name leads to a function or class that is called, without arguments, for the part.
    weights: for built-in parts, the folders of shipped weights that they load.
    references: keys of config.json, dotted where nested, that name a part of another registry.
    include: registries whose parts are parts of this one too.
    explain: a message for a name that leads nowhere, or None for the general one.
    """

    def __init__(
        self,
        what: str,
        group: str,
        builtin: Mapping[str, Target],
        *,
        folder_kinds: Mapping[str, str | Callable[[Path], T]] | None = None,
        requires: tuple[str, ...] = (),
        call: bool = False,
        weights: Mapping[str, tuple[str, ...]] | None = None,
        references: Mapping[str, Registry[Any]] | None = None,
        include: Iterable[Registry[Any]] = (),
        error: type[PlauditError] = ModelError,
        explain: Callable[[str], str | None] = lambda name: None,
    ) -> None:
        self.what, self.requires, self.call, self.error, self.explain = what, requires, call, error, explain
        self.groups = [group]
        self.builtin: dict[str, Target] = {}
        self.folder_kinds: dict[str, str | Callable[[Path], T]] = {}
        self.weights: dict[str, tuple[str, ...]] = {}
        self.references = dict(references or {})
        for other in include:
            self.groups += other.groups
            self.builtin |= other.builtin
            self.folder_kinds |= other.folder_kinds
            self.weights |= other.weights
        self.builtin |= builtin
        self.folder_kinds |= folder_kinds or {}
        self.weights |= weights or {}

    def register(self, name: str, target: Target) -> None:
        """Add a part under a name, for this process."""
        self.builtin[name] = target

    def names(self) -> list[str]:
        """Names of built-in and installed parts."""
        return sorted({*self.builtin, *self._installed()})

    def load(self, name: str, base: Path | None = None) -> T:
        """The part called `name`; a relative path of a file or folder is looked for in `base`, then here.

        The registry's error, ModelError if it has no other, where there is none, it fails, or it lacks an attribute.
        """
        if name in self.builtin:
            target = self.builtin[name]
            if isinstance(target, Path):
                return self._read(target)
            value: Any = resolve_name(target) if isinstance(target, str) else target
            part: T = value() if self.call else value
            return part
        if point := self._installed().get(name):
            return self._checked(f"installed {self.what} {name!r} ({point.value})", point.load)
        if match := FILE.fullmatch(name):
            path, attribute = _located(match[1], base), match[2]
            if not path.is_file():
                raise self.error(f"{self.what} {name!r}: there is no file {path}; check the path")
            return self._checked(f"{self.what} {name!r}", lambda: _attribute(_load_file(path), attribute), path)
        if MODULE.fullmatch(name) and not Path(name).exists():
            with _import_path(base or Path.cwd()):
                return self._checked(f"{self.what} {name!r}", lambda: EntryPoint(name, name, "").load())
        return self._read(self.folder(name, base))

    def identity(self, name: str, base: Path | None = None) -> str:
        """A digest of the code or weights of the part called `name`, and of parts that it names in turn.

        What was computed with another one is stale. NO_IDENTITY where there is no such part: loading it says why.
        """
        if name in self.weights:
            return weights_digest(*self.weights[name])
        if name in self.builtin:
            target = self.builtin[name]
            if isinstance(target, Path):
                return self._folder_identity(target)
            return target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"
        if point := self._installed().get(name):
            package = "" if point.dist is None else f"{point.dist.name} {point.dist.version}"
            return f"{point.value} of {package} {outside_digest(point.value)}"
        if match := FILE.fullmatch(name):
            path = _located(match[1], base)
            return f"{match[2]} {_source_digest(path)}" if path.is_file() else NO_IDENTITY
        if MODULE.fullmatch(name) and not Path(name).exists():
            with _import_path(base or Path.cwd()):
                try:
                    return outside_digest(name) if find_spec(name.partition(":")[0]) else NO_IDENTITY
                except (ImportError, ValueError):
                    return NO_IDENTITY
        try:
            return self._folder_identity(self.folder(name, base))
        except PlauditError:
            return NO_IDENTITY

    def is_folder(self, name: str) -> bool:
        """Whether a name is that of a model folder, and so of imported or trained weights."""
        return name not in self.names() and not (FILE.fullmatch(name) or MODULE.fullmatch(name))

    def folder(self, name: str, base: Path | None = None) -> Path:
        """The model folder at the path `name`, or imported under that name; the registry's error where neither is."""
        for place in (_located(name, base), Path(name), user_model(name)):
            if place is not None and is_model_folder(place):
                return place
        names = self.names()
        raise self.error(self.explain(name) or self._unknown(name, names))

    def _installed(self) -> dict[str, EntryPoint]:
        return {point.name: point for group in reversed(self.groups) for point in entry_points(group=group)}

    def _unknown(self, name: str, names: Collection[str]) -> str:
        near = get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]!r}? Else " if near else ""
        folder = ", or a model folder" if self.folder_kinds else ""
        return f"no {self.what} {name!r}: {hint}give one of {', '.join(names)}, path/to/file.py:NAME{folder}"

    def _checked(self, label: str, find: Callable[[], Any], path: Path | None = None) -> T:
        """The result of `find`, which runs external code: its exceptions become one line."""
        try:
            value = find()
            part: T = value() if self.call else value
        except PlauditError as error:
            raise self.error(f"{label}: {error}") from error
        except Exception as error:
            raise self.error(f"{label} fails{_place(error, path)}: {_reason(error)}; correct its code") from error
        if missing := [attribute for attribute in self.requires if not hasattr(part, attribute)]:
            raise self.error(f"{label} has no {', '.join(missing)}; a {self.what} needs {', '.join(self.requires)}")
        return part

    def _read(self, folder: Path) -> T:
        """The part in a model folder; whatever a damaged or foreign folder makes its reader raise becomes one line."""
        config = read_json(folder / "config.json")
        kind = config.get("kind") if isinstance(config, dict) else None
        if not isinstance(kind, str) or kind not in self.folder_kinds:
            kinds = ", ".join(sorted(self.folder_kinds)) or "none"
            raise self.error(f"{folder} is of kind {kind!r}, which is no {self.what}; kinds that are: {kinds}")
        reader = self.folder_kinds[kind]
        with damage_in(folder):
            part: T = resolve_name(reader)(folder) if isinstance(reader, str) else reader(folder)
            return part

    def _folder_identity(self, folder: Path) -> str:
        parts = [folder_digest(folder)]
        for key, registry in self.references.items():
            value = read_json(folder / "config.json")
            for step in key.split("."):
                value = value.get(step) if isinstance(value, dict) else None
            if isinstance(value, str):
                parts.append(registry.identity(value))
        return " ".join(parts)


@contextmanager
def damage_in(folder: Path) -> Iterator[None]:
    """Whatever a damaged or foreign model folder makes its reader raise, as a ModelError that names the folder."""
    try:
        yield
    except (PlauditError, OSError, MemoryError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        reason = " ".join(reason.split())[:200]
        raise ModelError(f"{folder} cannot be loaded ({reason}); its config.json does not fit its weights") from error


def weights_digest(*names: str) -> str:
    """A digest of the shipped weights of these names."""
    paths = [SHIPPED_WEIGHTS / name / "model.safetensors" for name in names]
    digests = [file_digest(path) if path.exists() else NO_IDENTITY for path in paths]
    return digest_of(*digests)[:16]


def absolute_name(name: str, base: Path | None = None) -> str:
    """A name with its Python file's path absolute, looked for in `base`, then here; other names as they are."""
    match = FILE.fullmatch(name)
    return f"{_located(match[1], base).absolute()}:{match[2]}" if match else name


def portable_name(name: str) -> str:
    """A part's name for use from any working directory: paths of files and folders are absolute."""
    return str(Path(name).absolute()) if Path(name).is_dir() else absolute_name(name)


def _located(path: str, base: Path | None) -> Path:
    within = None if base is None else base / path
    return within if within is not None and within.exists() else Path(path)


def _load_file(path: Path) -> ModuleType:
    return _module_of(path.resolve(), _source_digest(path))


@cache
def _module_of(path: Path, digest: str) -> ModuleType:
    """A Python file as a module, executed once for each content; files beside it can be imported."""
    name = f"{path.stem}_{digest_of(path, digest)[:8]}"
    spec = spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)  # dataclasses look their module up while it is executed
    try:
        with _import_path(path.parent):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _attribute(module: ModuleType, name: str) -> Any:
    if not hasattr(module, name):
        public = [key for key in vars(module) if not key.startswith("_")]
        near = get_close_matches(name, public, 1)
        raise PlauditError(f"the file defines no {name}; " + (f"did you mean {near[0]}?" if near else listed(public)))
    return getattr(module, name)


def _source_digest(path: Path) -> str:
    """A digest of a Python file and of those beside it that it imports."""
    waiting, digests = [path], dict[Path, str]()
    while waiting:
        file = waiting.pop()
        if file not in digests and file.is_file():
            source = file.read_bytes()
            digests[file] = digest_of(source)
            for names in re.findall(rb"^\s*(?:from|import)\s+([\w, ]+)", source, re.MULTILINE):
                waiting += [file.with_name(f"{name.decode()}.py") for name in re.findall(rb"\w+", names)]
    return digest_of(*sorted(digests.values()))[:16]


@contextmanager
def _import_path(folder: Path) -> Iterator[None]:
    """Modules of a folder can be imported, after all others."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _place(error: Exception, path: Path | None) -> str:
    """Where in a file its code failed, or the line that cannot be parsed."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {error.filename}, line {error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if path and Path(f.filename) == path.resolve()]
    return f" at {path}, line {frames[-1].lineno}" if frames else ""


def _reason(error: Exception) -> str:
    text = error.msg if isinstance(error, SyntaxError) else error
    return " ".join(f"{type(error).__name__}: {text}".split())[:200]
