"""`plaudit evaluate`: what any generator's clips are worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plaudit.api import score_cache
from plaudit.cli.concepts import ClapName, DetectorKind, DetectorName, Json, VocabularyFile, detector_of, vocabulary_of
from plaudit.cli.console import CommandReporter, ConsoleReporter, Csv, complain, show_csv, show_json, show_table

if TYPE_CHECKING:
    from plaudit.evaluate.concepts.detectors import ErrorRates
    from plaudit.evaluate.embeddings import AudioEncoder, EmbeddingCache, Reference
    from plaudit.evaluate.evaluation import Evaluation, Evaluators

RewardName = Annotated[
    str, typer.Option("--reward", help="A known or installed reward, a reward folder, or FILE.py:CLASS.")
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither use nor keep values in the user's cache folder.")]
Prompts = Annotated[
    Path | None, typer.Option(help="What a folder's clips were asked for: CSV with id or file, and prompt; or a list.")
]
ReferenceAt = Annotated[Path | None, typer.Option(help="Folder of audio as it should sound, or an exported reference.")]
Metrics = Annotated[
    list[str] | None, typer.Option("--metric", help="A metric, as frechet or FILE.py:NAME; repeat it. Default: all.")
]
Embeddings = Annotated[
    list[str] | None, typer.Option("--embedding", help="An encoder for distances; repeat it. Default: that of --clap.")
]
Errors = Annotated[Path | None, typer.Option("--concept-errors", help="Error rates that plaudit concepts -o wrote.")]
Export = Annotated[Path | None, typer.Option("--export-reference", help="Write the reference's statistics here.")]
WithEmbeddings = Annotated[
    bool, typer.Option("--with-embeddings", help="Export the embeddings too; all but Frechet distances need them.")
]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", help="Folder for values.parquet, clips.csv and summary.json.")
]


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
    from plaudit.evaluate.concepts.detectors import SHIPPED_ERROR_RATES, load_rates, rates_of
    from plaudit.evaluate.embeddings import export_references
    from plaudit.evaluate.evaluation import evaluate_clips
    from plaudit.evaluate.metrics import metrics_named
    from plaudit.evaluate.prompt_matching import match_prompts

    metrics = metrics_named(metric) if metric else None
    if reference is None and export_reference is not None:
        raise typer.BadParameter("--export-reference needs a --reference to export")
    entries, notes = match_prompts(clips, prompts)
    if failed := [entry for entry in entries if entry.error is not None]:  # said before a reference is embedded
        complain(f"{len(failed)} of {len(entries)} clips cannot be evaluated; the first: {failed[0].error}")
    evaluators = _evaluators(reward, clap, detector, vocabulary, embedding)
    assert evaluators.detector is not None and evaluators.vocabulary is not None
    rates = rates_of(evaluators.detector, evaluators.vocabulary, load_rates(concept_errors or SHIPPED_ERROR_RATES))
    with score_cache(not no_cache, CommandReporter()) as scores, _embedding_cache(not no_cache) as kept:
        references, reference_notes, contents = references_at(reference, evaluators.encoders, kept)
        if export_reference is not None:
            export_references(export_reference, references, with_embeddings)
        names = {"reward": reward, "clap": clap, "clips": str(clips.resolve())}
        with ConsoleReporter().progress("evaluating") as advance:
            evaluation = evaluate_clips(
                entries, evaluators, references, metrics, system=clips.resolve().stem, scores=scores, embeddings=kept,
                settings=_settings(evaluators, names, references, rates), progress=advance,
            )  # fmt: skip
    evaluation.notes[:0] = [*notes, *reference_notes, *_shared([entry.file for entry in entries], contents)]
    _show(evaluation, rates, output, csv, json)
    if evaluation.failed:
        raise typer.Exit(1)


def _evaluators(
    reward: str, clap: str, detector: DetectorKind, vocabulary: Path | None, embeddings: list[str] | None
) -> Evaluators:
    from plaudit import loading
    from plaudit.errors import EvaluationError
    from plaudit.evaluate.embeddings import AudioEncoder
    from plaudit.evaluate.evaluation import Evaluators

    names = embeddings or [clap]
    if len(set(names)) < len(names):
        raise EvaluationError("an --embedding is named twice; name each once")
    words = vocabulary_of(vocabulary)
    of_clap = AudioEncoder(clap, loading.CLAPS.identity(clap), loading.CLAPS.load(clap))
    others = {
        n: AudioEncoder(n, loading.AUDIO_ENCODERS.identity(n), loading.AUDIO_ENCODERS.load(n))
        for n in names
        if n != clap
    }
    encoders = tuple(others.get(name, of_clap) for name in names)
    return Evaluators(loading.load_reward(reward), of_clap, encoders, detector_of(detector, clap, words), words)


def references_at(
    place: Path | None, encoders: Sequence[AudioEncoder], cache: EmbeddingCache | None
) -> tuple[list[Reference], list[str], set[str]]:
    """One reference per encoder, or none; notes on its files; and the digests of these."""
    from plaudit.evaluate.embeddings import embed_reference_folder, load_references, reference_for

    if place is None:
        return [], [], set()
    if not place.is_dir():
        known = load_references(place)
        return [reference_for(known, encoder) for encoder in encoders], [], set()
    with ConsoleReporter().progress("reference") as advance:
        return embed_reference_folder(place, encoders, cache, advance)


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
    evaluators: Evaluators, named: dict[str, str], references: Sequence[Reference], rates: ErrorRates | None
) -> dict[str, Any]:
    from plaudit import __version__

    return {
        "plaudit": __version__,
        **named,
        "reward_identity": getattr(evaluators.reward, "identity", None),
        "clap_digest": evaluators.clap.digest,
        "embeddings": {one.name: one.digest for one in evaluators.encoders},
        "reference": [{"embedding": r.embedding, "clips": r.clips, "source": _absolute(r.source)} for r in references],
        "detector": evaluators.detector and evaluators.detector.identity,
        "vocabulary": evaluators.vocabulary and evaluators.vocabulary.digest,
        "detector_errors": None if rates is None else rates.to_dict(),
    }


def _absolute(source: str) -> str:
    """A file or folder by its absolute path, any other text as it is."""
    return str(Path(source).resolve()) if Path(source).exists() else source


def _show(evaluation: Evaluation, rates: ErrorRates | None, output: Path | None, csv: Path | None, json: bool) -> None:
    from plaudit.evaluate.metrics import metric_called

    for note in evaluation.notes:
        complain(note)
    if output is not None:
        evaluation.save(output)
    if csv is not None:
        show_csv(csv, *evaluation.table())
    if json:
        show_json(evaluation.summary())
    elif csv != Path("-"):
        rows = [
            (m["key"], "-" if m["value"] is None else m["value"], _interval(m), metric_called(m["metric"]).better,
             m["clips"], m["note"])
            for m in evaluation.sets
        ]  # fmt: skip
        columns = ("metric", "value", "95 % interval", "better", "clips", "note")
        total = len(evaluation.clips)
        show_table(f"{total - len(evaluation.failed)} of {total} clips", columns, rows)
        if any(m["metric"] == "concepts" for m in evaluation.sets):
            print(_trust(rates))


def _interval(row: dict[str, Any]) -> str:
    return "-" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"


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
