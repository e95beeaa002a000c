"""What making a chain would do to each step of a run folder, before anything is done; and asking about losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plaudit.errors import RunError
from plaudit.pipeline.run_folder import Finished, Origin, Record, Run
from plaudit.pipeline.step import Step


@dataclass(frozen=True)
class Outlook:
    """What is to become of a step.

    state: "done", "resumed", "started", "shared" (taken from another run), or "replaced": it was made from something
    else, as `reasons` say, or from a step that is made again and may come out different.
    """

    step: str
    state: str
    reasons: tuple[str, ...] = ()


Approve = Callable[[Sequence[Outlook]], bool]
"""Asked about steps that would be replaced, before anything is."""


def nothing_replaced(lost: Sequence[Outlook]) -> bool:
    """The answer of those who want to lose nothing."""
    return False


def outlook(chain: Sequence[Step], run: Run, source: Run | None = None) -> list[Outlook]:
    """What becomes of each step of the chain in `run`, where finished steps of `source` may be taken.

    A step that is missing is expected to come out as it did when a later one was made from it. RunError for a folder
    that the run did not make, and for files of a finished step that were changed since.
    """
    records = {step.name: run.record(step.name) for step in chain}
    known = _known_outputs(records)
    outputs: dict[str, str | None] = {}
    found = []
    for step in chain:
        record = records[step.name]
        if record is not None and record.finished is not None:
            run.verify(step.name)
        unknown = [name for name in step.needs if outputs[name] is None]
        state, output, reasons = "started", None, []
        if record is None and source is None and step.name not in {name for name, _ in known}:
            outputs[step.name] = None  # and nothing from outside is read for it
            found.append(Outlook(step.name, state))
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
            output = known.get((step.name, origin.key))
        outputs[step.name] = output
        found.append(Outlook(step.name, state, tuple(reasons)))
    return found


def shareable(source: Run, name: str, origin: Origin) -> Finished | None:
    """What a step of another run left, where it is finished and made from `origin`, and unchanged since."""
    record = source.record(name)
    if record is None or record.origin is None or record.finished is None or record.origin.key != origin.key:
        return None
    source.verify(name)
    return record.finished


def require_approval(run: Run, lost: Sequence[Outlook], approve: Approve) -> None:
    """RunError where steps would be replaced and nobody agrees to it."""
    if lost and not approve(lost):
        first = "; ".join(f"{one.step} ({_short(one.reasons)})" for one in lost[:2])
        more = f" and {len(lost) - 2} more" if len(lost) > 2 else ""
        raise RunError(
            f"{run.folder}: this would replace {first}{more}; add --yes to replace, or keep them and make a new run "
            f"that shares the rest: --from {run.folder} -o NEW"
        )


def _short(reasons: Sequence[str]) -> str:
    return ", ".join(reasons[:2]) + (f", and {len(reasons) - 2} more reasons" if len(reasons) > 2 else "")


def _known_outputs(records: dict[str, Record | None]) -> dict[tuple[str, str], str]:
    """Of steps by name and key: a digest of what they left when a later step was made."""
    return {
        (name, key): output
        for record in records.values()
        if record is not None
        for name, (key, output) in record.lineage.items()
    }


def _without(origin: Origin, inputs: Sequence[str]) -> Origin:
    kept = {name: digest for name, digest in origin.inputs.items() if name not in inputs}
    return Origin(origin.settings, origin.given, origin.code, kept)
