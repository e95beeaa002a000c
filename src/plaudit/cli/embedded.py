"""`plaudit embedded train|evaluate`: the frozen models that the package ships for its embedded world."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from plaudit.cli.console import progress_console, show_json
from plaudit.cli.help import App

app = App(help="Train and measure the embedded world's frozen models.", no_args_is_help=True)


class Part(StrEnum):
    """The embedded models that are trained, in the order in which they need each other."""

    codec = "codec"
    text = "text"
    clap = "clap"
    statistics = "statistics"
    probes = "probes"


class Measured(StrEnum):
    """The embedded models that have figures of their own."""

    codec = "codec"
    clap = "clap"
    probes = "probes"


Cache = Annotated[Path, typer.Option(help="Folder for rendered clips, about 5 GB; shared by all parts.")]
DEFAULT_CACHE = Path("out/embedded-cache")


@app.command()
def train(
    part: Annotated[Part, typer.Argument(help="Which model to train.")],
    work: Annotated[Path, typer.Option(help="Folder for checkpoints; training continues from them.")] = Path(
        "out/embedded-training"
    ),
    cache: Cache = DEFAULT_CACHE,
) -> None:
    """Train one embedded model and write its weights into the package; the published order is that of the list.

    Example: plaudit embedded train codec
    """
    from plaudit.codec.embedded import load_embedded_codec
    from plaudit.embedded.clap import train_clap
    from plaudit.embedded.codec import train_codec
    from plaudit.embedded.probes import train_probes
    from plaudit.embedded.statistics import train_statistics
    from plaudit.embedded.text import train_text

    folder = work / part.value
    if part is Part.codec:
        train_codec(folder, cache, log=_log)
    elif part is Part.text:
        train_text(folder, log=_log)
    elif part is Part.clap:
        train_clap(folder, cache, log=_log)
    elif part is Part.statistics:
        train_statistics()
    else:
        train_probes(folder, cache, load_embedded_codec(), log=_log)


@app.command()
def evaluate(
    part: Annotated[Measured, typer.Argument(help="Which model to measure.")], cache: Cache = DEFAULT_CACHE
) -> None:
    """Measure a shipped model on held-out clips and print the figures as JSON.

    Example: plaudit embedded evaluate clap
    """
    from plaudit.codec.embedded import load_embedded_codec
    from plaudit.corpus.embedded.probes import load_probes
    from plaudit.embedded.clap import evaluate_clap
    from plaudit.embedded.codec import evaluate_codec
    from plaudit.embedded.probes import evaluate_probes
    from plaudit.encoders.embedded_clap import load_embedded_clap

    figures: Any
    if part is Measured.codec:
        figures = evaluate_codec(load_embedded_codec())
    elif part is Measured.clap:
        figures = evaluate_clap(load_embedded_clap())
    else:
        figures = evaluate_probes(load_probes(), load_embedded_codec(), cache, log=_log)
    show_json(asdict(figures) if is_dataclass(figures) else figures)  # type: ignore[arg-type]


@app.command()
def ship(
    run: Annotated[Path, typer.Argument(help="A finished run of an embedded recipe.")],
    stage: Annotated[str | None, typer.Option(help="The stage whose model to take. Default: the last.")] = None,
) -> None:
    """Make a run's reward and one of its models the ones that the package ships.

    Example: plaudit embedded ship runs/embedded --stage expert_iteration
    """
    from plaudit.chain.ship import ship as ship_run

    show_json({name: str(path) for name, path in ship_run(run, stage).items()})


def _log(line: str) -> None:
    progress_console.print(line, highlight=False)
