"""Steps of a run, their state in a run folder, and the loop that runs them in order."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from plaudit.code_digest import code_digests
from plaudit.errors import RunError
from plaudit.machine import environment_of
from plaudit.pipeline.run_folder import Finished, Lineage, Origin, Record, Run, check_folder, open_run
from plaudit.recipe import Recipe
from plaudit.reporting import Reporter, Silent
from plaudit.storage import write_atomically
from plaudit.training.distributed import ProcessGroup, accelerator_for

External = dict[str, str | Callable[[], str]]


@dataclass(frozen=True)
class Step:
    """One step, made from `settings`, files from outside the run (`external`: their digests, or functions that compute
    them), and the output of the steps in `needs`.

    make(run, folder) fills the folder; called again after a kill, it must skip what is finished. It reads no other
    settings and no other steps than those named here. The main process calls it, or all where `together`. read_later:
    patterns of the files that later steps read; changes in others make no step stale.
    """

    name: str
    settings: dict[str, Any]
    needs: tuple[str, ...]
    make: Callable[[Any, Path], None]
    external: External = field(default_factory=dict)
    read_later: tuple[str, ...] = ("**/*",)
    together: bool = False

    @cached_property
    def code(self) -> dict[str, str]:
        """Digests of the source that it runs, by module."""
        return code_digests(self.make)

    def origin(self, inputs: dict[str, str]) -> Origin:
        """The origin of its output, with digests of the output of the steps it needs."""
        external = {name: digest if isinstance(digest, str) else digest() for name, digest in self.external.items()}
        return Origin(json.loads(json.dumps(self.settings)), external, self.code, inputs)


@dataclass(frozen=True)
class Outlook:
    """The planned action for a step.

    state: "done", "resumed", "started", "shared" (taken from another run), or "replaced": it has another origin, as
    `reasons` say, or needs a step that is replaced and may come out different.
    """

    step: str
    state: str
    reasons: tuple[str, ...] = ()


Approve = Callable[[Sequence[Outlook]], bool]
"""Whether steps may be replaced; called before anything is."""


def nothing_replaced(lost: Sequence[Outlook]) -> bool:
    """Refuses to replace anything."""
    return False


def outlook(chain: Sequence[Step], run: Run, source: Run | None = None) -> list[Outlook]:
    """The planned action for each step of the chain in `run`, where finished steps of `source` may be taken.

    A missing step is expected to come out as it did when a later one was made from it. RunError for a folder that is
    not the run's, and for files of a finished step that have changed since.
    """
    records = {step.name: run.record(step.name) for step in chain}
    outputs_before = _earlier_outputs(records)
    outputs: dict[str, str | None] = {}
    outlooks = []
    for step in chain:
        record = records[step.name]
        if record is not None and record.finished is not None:
            run.verify(step.name)
        unknown = [name for name in step.needs if outputs[name] is None]
        state, output, reasons = "started", None, []
        if record is None and source is None and step.name not in {name for name, _ in outputs_before}:
            outputs[step.name] = None  # and nothing from outside is read for it
            outlooks.append(Outlook(step.name, state))
            continue
        inputs = {name: outputs[name] for name in step.needs}
        origin = step.origin({name: digest for name, digest in inputs.items() if digest is not None})
        if record is not None and record.origin is not None:
            reasons = origin.differences(_without(record.origin, unknown))
            reasons += [f"{name} is made again" for name in unknown]
            if reasons:
                state = "replaced"
            elif record.finished is None:
                state = "resumed"
            else:
                state, output = "done", record.finished.output
        elif source is not None and not unknown and (theirs := shareable(source, step.name, origin)) is not None:
            state, output = "shared", theirs.output
        if not unknown and output is None:
            output = outputs_before.get((step.name, origin.key))
        outputs[step.name] = output
        outlooks.append(Outlook(step.name, state, tuple(reasons)))
    return outlooks


def shareable(source: Run, name: str, origin: Origin) -> Finished | None:
    """The record of another run's step, where it is finished, has this origin, and is unchanged since."""
    record = source.record(name)
    if record is None or record.origin is None or record.finished is None or record.origin.key != origin.key:
        return None
    source.verify(name)
    return record.finished


