"""`evaluate`: the metrics of a folder of clips, and what they are computed with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from plaudit.api.options import MODELS, REFERENCE, Device, RewardName, UseCache, build_settings, user_cache
from plaudit.reporting import Reporter, WarningReporter
from plaudit.settings import Count, Seconds, Settings, option

if TYPE_CHECKING:
    from plaudit.evaluate.concepts.detectors import Detector, ErrorRates
    from plaudit.evaluate.concepts.vocabulary import Vocabulary
    from plaudit.evaluate.embeddings import AudioEncoder, EmbeddingCache, Reference
    from plaudit.evaluate.evaluation import Evaluation, Evaluators
    from plaudit.types import Embedder


class EvaluatorSettings(Settings):
    """The models that metrics use."""

    reward: RewardName = "synthetic"
    clap: str = option(
        "synthetic", "--clap", help="The CLAP of the CLAP score and of the zero-shot concept detector.", panel=MODELS
    )
    detector: str = option(
        "probes", "--detector",
        help="Concept detector: probes (trained on the synthetic corpus), clap (zero-shot), or FILE.py:NAME.",
        panel=MODELS,
    )  # fmt: skip
    vocabulary: Path | None = option(None, "--vocabulary", help="YAML of concepts to detect. Default: the package's.")
    device: Device = "auto"

    def load_vocabulary(self) -> Vocabulary:
        """The vocabulary of concepts."""
        from plaudit.evaluate.concepts.vocabulary import SHIPPED_VOCABULARY, load_vocabulary

        return load_vocabulary(self.vocabulary or SHIPPED_VOCABULARY)

    def load_detector(self, vocabulary: Vocabulary) -> Detector:
        """The concept detector."""
        from plaudit.evaluate.concepts.detectors import DETECTORS

        return DETECTORS.load(self.detector)(self._load_clap, vocabulary)

    def load(self, embeddings: Sequence[str] | None = None) -> Evaluators:
        """The models; embeddings: encoders of the distances, None for the CLAP alone."""
        from plaudit import loading
        from plaudit.errors import EvaluationError
        from plaudit.evaluate.embeddings import AudioEncoder
        from plaudit.evaluate.evaluation import Evaluators

        names = embeddings or [self.clap]
        if len(set(names)) < len(names):
            raise EvaluationError("an --embedding is named twice; name each once")
        vocabulary, (clap, _) = self.load_vocabulary(), self._load_clap()
        encoders = tuple(
            clap
            if name == self.clap
            else AudioEncoder(
                name,
                loading.AUDIO_ENCODERS.identity(name),
                loading.load_part(loading.AUDIO_ENCODERS, name, self.device),
            )
            for name in names
        )
        detector = self.load_detector(vocabulary)
        return Evaluators(loading.load_reward(self.reward, self.device), clap, encoders, detector, vocabulary)

    def _load_clap(self) -> tuple[AudioEncoder, Embedder]:
        from plaudit import loading
        from plaudit.evaluate.embeddings import AudioEncoder

        model = loading.load_part(loading.CLAPS, self.clap, self.device)
        return AudioEncoder(self.clap, loading.CLAPS.identity(self.clap), model), model


class EvaluateSettings(EvaluatorSettings):
    """Settings of `evaluate`."""

    prompts: Path | None = option(
        None, "--prompts", help="Prompts of a folder's clips: CSV with id or file, and prompt; or a list.", panel=MODELS
    )
    reference: Path | None = option(
        None, "--reference", help="Folder of reference audio, or an exported reference.", panel=REFERENCE
    )
    metrics: tuple[str, ...] | None = option(
        None, "--metric", help="A metric such as frechet, or FILE.py:NAME; repeatable. Default: all."
    )
    embeddings: tuple[str, ...] | None = option(
        None, "--embedding", help="Encoder for distances; repeatable. Default: that of --clap.", panel=MODELS
    )
    audio_language_model: str | None = option(
        None, "--audio-language-model", panel=MODELS,
        help="For challenge-concepts: a model of transformers by folder, or by name on the Hub as NAME[@REVISION].",
    )  # fmt: skip
    tags: Path | None = option(
        None, "--tags", panel=MODELS,
        help="For challenge-concepts: a table of prompts with genre, instrument and mood. Default: those in the text.",
    )  # fmt: skip
    concept_errors: Path | None = option(
        None, "--concept-errors", help="Error rates of the detector, as written by plaudit concepts -o.", panel=MODELS
    )
    export_reference: Path | None = option(None, "--export-reference", help="Write the reference's statistics here.")
    with_embeddings: bool = option(
        False,
        "--with-embeddings",
        help="Export the embeddings too; all but Fréchet distances need them.",
        panel=REFERENCE,
    )
    output: Path | None = option(None, "-o", "--output", help="Folder for values.parquet, clips.csv and summary.json.")
    cache: UseCache = True

    @model_validator(mode="after")
    def _reference_is_there(self) -> EvaluateSettings:
        if self.export_reference is not None and self.reference is None:
            raise ValueError("--export-reference needs a --reference to export")
        if self.tags is not None and self.audio_language_model is None:
            raise ValueError("--tags need a model that answers; name one with --audio-language-model")
        return self


def evaluate(
    clips: str | Path,
    settings: EvaluateSettings | None = None,
    *,
    reporter: Reporter | None = None,
    **changes: Any,
) -> Evaluation:
    """Evaluate the clips in a folder or a table: every metric per clip and of the set, with 95 % intervals.

    Clips that are missing or cannot be read have an error and are in no mean. Written to `output` where one is given.
    """
    from plaudit.devices import resolve_device
    from plaudit.evaluate.concepts.detectors import SHIPPED_ERROR_RATES, load_rates, rates_of
    from plaudit.evaluate.embeddings import EmbeddingCache, export_references
    from plaudit.evaluate.evaluation import evaluate_clips, with_audio_language_model
    from plaudit.evaluate.metrics import metrics_named
    from plaudit.evaluate.prompt_matching import match_prompts
    from plaudit.reward.scoring import ScoreCache

    settings = build_settings(EvaluateSettings, settings, changes)
    reporter, clips = reporter or WarningReporter(), Path(clips)
    metrics = metrics_named(settings.metrics) if settings.metrics else None
    entries, notes = match_prompts(clips, settings.prompts)
    if failed := [entry for entry in entries if entry.error is not None]:  # before the reference is encoded
        reporter.note(f"{len(failed)} of {len(entries)} clips cannot be evaluated; the first: {failed[0].error}")
    evaluators = settings.load(settings.embeddings)
    if settings.audio_language_model is not None:
        device = resolve_device(settings.device)
        evaluators = with_audio_language_model(evaluators, settings.audio_language_model, settings.tags, device)
    assert evaluators.detector is not None and evaluators.vocabulary is not None
    known_rates = load_rates(settings.concept_errors or SHIPPED_ERROR_RATES)
    rates = rates_of(evaluators.detector, evaluators.vocabulary, known_rates)
    with (
        user_cache(ScoreCache, settings.cache, reporter) as scores,
        user_cache(EmbeddingCache, settings.cache, reporter) as embeddings,
    ):
        references, reference_notes, contents = load_references(
            settings.reference, evaluators.encoders, embeddings, reporter
        )
        if settings.export_reference is not None:
            export_references(settings.export_reference, references, settings.with_embeddings)
        about = {"reward": settings.reward, "clap": settings.clap, "clips": str(clips.resolve())}
        with reporter.progress("evaluating") as advance:
            evaluation = evaluate_clips(
                entries, evaluators, references, metrics, system=clips.resolve().stem, scores=scores,
                embeddings=embeddings, settings=about | _about_evaluators(evaluators, references, rates),
                progress=advance,
            )  # fmt: skip
    evaluation.notes[:0] = [*notes, *reference_notes, *_shared_files([entry.file for entry in entries], contents)]
    if settings.output is not None:
        evaluation.save(settings.output)
    return evaluation


def load_references(
    place: Path | None, encoders: Sequence[AudioEncoder], cache: EmbeddingCache | None, reporter: Reporter
) -> tuple[list[Reference], list[str], set[str]]:
    """One reference per encoder, or none; notes on its files; and the digests of these."""
    from plaudit.evaluate.embeddings import embed_reference_folder, reference_for
    from plaudit.evaluate.embeddings import load_references as exported_references

    if place is None:
        return [], [], set()
    if not place.is_dir():
        exported = exported_references(place)
        return [reference_for(exported, encoder) for encoder in encoders], [], set()
    with reporter.progress("reference") as advance:
        return embed_reference_folder(place, encoders, cache, advance)


def _about_evaluators(
    evaluators: Evaluators, references: Sequence[Reference], rates: ErrorRates | None
) -> dict[str, Any]:
    from plaudit import __version__

    def absolute(source: str) -> str:
        return str(Path(source).resolve()) if Path(source).exists() else source

    return {
        "plaudit": __version__,
        "reward_identity": getattr(evaluators.reward, "identity", None),
        "clap_digest": evaluators.clap.digest,
        "embeddings": {one.name: one.digest for one in evaluators.encoders},
        "reference": [{"embedding": r.embedding, "clips": r.clips, "source": absolute(r.source)} for r in references],
        "detector": evaluators.detector and evaluators.detector.identity,
        "audio_language_model": evaluators.answerer and evaluators.answerer.identity,
        "vocabulary": evaluators.vocabulary and evaluators.vocabulary.digest,
        "detector_errors": None if rates is None else rates.to_dict(),
    }


def _shared_files(files: Sequence[Path | None], reference: set[str]) -> list[str]:
    """A note where clips are themselves part of the reference."""
    from plaudit.evaluate.embeddings import content_digest

    same = sum(content_digest(file) in reference for file in files if file is not None) if reference else 0
    return [f"{same} of the clips are files of the reference too, which brings them close to it"] if same else []


class ConceptsSettings(EvaluatorSettings):
    """Settings of `measure_detector`."""

    clips: Count = option(500, "--clips", ge=2, help="Labelled clips of the synthetic corpus to measure on.")
    seconds: Seconds = option(10.0, "--seconds", ge=2.5, le=300, help="Length of each.")
    codec: str | None = option(None, "--codec", help="Pass the clips through this codec first.")
    output: Path | None = option(
        None, "-o", "--output", help="JSON file to add the rates to, for plaudit evaluate --concept-errors."
    )


def measure_detector(
    settings: ConceptsSettings | None = None, *, reporter: Reporter | None = None, **changes: Any
) -> ErrorRates:
    """Measure the error rates of the concept detector on clips of the synthetic corpus, whose concepts are known."""
    from plaudit import loading
    from plaudit.corpus.sources import synthetic_source
    from plaudit.evaluate.concepts.detectors import save_rates

    settings = build_settings(ConceptsSettings, settings, changes)
    vocabulary = settings.load_vocabulary()
    detector = settings.load_detector(vocabulary)
    codec = None if settings.codec is None else loading.load_part(loading.CODECS, settings.codec, settings.device)
    with (reporter or WarningReporter()).progress("measuring") as advance:
        corpus = synthetic_source(settings.seconds)
        rates = corpus.measure_detector(detector, vocabulary, settings.clips, advance, codec)
    if settings.output is not None:
        save_rates(settings.output, rates)
    return rates
