"""`plaudit concepts`: how often whoever hears concepts in clips is wrong, and what a prompt asks for."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plaudit.cli.console import ConsoleReporter, show_json, show_table

if TYPE_CHECKING:
    from plaudit.evaluate.concepts.detectors import Detector, ErrorRates, Rate
    from plaudit.evaluate.concepts.vocabulary import Vocabulary
    from plaudit.evaluate.embeddings import AudioEncoder
    from plaudit.types import Embedder


class DetectorKind(StrEnum):
    """Who hears concepts: the synthetic world's probes, or a CLAP that is asked in words."""

    probes = "probes"
    clap = "clap"


ClapName = Annotated[str, typer.Option("--clap", help="The CLAP of the CLAP score and of --detector clap.")]
DetectorName = Annotated[
    DetectorKind, typer.Option("--detector", help="Who hears concepts; probes know the synthetic world alone.")
]
VocabularyFile = Annotated[
    Path | None, typer.Option("--vocabulary", help="YAML of concepts to look for. Default: the package's.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(concepts)


def concepts(
    detector: DetectorName = DetectorKind.probes,
    clap: ClapName = "synthetic",
    vocabulary: VocabularyFile = None,
    clips: Annotated[int, typer.Option(min=2, help="Labelled clips of the synthetic world to ask about.")] = 500,
    seconds: Annotated[float, typer.Option(min=2.5, max=300, help="Length of each.")] = 10.0,
    codec: Annotated[
        str | None, typer.Option(help="Hear them as this codec returns them, like generated clips.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="JSON file to add the rates to, for plaudit evaluate --concept-errors."),
    ] = None,
    json: Json = False,
) -> None:
    """Measure how often the detector of concepts is wrong, on clips whose truth is known.

    Example: plaudit concepts --detector clap --clap laion-music -o errors.json
    """
    from plaudit import loading
    from plaudit.corpus.sources import synthetic_source
    from plaudit.evaluate.concepts.detectors import save_rates

    words = vocabulary_of(vocabulary)
    judge = detector_of(detector, clap, words)
    through = None if codec is None else loading.CODECS.load(codec)
    with ConsoleReporter().progress("measuring") as advance:
        rates = synthetic_source(seconds).measure_detector(judge, words, clips, advance, through)
    if output is not None:
        save_rates(output, rates)
    if json:
        show_json(rates.to_dict())
    else:
        show_rates(rates)


def vocabulary_of(path: Path | None) -> Vocabulary:
    """The vocabulary in a file, or the package's."""
    from plaudit.evaluate.concepts.vocabulary import SHIPPED_VOCABULARY, load_vocabulary

    return load_vocabulary(path or SHIPPED_VOCABULARY)


def detector_of(kind: DetectorKind, clap: str, vocabulary: Vocabulary) -> Detector:
    """The concept detector of a kind; `clap` names the model of a zero-shot one."""
    from plaudit import loading
    from plaudit.evaluate.concepts.detectors import DETECTORS
    from plaudit.evaluate.embeddings import AudioEncoder as Encoder

    def load_clap() -> tuple[AudioEncoder, Embedder]:
        model = loading.CLAPS.load(clap)
        return Encoder(clap, loading.CLAPS.identity(clap), model), model

    return DETECTORS.load(kind)(load_clap, vocabulary)


def show_rates(rates: ErrorRates) -> None:
    """A table of a detector's errors."""
    categories = dict.fromkeys([*rates.missed, *rates.false])
    rows = [(name, _share(rates.missed.get(name)), _share(rates.false.get(name))) for name in categories]
    show_table(f"{rates.detector}: {rates.measured_on}", ("category", "missed", "falsely heard"), rows)
    print(f"clips of their own captions reach {rates.right.mean:.3f}, of others' {rates.other.mean:.3f}")


def _share(rate: Rate | None) -> str:
    if rate is None or rate.share is None:
        return "-"
    return f"{rate.share:.3f} ({rate.wrong} of {rate.asked})"
