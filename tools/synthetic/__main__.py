"""`python -m tools.synthetic train|evaluate`: the frozen models that the package ships for its synthetic world."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from plaudit.cli.console import progress_console, show_json
from plaudit.cli.options import App

app = App(help="Train and measure the synthetic world's frozen models.", no_args_is_help=True)


class Part(StrEnum):
    """The synthetic models, in the order in which they depend on each other."""

    codec = "codec"
    text = "text"
    clap = "clap"
    statistics = "statistics"
    probes = "probes"


class Evaluated(StrEnum):
    """The synthetic models with an evaluation."""

    codec = "codec"
    clap = "clap"
    probes = "probes"


Cache = Annotated[Path, typer.Option(help="Folder for rendered clips, about 5 GB; shared by all parts.")]
DEFAULT_CACHE = Path("out/synthetic-cache")


@app.command()
def train(
    part: Annotated[Part, typer.Argument(help="Which model to train.")],
    work: Annotated[Path, typer.Option(help="Folder for checkpoints; training continues from them.")] = Path(
        "out/synthetic-training"
    ),
    cache: Cache = DEFAULT_CACHE,
) -> None:
    """Train one synthetic model and write its weights into the package. Train them in the order of the list.

    Example: python -m tools.synthetic train codec
    """
    from plaudit.synthetic.codec import load_synthetic_codec
    from tools.synthetic.clap import train_clap
    from tools.synthetic.codec import train_codec
    from tools.synthetic.probes import train_probes
    from tools.synthetic.statistics import train_statistics
    from tools.synthetic.text import train_text

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
        train_probes(folder, cache, load_synthetic_codec(), log=_log)


@app.command()
def evaluate(
    part: Annotated[Evaluated, typer.Argument(help="Which model to measure.")], cache: Cache = DEFAULT_CACHE
) -> None:
    """Measure a shipped model on held-out clips and print the figures as JSON.

    Example: python -m tools.synthetic evaluate clap
    """
    from plaudit.synthetic.clap import load_synthetic_clap
    from plaudit.synthetic.codec import load_synthetic_codec
    from plaudit.synthetic.probes import load_probes
    from tools.synthetic.clap import evaluate_clap
    from tools.synthetic.codec import evaluate_codec
    from tools.synthetic.probes import evaluate_probes

    figures: Any
    if part is Evaluated.codec:
        figures = evaluate_codec(load_synthetic_codec())
    elif part is Evaluated.clap:
        figures = evaluate_clap(load_synthetic_clap())
    else:
        figures = evaluate_probes(load_probes(), load_synthetic_codec(), cache, log=_log)
    show_json(asdict(figures) if is_dataclass(figures) else figures)  # type: ignore[arg-type]


@app.command()
def ship(
    run: Annotated[Path, typer.Argument(help="A finished run of a synthetic recipe.")],
    stage: Annotated[str | None, typer.Option(help="The stage whose model to take. Default: the last.")] = None,
) -> None:
    """Copy a run's reward and one of its models into the package.

    Example: python -m tools.synthetic ship runs/synthetic --stage expert_iteration
    """
    from tools.synthetic.ship import ship as ship_run

    show_json({name: str(path) for name, path in ship_run(run, stage).items()})


def _log(line: str) -> None:
    progress_console.print(line, highlight=False)


if __name__ == "__main__":
    app()
