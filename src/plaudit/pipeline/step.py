"""What a step of a run is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from plaudit.code_digest import code_digests
from plaudit.pipeline.run_folder import Origin

Maker = Callable[[Any, Path], None]
"""Fills the folder of a step, given the context of the run (plaudit.pipeline.runner.Context)."""


Given = dict[str, str | Callable[[], str]]


@dataclass(frozen=True)
class Step:
    """One step, made from `settings`, files from outside the run (`given`: digests, or what computes them where that
    takes a while), and what the steps in `needs` left.

    make(context, folder) fills the folder; called again after a kill, it must skip what it finds whole. It reads no
    other settings and no other steps than those named here. Of several processes the leading one calls it, or, of a
    step done `together`, all. read_later: patterns of the files that later steps read; others may differ without
    making these stale.
    """

    name: str
    settings: dict[str, Any]
    needs: tuple[str, ...]
    make: Maker
    given: Given = field(default_factory=dict)
    read_later: tuple[str, ...] = ("**/*",)
    together: bool = False

    @cached_property
    def code(self) -> dict[str, str]:
        """Digests of the source that it runs, by module."""
        return code_digests(self.make)

    def origin(self, inputs: dict[str, str]) -> Origin:
        """What it is made from, given digests of what the steps it needs have left."""
        given = {name: digest if isinstance(digest, str) else digest() for name, digest in self.given.items()}
        return Origin(json.loads(json.dumps(self.settings)), given, self.code, inputs)
