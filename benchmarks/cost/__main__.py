"""`python -m benchmarks.cost`: time of each part of generation and training, and quality by cost of solvers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plaudit.cli.console import ConsoleReporter, result_console, show_json, show_table
from plaudit.cli.options import App

if TYPE_CHECKING:
    from benchmarks.cost.timing import Section

app = App(help="Measure cost and quality on this machine.")

SECTIONS = ("train", "clips", "decode", "separate")
Wanted = Annotated[
    list[str] | None, typer.Option("--section", help=f"Measure only this, one of {', '.join(SECTIONS)}; repeat.")
]


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    section: Wanted = None,
    network: Annotated[
        str, typer.Option(help="Of train: a published size with random weights, or a model.")
    ] = "fluxaudio-s-44k",
    model: Annotated[str, typer.Option(help="Of clips and decode: a model by name or folder.")] = "synthetic",
    clips: Annotated[int, typer.Option(min=1, help="Clips of clips and decode.")] = 10,
    separated: Annotated[int, typer.Option(min=1, help="Clips of separate.")] = 2,
    separator: Annotated[
        str, typer.Option(help="A demucs model; random is an untrained network of mdx_extra's kind.")
    ] = "random",
    batch: Annotated[int | None, typer.Option(min=1, help="Clips at once in train.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs of each way, of which the median counts.")] = 3,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the figures as JSON, too.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Time training, generation, decoding and separation against naive implementations, in turns.

    Example: python -m benchmarks.cost --section train --section clips -o bench.json
    """
    if context.invoked_subcommand is not None:
        return
    if unknown := [name for name in section or () if name not in SECTIONS]:
        raise typer.BadParameter(f"no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    from benchmarks.cost.sections import Sizes, measured
    from benchmarks.cost.timing import machine
    from plaudit.devices import resolve_device
    from plaudit.storage import write_json

    where = resolve_device(device)
    sizes = Sizes(network, model, clips, separated, separator, batch, repeats)
    results = []
    for name in section or SECTIONS:
        with ConsoleReporter().progress(name) as advance:
            results.append(measured(name, sizes, where, advance))
        if not json:
            _show(results[-1])
    figures = {"machine": machine(where), "repeats": repeats, "sections": [asdict(one) for one in results]}
    if output is not None:
        write_json(output, figures)
    if json:
        show_json(figures)


def _show(section: Section) -> None:
    rows = [(way, seconds, section.ratio(way)) for way, seconds in section.seconds.items()]
    show_table(f"{section.name}: {section.what}", ("way", "seconds", f"times faster than {section.reference}"), rows)
    if section.facts:
        show_table("", ("measured", "value"), list(section.facts.items()))


@app.command()
def solvers(
    model: Annotated[str, typer.Option(help="A model by name or folder.")] = "synthetic",
    prompts: Annotated[
        Path | None, typer.Option(help="Prompts, one a line or a CSV. Default: held-out ones of the synthetic world.")
    ] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=2, help="How many prompts.")] = 12,
    solver: Annotated[list[str] | None, typer.Option(help="A solver to compare; repeat. Default: all.")] = None,
    steps: Annotated[list[int] | None, typer.Option(min=1, help="Solver steps; repeat. Default: 4, 8, 16, 32.")] = None,
    shift: Annotated[list[float] | None, typer.Option(help="Shift of the time grid; repeat. Default: 1.")] = None,
    reference_steps: Annotated[int, typer.Option(min=1, help="Steps of the reference, by Heun's method.")] = 200,
    clap: Annotated[str, typer.Option(help="The CLAP that compares clips with prompts.")] = "synthetic",
    reward: Annotated[str, typer.Option(help="The reward of clips.")] = "synthetic",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first prompt's noise.")] = 0,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Clips sampled at once. Default: what memory and device allow.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the figures and charts.")] = Path("bench"),
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Compare solvers: distance to a fine reference, CLAP score and reward against network evaluations and seconds.

    Writes solvers.json and charts of quality against cost. All other settings are the model's.

    Example: python -m benchmarks.cost solvers --steps 4 --steps 8 --steps 16 -o bench
    """
    from benchmarks.cost.solvers import COLUMNS, Evaluators, SolverGrid, bench_solvers, save_charts, table
    from plaudit import loading
    from plaudit.corpus.sources import synthetic_source
    from plaudit.generate.settings import Execution
    from plaudit.storage import write_json
    from plaudit.tables import read_prompts

    grid = SolverGrid.chosen(solvers=solver, steps=steps, shifts=shift, reference_steps=reference_steps, seed=seed)
    music = loading.load(model, device)
    if prompts is None:
        texts = synthetic_source(music.config.seconds).held_out(count).prompts
    else:
        texts = read_prompts(prompts)[:count]
    evaluators = Evaluators(loading.load_part(loading.CLAPS, clap, device), loading.load_reward(reward, device))
    with ConsoleReporter().progress("sampling") as advance:
        compared = bench_solvers(music, texts, evaluators, grid, Execution(batch=batch), advance)
    figures = {
        "model": model,
        "device": str(music.backbone.latent_mean.device),
        "clap": clap,
        "reward": reward,
        "prompts": texts,
        "sampling": music.config.sampling.model_dump(mode="json"),
        "grid": grid.model_dump(mode="json"),
        **asdict(compared),
    }
    write_json(output / "solvers.json", figures)
    charts = save_charts(compared, output)
    if json:
        show_json(figures)
        return
    show_table(f"solvers over {len(texts)} prompts; first the reference", COLUMNS, table(compared))
    for path in (output / "solvers.json", *charts):
        result_console.print(path, soft_wrap=True, highlight=False)


if __name__ == "__main__":
    app()