def require_approval(run: Run, lost: Sequence[Outlook], approve: Approve) -> None:
    """RunError where steps would be replaced and `approve` refuses."""
    if lost and not approve(lost):
        first = "; ".join(f"{one.step} ({_short(one.reasons)})" for one in lost[:2])
        more = f" and {len(lost) - 2} more" if len(lost) > 2 else ""
        raise RunError(
            f"{run.folder}: this would replace {first}{more}; add --yes to replace, or keep them and make a new run "
            f"that shares the rest: --from {run.folder} -o NEW"
        )


def _short(reasons: Sequence[str]) -> str:
    return ", ".join(reasons[:2]) + (f", and {len(reasons) - 2} more reasons" if len(reasons) > 2 else "")


def _earlier_outputs(records: dict[str, Record | None]) -> dict[tuple[str, str], str]:
    """The digest of each step's output when a later step was made, by the step's name and key."""
    return {
        (name, key): output
        for record in records.values()
        if record is not None
        for name, (key, output) in record.lineage.items()
    }


def _without(origin: Origin, inputs: Sequence[str]) -> Origin:
    kept = {name: digest for name, digest in origin.inputs.items() if name not in inputs}
    return Origin(origin.settings, origin.external, origin.code, kept)


class RunFiles:
    """The output folders of a run's steps."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.opened: dict[Path, Any] = {}
        """Files of finished steps that are open, by path."""

    def path(self, step: str) -> Path:
        """The folder of a finished step."""
        return self.run.folder / step


class RunContext(RunFiles):
    """A step's context: folders of finished steps, reporter and processes."""

    def __init__(self, run: Run, reporter: Reporter, accelerator: Accelerator, processes: ProcessGroup) -> None:
        super().__init__(run)
        self.reporter, self.accelerator, self.processes = reporter, accelerator, processes


def run_chain(
    recipe: Recipe,
    folder: Path,
    steps: list[Step],
    reporter: Reporter,
    kind: str,
    approve: Approve = nothing_replaced,
    source: Path | None = None,
    device: torch.device | None = None,
) -> None:
    """Run every step of `steps` that is missing or stale in the run `folder`, holding the folder's lock.

    kind: the folder's purpose. approve: whether started or finished steps may be replaced. source: another run, whose
    finished steps are taken where their origin is the same. device: of this process (process_device). Under torchrun
    every process calls this; all of them must see the folder.
    """
    check_folder(folder, kind)
    accelerator = accelerator_for(recipe.precision, device)
    with ExitStack() as stack:
        processes = stack.enter_context(ProcessGroup(accelerator))
        run = stack.enter_context(open_run(folder, kind)) if processes.is_main else Run(folder)
        context = RunContext(run, reporter if processes.is_main else Silent(), accelerator, processes)
        upkeep = None
        if processes.is_main:
            upkeep = _Upkeep(run, approve, None if source is None else Run(source))
            upkeep.approved(steps)
            write_atomically(folder / "recipe.yaml", recipe.to_yaml())
        for step in steps:
            _make(context, step, upkeep)


def _make(context: RunContext, step: Step, upkeep: _Upkeep | None) -> None:
    """One step: by the main process while the others wait, or by all together."""
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
    """Decides for each step whether it is run, taken from another run, or replaced. The main process has one."""

    def __init__(self, run: Run, approve: Approve, source: Run | None) -> None:
        self._run, self._approve, self._source = run, approve, source
        self._replaceable: set[str] = set()
        self._lineages: dict[str, Lineage] = {}

    def approved(self, steps: list[Step]) -> None:
        """RunError where steps would be replaced without approval."""
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
