"""What a step of a run is, what it can reach, and the loop that makes every step in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator

from plaudit import hub
from plaudit.assets import write_atomically
from plaudit.chain.team import Team
from plaudit.corpus.embedded.probes import Probes, load_probes
from plaudit.corpus.shards import ShardSet
from plaudit.recipe import Recipe
from plaudit.reward.features import RewardFeatures
from plaudit.reward.training import EMBEDDED_REWARD
from plaudit.runs import Run, fingerprint, opened
from plaudit.stages.parallel import accelerator_for
from plaudit.types import AudioEmbedder, Codec, Embedder, TextEncoder

Progress = Callable[[int, int], None]


class Reporter(Protocol):
    """Where a run tells a person what it does."""

    def step(self, name: str, state: str) -> None:
        """A step is "started", "resumed" or found "done"."""

    def note(self, line: str) -> None:
        """Something about the data or the run that the user should know of."""

    def progress(self, label: str) -> AbstractContextManager[Progress]:
        """A bar for work that takes a while: with reporter.progress("encoding") as advance: advance(done, total)."""


Maker = Callable[["Context", Path], None]
"""Fills the folder of a step."""


@dataclass(frozen=True)
class Step:
    """One step: made from `settings`, the steps in `needs`, and this `version` of its code.

    make(context, folder) fills the folder; called again after a kill, it must skip what it finds whole. Of several
    processes the leading one calls it, or, of a step done `together`, all.
    """

    name: str
    version: int
    settings: dict[str, Any]
    needs: tuple[str, ...]
    make: Maker
    together: bool = False


@dataclass
class Context:
    """What steps can reach: the recipe, the other steps' folders, and the frozen models, each loaded once."""

    recipe: Recipe
    run: Run
    reporter: Reporter
    accelerator: Accelerator
    team: Team
    keys: dict[str, str] = field(default_factory=dict)

    def path(self, step: str) -> Path:
        """The folder of a step made before."""
        return self.run.folder / step

    @cached_property
    def shards(self) -> ShardSet:
        """The encoded corpus: that of the step before, or a prepared one; one process looks at its checksums, once."""
        corpus = self.recipe.corpus
        prepared = corpus.folder if corpus.kind == "shards" else None
        return ShardSet(prepared or self.path("shards"), verify=self.team.leads)

    @cached_property
    def codec(self) -> Codec:
        """The codec named by the recipe."""
        return hub.build(hub.CODECS, self.recipe.models.codec)

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """The text encoder named by the recipe."""
        return hub.build(hub.TEXT_ENCODERS, self.recipe.models.text_encoder)

    @cached_property
    def clap(self) -> Embedder:
        """The CLAP named by the recipe: part of the reward, and the judge of text-audio agreement."""
        return hub.build(hub.CLAPS, self.recipe.models.clap)

    @cached_property
    def audio_embedder(self) -> AudioEmbedder:
        """The second listener of the reward (MERT's place)."""
        return hub.build(hub.AUDIO_EMBEDDERS, self.recipe.models.audio_embedder)

    @cached_property
    def reward_features(self) -> RewardFeatures:
        """What a reward trained in this run sees."""
        return RewardFeatures(self.clap, self.audio_embedder, EMBEDDED_REWARD.blocks)

    @cached_property
    def probes(self) -> Probes:
        """What the simulated listeners hear with; no reward ever sees it."""
        return load_probes()


def run_chain(recipe: Recipe, folder: Path, steps: list[Step], reporter: Reporter) -> None:
    """Make every step of `steps` that is missing or stale in the run `folder`, holding the folder's lock.

    Under torchrun every process calls this; the folder must be one that all of them see.
    """
    accelerator = accelerator_for(recipe.precision)
    with ExitStack() as stack:
        team = stack.enter_context(Team(accelerator))
        run = stack.enter_context(opened(folder)) if team.leads else Run(folder)
        if team.leads:
            write_atomically(folder / "recipe.yaml", recipe.to_yaml())
        context = Context(recipe, run, reporter if team.leads else Silent(), accelerator, team)
        context.keys.update(keys_of(steps))
        for step in steps:
            _make(context, step, context.keys[step.name])


def keys_of(steps: list[Step]) -> dict[str, str]:
    """The fingerprint of each step, of which each stands after those that it needs."""
    keys: dict[str, str] = {}
    for step in steps:
        needs = {name: keys[name] for name in step.needs}
        keys[step.name] = fingerprint(step=step.name, version=step.version, settings=step.settings, needs=needs)
    return keys


def _make(context: Context, step: Step, key: str) -> None:
    """One step: by the leading process while the others wait, or by all together."""
    run, team = context.run, context.team
    if not step.together:
        if team.leads:
            run.step(step.name, key, partial(step.make, context), context.reporter.step)
        team.wait()
        return
    state = team.told(run.begin(step.name, key) if team.leads else "")
    context.reporter.step(step.name, state)
    if state != "done":
        started = time.monotonic()
        step.make(context, context.path(step.name))
        team.wait()
        if team.leads:
            run.finish(step.name, key, time.monotonic() - started)


class Silent:
    """The reporter of processes that don't lead."""

    def step(self, name: str, state: str) -> None:
        """Say nothing."""

    def note(self, line: str) -> None:
        """Say nothing."""

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """Show nothing."""
        yield lambda done, total: None
