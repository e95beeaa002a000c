"""Who judges the cells of `plaudit sweep`, as its options say."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plaudit.api import EvaluatorSettings, load_references
from plaudit.cli.console import CommandReporter, ConsoleReporter

if TYPE_CHECKING:
    from plaudit.corpus.sources import HeldOut
    from plaudit.evaluate.embeddings import AudioEncoder, Reference
    from plaudit.generate.settings import SamplingSettings
    from plaudit.pipeline.evaluators import EvaluatorPanel
    from plaudit.pipeline.sweeps import SweepSetup

REFERENCE_SECONDS = 10.0
"""Length of the clean synthetic clips that models are compared with."""


def check_sets(metrics: list[str]) -> None:
    """EvaluationError for a metric that a sweep does not have."""
    from plaudit.errors import EvaluationError
    from plaudit.evaluate.set_metrics import SET_METRICS

    known = ("reward", "clap", "concepts", *SET_METRICS)
    for name in metrics:
        if name not in known:
            raise EvaluationError(f"no metric {name!r} in sweeps; take of {', '.join(known)}")


def sets_of(metrics: list[str]) -> tuple[str, ...]:
    """The metrics of a set that are not measured anyway."""
    from plaudit.evaluate.set_metrics import SET_METRICS

    return tuple(name for name in SET_METRICS if name in metrics and name != "frechet")


def trial_of(panel: EvaluatorPanel, seed: int, batch: int | None, metrics: list[str]) -> SweepSetup:
    """What all cells have in common."""
    from plaudit.generate.settings import Execution
    from plaudit.pipeline.sweeps import SweepSetup

    return SweepSetup(panel, seed, Execution(batch=batch), sets_of(metrics))


def held_out_prompts(prompts: Path | None, count: int, model: Path) -> HeldOut:
    """The prompts of a file, or held-out ones of the synthetic world as long as the model's clips; at least two."""
    from plaudit.corpus.sources import HeldOut, synthetic_source
    from plaudit.errors import PromptError
    from plaudit.generate.model import read_model_config
    from plaudit.tables import read_prompts

    if prompts is None:
        held = synthetic_source(read_model_config(model).seconds).held_out(count)
    else:
        held = HeldOut(read_prompts(prompts)[:count])
    if len(held.prompts) < 2:
        raise PromptError("a sweep over one prompt has no intervals; give at least two prompts")
    return held


def panel_of_options(
    held_out: HeldOut, output: Path, reference: Path | None, clips: int, reward: str, clap: str,
    detector: str, vocabulary: Path | None, metrics: list[str],
) -> EvaluatorPanel:  # fmt: skip
    """Who judges: the truth is known of the synthetic world's prompts alone."""
    from plaudit import loading
    from plaudit.corpus.sources import synthetic_source
    from plaudit.evaluate.concepts.detectors import coverage_by
    from plaudit.evaluate.embeddings import AudioEncoder
    from plaudit.pipeline.evaluators import EvaluatorPanel

    check_sets(metrics)
    known = held_out.truths is not None
    listener = AudioEncoder(clap, loading.CLAPS.identity(clap), loading.CLAPS.load(clap))
    compared, source = _reference(output, reference, clips, listener)
    chosen = EvaluatorSettings(clap=clap, detector=detector, vocabulary=vocabulary)
    words = chosen.load_vocabulary()
    judge = chosen.load_detector(words) if known or "concepts" in metrics else None
    jury = loading.load_reward(reward)
    identity = {
        "reward": getattr(jury, "identity", reward),
        "clap": listener.digest,
        "reference": source,
        "detector": None if judge is None else f"{judge.identity} {words.digest}",
    }
    return EvaluatorPanel(
        held_out,
        jury,
        listener.embedder,  # type: ignore[arg-type]  # built as a CLAP, which reads too
        compared,
        synthetic_source(REFERENCE_SECONDS).true_utility() if known else None,
        None if judge is None else coverage_by(judge, words),
        identity,
    )


def _reference(output: Path, place: Path | None, clips: int, listener: AudioEncoder) -> tuple[Reference, str]:
    """The reference, and what it is by content."""
    import numpy as np

    from plaudit.corpus.sources import synthetic_source
    from plaudit.evaluate.embeddings import content_digest, reference_of
    from plaudit.pipeline.evaluators import embed_clips
    from plaudit.pipeline.run_folder import fingerprint
    from plaudit.storage import write_atomically

    if place is not None:
        heard_there, _, contents = load_references(place, [listener], None, CommandReporter())
        return heard_there[0], fingerprint(contents=sorted(contents)) if contents else content_digest(place)
    corpus = synthetic_source(REFERENCE_SECONDS)
    kept = output / f"reference-{clips}-{listener.digest}.npy"
    if not kept.exists():
        with ConsoleReporter().progress("reference") as advance:
            heard = embed_clips(listener.embedder, *corpus.reference(clips), advance)  # type: ignore[arg-type]
        packed = io.BytesIO()
        np.save(packed, heard)
        write_atomically(kept, packed.getvalue())
    found = reference_of(listener, np.load(kept), str(kept))
    return found, corpus.reference_label(clips)


def settings_of(trial: SweepSetup, models: dict[str, Path], sampling: dict[str, SamplingSettings]) -> dict[str, Any]:
    """What a sweep was made with, for its files."""
    panel = trial.panel
    return {
        "models": {label: str(folder) for label, folder in models.items()},
        "sampling": {label: settings.model_dump(mode="json") for label, settings in sampling.items()},
        "seed": trial.seed,
        "evaluators": panel.identity,
        "reference_clips": panel.reference.clips,
        "prompts": panel.held_out.prompts,
    }
