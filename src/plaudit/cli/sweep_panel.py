"""What the cells of `plaudit sweep` are measured by, from its options."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plaudit.api import EvaluatorSettings, load_references
from plaudit.cli.console import CommandReporter, ConsoleReporter

if TYPE_CHECKING:
    from plaudit.corpus.sources import HeldOut
    from plaudit.evaluate.embeddings import AudioEncoder, Reference
    from plaudit.evaluate.evaluation import EvaluationSetup
    from plaudit.generate.settings import SamplingSettings

REFERENCE_SECONDS = 10.0
"""Length of the clean synthetic clips that models are compared with."""


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


def setup_of_options(
    held_out: HeldOut, output: Path, reference: Path | None, clips: int, reward: str, clap: str,
    detector: str, vocabulary: Path | None, metrics: list[str], seed: int,
) -> EvaluationSetup:  # fmt: skip
    """What all cells of a sweep have in common; the truth is known of the synthetic world's prompts alone."""
    from plaudit import loading
    from plaudit.corpus.sources import synthetic_source
    from plaudit.evaluate.embeddings import AudioEncoder
    from plaudit.evaluate.evaluation import EvaluationSetup, Evaluators
    from plaudit.evaluate.metrics import metrics_named

    metrics_named(metrics)
    known = held_out.truths is not None
    encoder = AudioEncoder(clap, loading.CLAPS.identity(clap), loading.CLAPS.load(clap))
    compared, source = _reference(output, reference, clips, encoder)
    chosen = EvaluatorSettings(clap=clap, detector=detector, vocabulary=vocabulary)
    words = chosen.load_vocabulary()
    concepts = chosen.load_detector(words) if known or "concepts" in metrics else None
    model = loading.load_reward(reward)
    identity = {
        "reward": getattr(model, "identity", reward),
        "clap": encoder.digest,
        "reference": source,
        "detector": None if concepts is None else f"{concepts.identity} {words.digest}",
    }
    utility = synthetic_source(REFERENCE_SECONDS).true_utility() if known else None
    evaluators = Evaluators(model, encoder, (encoder,), concepts, words, utility, identity)
    return EvaluationSetup(held_out, evaluators, compared, seed, tuple(metrics))


def _reference(output: Path, place: Path | None, clips: int, encoder: AudioEncoder) -> tuple[Reference, str]:
    """The reference, and what it is by content."""
    import numpy as np

    from plaudit.corpus.sources import synthetic_source
    from plaudit.evaluate.embeddings import content_digest, embed_recordings, reference_of
    from plaudit.pipeline.run_folder import fingerprint
    from plaudit.storage import write_atomically

    if place is not None:
        references, _, contents = load_references(place, [encoder], None, CommandReporter())
        return references[0], fingerprint(contents=sorted(contents)) if contents else content_digest(place)
    corpus = synthetic_source(REFERENCE_SECONDS)
    kept = output / f"reference-{clips}-{encoder.digest}.npy"
    if not kept.exists():
        with ConsoleReporter().progress("reference") as advance:
            embeddings = embed_recordings(encoder.embedder, *corpus.reference(clips), advance)
        packed = io.BytesIO()
        np.save(packed, embeddings)
        write_atomically(kept, packed.getvalue())
    return reference_of(encoder, np.load(kept), str(kept)), corpus.reference_label(clips)


def settings_of(
    setup: EvaluationSetup, models: dict[str, Path], sampling: dict[str, SamplingSettings]
) -> dict[str, Any]:
    """What a sweep was made with, for its files."""
    return {
        "models": {label: str(folder) for label, folder in models.items()},
        "sampling": {label: settings.model_dump(mode="json") for label, settings in sampling.items()},
        "seed": setup.seed,
        "evaluators": dict(setup.evaluators.identity),
        "reference_clips": setup.reference.clips,
        "prompts": setup.held_out.prompts,
    }
