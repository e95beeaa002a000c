"""What a step of a run is, what it can reach, and the loop that makes every step in order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator

from plaudit import hub
from plaudit.assets import write_atomically
from plaudit.corpus.embedded.probes import Probes, load_probes
from plaudit.recipe import Recipe
from plaudit.reward.features import RewardFeatures
from plaudit.reward.training import EMBEDDED_REWARD
from plaudit.runs import Run, fingerprint, opened
from plaudit.types import AudioEmbedder, Codec, Embedder, TextEncoder

Progress = Callable[[int, int], None]


class Reporter(Protocol):
    """Where a run tells a person what it does."""

    def step(self, name: str, state: str) -> None:
        """A step is "started", "resumed" or found "done"."""

    def progress(self, label: str) -> AbstractContextManager[Progress]:
        """A bar for work that takes a while: with reporter.progress("encoding") as advance: advance(done, total)."""


@dataclass(frozen=True)
class Step:
    """One step: made from `settings`, the steps in `needs`, and this `version` of its code.

    make(context, folder) fills the folder; called again after a kill, it must skip what it finds whole.
    """

    name: str
    version: int
    settings: dict[str, Any]
    needs: tuple[str, ...]
    make: Callable[[Context, Path], None]


@dataclass
class Context:
    """What steps can reach: the recipe, the other steps' folders, and the frozen models, each loaded once."""

    recipe: Recipe
    run: Run
    reporter: Reporter
    accelerator: Accelerator
    keys: dict[str, str] = field(default_factory=dict)

    def path(self, step: str) -> Path:
        """The folder of a step made before."""
        return self.run.folder / step

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


def run_chain(recipe: Recipe, folder: Path, steps: list[Step], reporter: Reporter) -> Context:
    """Make every step of `steps` that is missing or stale in the run `folder`, holding the folder's lock."""
    with opened(folder) as run:
        write_atomically(folder / "recipe.yaml", recipe.to_yaml())
        context = Context(recipe, run, reporter, Accelerator(mixed_precision=recipe.precision))
        for step in steps:
            needs = {name: context.keys[name] for name in step.needs}
            key = fingerprint(step=step.name, version=step.version, settings=step.settings, needs=needs)
            context.keys[step.name] = key
            run.step(step.name, key, partial(step.make, context), reporter.step)
        return context
