"""`plaudit evaluate`: what any generator's clips are worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plaudit.cli.concepts import ClapName, DetectorKind, DetectorName, Json, VocabularyFile, detector_of, vocabulary_of
from plaudit.cli.console import ConsoleReporter, complain, show_csv, show_json, show_table
from plaudit.cli.score import Csv, NoCache, RewardName, score_cache

if TYPE_CHECKING:
    from plaudit.evaluate.clip_set import Evaluators
    from plaudit.evaluate.concepts.detectors import ErrorRates
    from plaudit.evaluate.embeddings import AudioEncoder, EmbeddingCache, Reference
    from plaudit.evaluate.results_table import Evaluation, MetricResult

Prompts = Annotated[
    Path | None, typer.Option(help="What a folder's clips were asked for: CSV with id or file, and prompt; or a list.")
]
ReferenceAt = Annotated[Path | None, typer.Option(help="Folder of audio as it should sound, or an exported reference.")]
Metrics = Annotated[list[str] | None, typer.Option("--metric", help="A metric, as frechet; repeat it. Default: all.")]
Embeddings = Annotated[
    list[str] | None, typer.Option("--embedding", help="An encoder for distances; repeat it. Default: that of --clap.")
]
Errors = Annotated[Path | None, typer.Option("--concept-errors", help="Error rates that plaudit concepts -o wrote.")]
Export = Annotated[Path | None, typer.Option("--export-reference", help="Write the reference's statistics here.")]
WithEmbeddings = Annotated[
    bool, typer.Option("--with-embeddings", help="Export the embeddings too; all but Frechet distances need them.")
]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Folder for clips.csv and summary.json.")]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(evaluate)


def evaluate(
    clips: Annotated[Path, typer.Argument(help="Folder of audio, or a CSV with columns file and prompt (or caption).")],
    prompts: Prompts = None,
    reference: ReferenceAt = None,
    metric: Metrics = None,
    embedding: Embeddings = None,
    reward: RewardName = "synthetic",
    clap: ClapName = "synthetic",
    detector: DetectorName = DetectorKind.probes,
    vocabulary: VocabularyFile = None,
    concept_errors: Errors = None,
    export_reference: Export = None,
    with_embeddings: WithEmbeddings = False,
    output: Output = None,
    csv: Csv = None,
    json: Json = False,
    no_cache: NoCache = False,
) -> None:
    """Measure clips against their prompts and a reference: each metric with its 95 % interval, and each clip's values.

    Exits 1 where a clip is missing or can't be read; the others are evaluated all the same. Clips of plaudit generate
    are found by their prompts, and need no --prompts; candidates of --best-of are left out.

    Example: plaudit evaluate out --prompts prompts.csv --reference music/ -o evaluation
    """
    from plaudit.evaluate.clip_set import check_metrics, evaluate_clips_and_set
    from plaudit.evaluate.concepts.detectors import SHIPPED_ERROR_RATES, load_rates, rates_of
    from plaudit.evaluate.embeddings import export_references
    from plaudit.evaluate.prompt_matching import match_prompts

    check_metrics(metric or ())
    if reference is None and export_reference is not None:
        raise typer.BadParameter("--export-reference needs a --reference to export")
    asked, notes = match_prompts(clips, prompts)
    if failed := [entry for entry in asked if entry.error is not None]:  # said before a reference is listened to
        complain(f"{len(failed)} of {len(asked)} clips cannot be evaluated; the first: {failed[0].error}")
    judges = _judges(reward, clap, detector, vocabulary, embedding)
    rates = rates_of(judges.detector, judges.vocabulary, load_rates(concept_errors or SHIPPED_ERROR_RATES))
    with score_cache(not no_cache) as scores, _embedding_cache(not no_cache) as kept:
        references, told, contents = references_at(reference, judges.listeners, kept)
        if export_reference is not None:
            export_references(export_reference, references, with_embeddings)
        settings = _settings(judges, {"reward": reward, "clap": clap, "clips": str(clips.resolve())}, references, rates)
        with ConsoleReporter().progress("evaluating") as advance:
            found = evaluate_clips_and_set(
                asked, judges, references, settings, wanted=metric, scores=scores, embeddings=kept, progress=advance
            )
    found.notes[:0] = [*notes, *told, *_shared([entry.file for entry in asked], contents)]
    _show(found, rates, output, csv, json)
    if len(found.scored) < len(found.rows):
        raise typer.Exit(1)


def _judges(
    reward: str, clap: str, detector: DetectorKind, vocabulary: Path | None, embeddings: list[str] | None
) -> Evaluators:
    from plaudit import loading
    from plaudit.errors import EvaluationError
    from plaudit.evaluate.clip_set import Evaluators
    from plaudit.evaluate.embeddings import AudioEncoder

    names = embeddings or [clap]
    if len(set(names)) < len(names):
        raise EvaluationError("an --embedding is named twice; name each once")
    words, reader = vocabulary_of(vocabulary), loading.CLAPS.load(clap)
    listener = AudioEncoder(clap, loading.CLAPS.identity(clap), reader)
    others = {
        n: AudioEncoder(n, loading.AUDIO_ENCODERS.identity(n), loading.AUDIO_ENCODERS.load(n))
        for n in names
        if n != clap
    }
    return Evaluators(
        loading.load_reward(reward), listener, reader, detector_of(detector, clap, words), words,
        [others.get(name, listener) for name in names],
    )  # fmt: skip


def references_at(
    place: Path | None, listeners: Sequence[AudioEncoder], cache: EmbeddingCache | None
) -> tuple[list[Reference], list[str], set[str]]:
    """One reference per listener, or none; notes on its files; and the digests of these."""
    from plaudit.evaluate.embeddings import embed_reference_folder, load_references, reference_for

    if place is None:
        return [], [], set()
    if not place.is_dir():
        known = load_references(place)
        return [reference_for(known, listener) for listener in listeners], [], set()
    with ConsoleReporter().progress("reference") as advance:
        return embed_reference_folder(place, listeners, cache, advance)


@contextmanager
def _embedding_cache(wanted: bool) -> Iterator[EmbeddingCache | None]:
    from plaudit.evaluate.embeddings import EmbeddingCache

    cache = EmbeddingCache.of_user(complain) if wanted else None
    try:
        yield cache
    finally:
        if cache is not None:
            cache.close()


def _shared(files: Sequence[Path | None], reference: set[str]) -> list[str]:
    """A note where clips are themselves part of the reference: then they are close to it by no merit."""
    from plaudit.evaluate.embeddings import content_digest

    same = sum(content_digest(file) in reference for file in files if file is not None) if reference else 0
    return [f"{same} of the clips are files of the reference too, which brings them close to it"] if same else []


def _settings(
    judges: Evaluators, named: dict[str, str], references: Sequence[Reference], rates: ErrorRates | None
) -> dict[str, Any]:
    from plaudit import __version__

    return {
        "plaudit": __version__,
        **named,
        "reward_identity": getattr(judges.reward, "identity", None),
        "clap_digest": judges.clap.digest,
        "embeddings": {one.name: one.digest for one in judges.listeners},
        "reference": [{"embedding": r.embedding, "clips": r.clips, "source": _absolute(r.source)} for r in references],
        "detector": judges.detector.identity,
        "vocabulary": judges.vocabulary.digest,
        "detector_errors": None if rates is None else rates.to_dict(),
    }


def _absolute(source: str) -> str:
    """A file or folder by its absolute path, any other text as it is."""
    return str(Path(source).resolve()) if Path(source).exists() else source


def _show(found: Evaluation, rates: ErrorRates | None, output: Path | None, csv: Path | None, json: bool) -> None:
    for note in found.notes:
        complain(note)
    if output is not None:
        found.save(output)
    if csv is not None:
        show_csv(csv, *found.table())
    if json:
        show_json(found.summary())
    elif csv != Path("-"):
        rows = [(m.key, _value(m), _interval(m), m.better, m.clips, m.note) for m in found.metrics]
        columns = ("metric", "value", "95 % interval", "better", "clips", "note")
        show_table(f"{len(found.scored)} of {len(found.rows)} clips", columns, rows)
        if any(m.name == "concepts" for m in found.metrics):
            print(_trust(rates))


def _value(metric: MetricResult) -> float | str:
    return "-" if metric.value is None else metric.value


def _interval(metric: MetricResult) -> str:
    return "-" if metric.low is None else f"{metric.low:.3f} to {metric.high:.3f}"


def _trust(rates: ErrorRates | None) -> str:
    """What a concept coverage is to be held against."""
    if rates is None:
        return "concepts: the detector's error rates are not known; plaudit concepts measures them"
    wrong = [
        f"{name} {rates.missed[name].share or 0:.0%}/{rates.false[name].share or 0:.0%}"
        for name in rates.missed
        if name in rates.false
    ]
    return (
        f"concepts: the detector misses/falsely hears {', '.join(wrong)} ({rates.measured_on}); "
        f"right clips reach {rates.right.mean:.2f}, clips of other prompts {rates.other.mean:.2f}"
    )
