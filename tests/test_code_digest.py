"""Digests of code: which changes of the source change them, and that each step's cover the code it runs."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from plaudit import code_digest
from plaudit.code_digest import code_digests, outside_digest
from plaudit.pipeline.steps import steps
from plaudit.recipe import load_recipe

MAIN = '''
"""A package from elsewhere."""
import math

from outside.parts import Base, helper as renamed
from outside import numbers

LIMIT = 3
unused_limit = 4
REGISTRY = {"x": "outside.late:loaded"}
REGISTRY["y"] = 1


def root(thing: Base, options):
    """Root of it all."""
    from outside.late import local

    if thing is None:
        raise ValueError("nothing there")
    return renamed(LIMIT) + numbers.two() + local() + thing.used() + len(REGISTRY)  # a comment


def unreached():
    return 1
'''
FILES = {
    "__init__": "",
    "main": MAIN,
    "parts": '''
from outside.deep import constant


def helper(x):
    return x + constant


class Base:
    """A class."""

    factor = 2

    def used(self):
        return self.factor * self.inner

    @property
    def inner(self):
        return 1

    def unused(self):
        return 0

    def __len__(self):
        return 1
''',
    "deep": "from outside.numbers import value as constant\n",
    "numbers": "value = 5\n\n\ndef two():\n    return 2\n\n\ndef three():\n    return 3\n",
    "late": "def loaded():\n    return 1\n\n\ndef local():\n    return 2\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, text in FILES.items():
        (tmp_path / "outside").mkdir(exist_ok=True)
        (tmp_path / "outside" / f"{name}.py").write_text(text)
    return tmp_path / "outside"


def digest(target: str = "outside.main:root") -> str:
    """The digest as a new process computes it."""
    importlib.invalidate_caches()
    for function in vars(code_digest).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()
    return outside_digest(target)


def changed(package: Path, file: str, old: str, new: str) -> bool:
    """Whether replacing `old` by `new` changes the digest."""
    before, path = digest(), package / f"{file}.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    after = digest()
    path.write_text(text)
    assert digest() == before
    return after != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("main", "LIMIT = 3", "LIMIT = 4"),
        ("main", "len(REGISTRY)", "len(REGISTRY) + 1"),
        ("main", 'REGISTRY["y"] = 1', 'REGISTRY["y"] = 2'),
        ("main", "ValueError(", "TypeError("),
        ("main", "thing is None", "thing == 0"),
        ("parts", "x + constant", "x - constant"),
        ("parts", "factor = 2", "factor = 3"),
        ("parts", "self.factor * self.inner", "self.factor"),
        ("parts", "        return 1\n\n    def unused", "        return 2\n\n    def unused"),
        ("deep", "value as constant", "two as constant"),
        ("numbers", "value = 5", "value = 6"),
        ("numbers", "return 2", "return 22"),
        ("late", "return 1", "return 11"),
        ("late", "return 2", "return 22"),
    ],
)
def test_a_change_of_code_that_runs_changes_the_digest(package: Path, file: str, old: str, new: str) -> None:
    assert changed(package, file, old, new)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("main", "  # a comment", ""),
        ("main", "Root of it all.", "Something else."),
        ("main", '    """Root of it all."""\n', ""),
        ("main", "A package from elsewhere.", "Another."),
        ("main", "    return renamed(LIMIT)", "    return (\n        renamed(LIMIT)\n    )"),
        ("main", "nothing there", "there is none; name one"),
        ("main", "return 1\n", "return 2\n"),
        ("main", "unused_limit = 4", "unused_limit = 5"),
        ("parts", "A class.", "A class, indeed."),
        ("parts", "return 0", "return 9"),
        ("numbers", "return 3", "return 33"),
    ],
)
def test_unused_code_comments_and_messages_do_not_change_the_digest(
    package: Path, file: str, old: str, new: str
) -> None:
    assert not changed(package, file, old, new)


def test_the_digest_of_a_user_file_includes_the_modules_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_reward.py").write_text("from beside_it import scale\n\n\nclass Mine:\n    s = scale\n")
    (tmp_path / "beside_it.py").write_text("scale = 1\n")
    before = digest("my_reward:Mine")
    (tmp_path / "beside_it.py").write_text("scale = 2\n")
    assert digest("my_reward:Mine") != before
    assert digest("no_such_module:Mine") == digest("no_such_module:Yours")


def test_digests_do_not_depend_on_the_order_of_calls() -> None:
    expected = [code_digests(step.make) for step in steps(load_recipe("smoke"))]
    digest()
    assert [code_digests(step.make) for step in reversed(steps(load_recipe("smoke")))] == expected[::-1]


def test_a_stages_digest_leaves_out_the_code_of_other_stages() -> None:
    chain = steps(load_recipe("smoke", ["stages.nft.train={steps: 1, learning_rate: 1e-3}"]))
    modules = {step.name: set(step.code) for step in chain}
    for stage, module in (("sft", "sft"), ("crpo", "crpo"), ("nft", "nft")):
        others = {f"plaudit.stages.{name}" for name in {"crpo", "nft", "expert_iteration"} - {module}}
        assert f"plaudit.stages.{module}" in modules[stage] and not others & modules[stage]
        assert {"plaudit.training.loop", "plaudit.backbone.fluxaudio", "plaudit.flow"} <= modules[stage]


def test_settings_count_by_their_values_and_not_their_code() -> None:
    """A new setting or another default makes no step stale whose values stay the same."""
    crpo = next(step for step in steps(load_recipe("smoke")) if step.name == "crpo")
    closure = code_digest._Closure(tuple(code_digest._roots(crpo.make)))
    source = code_digest.read_module("plaudit.stages.crpo")
    assert source is not None
    (statement,) = source.definitions["CrpoSettings"]
    assert ("plaudit.stages.crpo", "CrpoSettings") in closure.digests
    assert (
        code_digest.scan("plaudit.stages.crpo", statement).digest
        not in closure.digests["plaudit.stages.crpo", "CrpoSettings"]
    )


def test_the_digest_of_a_user_class_includes_inherited_methods(package: Path) -> None:
    text = (
        "class Base:\n    def score(self):\n        return 1\n\n\n"
        "class Mine(Base):\n    def audio(self):\n        return 2\n"
    )
    digests = set()
    for old, new in (("", ""), ("return 1", "return 11"), ("return 2", "return 22")):
        (package / "mine.py").write_text(text.replace(old, new, 1))
        digests.add(digest("outside.mine:Mine"))
    assert len(digests) == 3
