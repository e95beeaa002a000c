"""A step reads no other settings or folders and runs no other code than it declares, in a small run of all steps."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
import threading
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import plaudit
from plaudit.code_digest import UNCOUNTED, _Closure, _roots
from plaudit.pipeline import steps
from plaudit.pipeline.runner import RunFiles, Step
from plaudit.recipe import Recipe, load_recipe
from plaudit.settings import Settings
from tests.pipeline.test_run import TINY
from tests.pipeline.test_runner import RecordingReporter

PACKAGE = Path(plaudit.__file__).parent

NOT_DECLARED = ("training_loop.", "name", "sampling.", "backbone.start_from")
"""Settings that steps read without depending on them: how training is carried out, the provenance in config.json, and
the default sampling settings there."""


class Watch:
    """Settings and folders that each step reads, and the code that it runs."""

    def __init__(self) -> None:
        self.step: Step | None = None
        self.settings: dict[str, set[str]] = defaultdict(set)
        self.folders: dict[str, set[str]] = defaultdict(set)
        self.code: dict[str, set[CodeType]] = defaultdict(set)

    def wrapped(self, step: Step) -> Step:
        def make(context: Any, folder: Path) -> None:
            self.step = step
            sys.setprofile(self.called)
            threading.setprofile(self.called)
            try:
                step.make(context, folder)
            finally:
                sys.setprofile(None)
                threading.setprofile(None)  # type: ignore[arg-type]
                self.step = None

        watched = replace(step, make=make)
        watched.__dict__["code"] = step.code
        return watched

    def called(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and self.step is not None:
            self.code[self.step.name].add(frame.f_code)


def leaves_of(recipe: Recipe) -> dict[int, str]:
    """The dotted name of every section of a recipe, by its identity."""
    found = {id(recipe): ""}

    def add(section: Settings, prefix: str) -> None:
        for name in type(section).model_fields:
            value = section.__dict__[name]
            if isinstance(value, Settings):
                found[id(value)] = f"{prefix}{name}."
                add(value, f"{prefix}{name}.")

    add(recipe, "")
    for stage in recipe.stages:
        found[id(stage)] = f"stages.{stage.name}."
        add(stage, f"stages.{stage.name}.")
    return found


@pytest.mark.slow
def test_steps_use_only_what_they_declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in pkgutil.walk_packages([str(PACKAGE)], "plaudit."):  # so that no import happens within a step
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    recipe = load_recipe("smoke", ["precision=no", *TINY])
    chain, watch = steps.steps(recipe), Watch()
    read, folder_of = object.__getattribute__, RunFiles.path
    sections = leaves_of(recipe)

    def getattribute(self: Settings, name: str) -> Any:
        prefix = sections.get(id(self))
        if watch.step is not None and prefix is not None:
            if name in type(self).model_fields:
                if not isinstance(self.__dict__[name], Settings):
                    watch.settings[watch.step.name].add(prefix + name)
            elif name in ("model_copy", "model_dump", "model_dump_json"):
                watch.settings[watch.step.name].add(prefix)
        return read(self, name)

    def path(self: RunFiles, step: str) -> Path:
        if watch.step is not None:
            watch.folders[watch.step.name].add(step)
        return folder_of(self, step)

    monkeypatch.setattr(Settings, "__getattribute__", getattribute, raising=False)
    monkeypatch.setattr(RunFiles, "path", path)
    steps.run_chain(recipe, tmp_path / "run", [watch.wrapped(step) for step in chain], RecordingReporter(), "a test")
    monkeypatch.undo()
    assert len(watch.code) == len(chain)
    wrong = {step.name: found for step in chain if (found := undeclared(step, watch))}
    assert wrong == {}, "\n".join(f"{name}: {sorted(found)}" for name, found in wrong.items())


def undeclared(step: Step, watch: Watch) -> set[str]:
    """The settings, folders and functions that a step used without declaring them."""
    declared = {*step.settings, *step.external}
    named = re.compile(r"stages\.[^.]*\.name")  # it is in the names of the stage's other settings
    settings = {
        name for name in watch.settings[step.name]
        if not name.startswith(NOT_DECLARED) and not named.fullmatch(name)
        and not any(d == name or d.startswith(name) for d in declared)
    }  # fmt: skip
    folders = {f"folder {name}" for name in watch.folders[step.name] - {*step.needs}}
    return settings | folders | missing_code(step, watch.code[step.name])


def missing_code(step: Step, ran: set[CodeType]) -> set[str]:
    """Functions of the package that a step ran and that its digests leave out."""
    counted = {(module, name) for module, name in _Closure(tuple(_roots(step.make))).digests}
    found = set()
    for code in ran:
        file = Path(code.co_filename)
        if file.suffix != ".py" or not file.is_relative_to(PACKAGE) or not code.co_flags & inspect.CO_OPTIMIZED:
            continue
        module = ".".join(("plaudit", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        first, *rest = code.co_qualname.split(".")
        names = {first, ".".join((first, *rest[:1]))} if is_whole(module, first) else {".".join((first, *rest[:1]))}
        names = {name.removesuffix(".<locals>").removesuffix(".<lambda>") for name in names}  # defaults of fields
        if module not in UNCOUNTED and not first.startswith("<") and not any((module, n) in counted for n in names):
            found.add(f"{module}.{code.co_qualname}")
    return found


def is_whole(module: str, name: str) -> bool:
    """Whether a class counts with all its methods."""
    from plaudit.code_digest import _class, _kind

    found = _class(module, name)
    return found is not None and _kind(*found[1]) == "whole"
