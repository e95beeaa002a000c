"""The loop that runs every step in order, on one process or several."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from accelerate import Accelerator

from plaudit.corpus.shards import ShardSet
from plaudit.corpus.sources import CorpusSource, corpus_source
from plaudit.machine import environment_of
from plaudit.pipeline.outlook import Approve, Outlook, nothing_replaced, outlook, require_approval, shareable
from plaudit.pipeline.run_folder import Lineage, Run, check_folder, open_run
from plaudit.pipeline.step import Step
from plaudit.recipe import Recipe
from plaudit.reporting import Reporter, Silent
from plaudit.reward.features import RewardFeatures
from plaudit.reward.training import SYNTHETIC_REWARD
from plaudit.stages.inputs import FrozenModels
from plaudit.storage import write_atomically
from plaudit.training.loop import ProcessGroup, accelerator_for


@dataclass
class RunFiles:
    """A recipe and what the steps of its run have left."""

    recipe: Recipe
    run: Run

    def path(self, step: str) -> Path:
        """The folder of a step made before."""
        return self.run.folder / step

    @cached_property
    def source(self) -> CorpusSource:
        """Where the recipe's clips come from."""
        return corpus_source(self.recipe.corpus)

    @cached_property
    def shards(self) -> ShardSet:
        """The encoded corpus: that of the step before, or a prepared one."""
        prepared = None if self.source.has_audio else self.recipe.corpus.folder
        return ShardSet(prepared or self.path("shards"), verify=self._verifies)

    @property
    def _verifies(self) -> bool:
        """Whether checksums are looked at."""
        return False


@dataclass
class Context(RunFiles):
    """What steps can reach: the recipe, the other steps' folders, and the frozen models, each loaded once."""

    reporter: Reporter
    accelerator: Accelerator
    processes: ProcessGroup

    @property
    def _verifies(self) -> bool:
        return self.processes.is_main  # one process, once

    @cached_property
    def models(self) -> FrozenModels:
        """The frozen models that the recipe names."""
        return FrozenModels(**self.recipe.models.model_dump())

    @cached_property
    def reward_features(self) -> RewardFeatures:
        """What a reward trained in this run sees."""
        return RewardFeatures(self.models.clap, self.models.audio_embedder, SYNTHETIC_REWARD.blocks)



def run_chain(
    recipe: Recipe,
    folder: Path,
    steps: list[Step],
    reporter: Reporter,
    kind: str,
    approve: Approve = nothing_replaced,
    source: Path | None = None,
) -> None:
    """Make every step of `steps` that is missing or stale in the run `folder`, holding the folder's lock.

    kind: what the folder is for. approve: asked before finished or begun steps are replaced. source: another run, whose
    finished steps are taken where they are made from the same. Under torchrun every process calls this; the folder must
    be one that all of them see.
    """
    check_folder(folder, kind)
    accelerator = accelerator_for(recipe.precision)
    with ExitStack() as stack:
        processes = stack.enter_context(ProcessGroup(accelerator))
        run = stack.enter_context(open_run(folder, kind)) if processes.is_main else Run(folder)
        context = Context(recipe, run, reporter if processes.is_main else Silent(), accelerator, processes)
        upkeep = None
        if processes.is_main:
            upkeep = _Upkeep(run, approve, None if source is None else Run(source))
            upkeep.approved(steps)
            write_atomically(folder / "recipe.yaml", recipe.to_yaml())
        for step in steps:
            _make(context, step, upkeep)


def _make(context: Context, step: Step, upkeep: _Upkeep | None) -> None:
    """One step: by the leading process while the others wait, or by all together."""
    processes = context.processes
    state = processes.broadcast(upkeep.begin(step) if upkeep is not None else "")
    context.reporter.step(step.name, state)
    if state not in ("done", "shared"):
        started = time.monotonic()
        if step.together or processes.is_main:
            step.make(context, context.path(step.name))
        processes.barrier()
        if processes.is_main:
            environment = environment_of(context.accelerator.device)
            context.run.finish(step.name, time.monotonic() - started, step.read_later, environment)


class _Upkeep:
    """Decides for each step whether it is made, taken from another run, or replaced. The leading process has one."""

    def __init__(self, run: Run, approve: Approve, source: Run | None) -> None:
        self._run, self._approve, self._source = run, approve, source
        self._replaceable: set[str] = set()
        self._lineages: dict[str, Lineage] = {}

    def approved(self, steps: list[Step]) -> None:
        """RunError where steps would be replaced and nobody agrees to it."""
        lost = [one for one in outlook(steps, self._run, self._source) if one.state == "replaced"]
        require_approval(self._run, lost, self._approve)
        self._replaceable = {one.step for one in lost}

    def begin(self, step: Step) -> str:
        """Make a step's folder ready; its state, as Run.begin says it, or "shared"."""
        run, name = self._run, step.name
        origin = step.origin({need: run.finished(need).output for need in step.needs})
        lineage: Lineage = {}
        for need, output in origin.inputs.items():
            lineage |= self._lineages[need] | {need: [run.key(need), output]}
        self._lineages[name] = lineage
        record = run.record(name)
        if record is None and self._source is not None and shareable(self._source, name, origin) is not None:
            if run.share(name, self._source):
                return "shared"
        if record is not None and record.origin is not None and record.origin.key != origin.key:
            if name not in self._replaceable:  # a step before came out different from what it was expected to be
                lost = Outlook(name, "replaced", tuple(origin.differences(record.origin)))
                require_approval(run, [lost], self._approve)
                self._replaceable.add(name)
        return run.begin(name, origin, lineage, replace=name in self._replaceable)
