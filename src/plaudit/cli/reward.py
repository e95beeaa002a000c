"""`plaudit reward calibrate`: what a reward thinks too much or too little of, learned from a few votes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plaudit.cli.console import progress_console, show_json, show_table

if TYPE_CHECKING:
    from plaudit.evaluate.calibration import CalibrationGain
    from plaudit.reward.calibration import Calibration

app = typer.Typer(help="The reward: what it learns from votes.", no_args_is_help=True)


@app.callback()
def options() -> None:
    """The reward: what it learns from votes."""


@app.command()
def calibrate(
    votes: Annotated[
        Path, typer.Argument(help="CSV: system_a, system_b, winner or preference, score_a or tj_a, score_b or tj_b.")
    ],
    pin: Annotated[
        str | None, typer.Option(help="The system held at 0: one that the reward knows well. Default: none.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the calibration (JSON).")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--votes", min=1, help="Fit to the first so many decided votes. Default: all.")
    ] = None,
    order: Annotated[
        Path | None, typer.Option(help="JSON with ids under new_uuids: also measure the gain on held-out votes.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="With --order: how many splits.")] = 5,
    k: Annotated[str, typer.Option(help="With --order: the numbers of votes to calibrate on.")] = "0,3,10,30,100,250",
    test: Annotated[int, typer.Option(min=1, help="With --order: votes held out per split.")] = 299,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Learn one bias per system from scored votes, with standard errors, and measure what that gains.

    Example: plaudit reward calibrate votes.csv --pin sonauto-v2-2 -o calibration.json
    """
    from plaudit.evaluate.calibration import calibration_gains, in_order, read_order
    from plaudit.reward.calibration import fit_calibration, save_calibration
    from plaudit.reward.checks import doubts
    from plaudit.reward.scored_votes import read_scored_votes

    scored = read_scored_votes(votes)
    decided = [vote for vote in scored if vote.winner != "tie"]
    chosen = decided[:count] or scored
    for doubt in doubts(chosen):
        progress_console.print(doubt, highlight=False, soft_wrap=True)
    calibration = fit_calibration(chosen, pin)
    gains = None
    if order is not None:
        ordered = in_order(scored, read_order(order))
        gains = calibration_gains(ordered, _counts(k), test, range(seeds), pin)
    if output is not None:
        save_calibration(calibration, output)
    facts = {"votes": len(scored), "ties": len(scored) - len(decided), "fitted": len(chosen)}
    if json:
        measured = None if gains is None else [asdict(gain) | {"significant": gain.significant} for gain in gains]
        show_json({**facts, "calibration": asdict(calibration), "gains": measured})
    else:
        _show(calibration, gains, facts)


def _counts(text: str) -> list[int]:
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not numbers with commas between them", param_hint="--k") from None


def _show(calibration: Calibration, gains: list[CalibrationGain] | None, facts: dict[str, Any]) -> None:
    rows = [
        (system, bias.value, "pinned" if system == calibration.pinned else f"{bias.standard_error:.3f}", bias.votes)
        for system, bias in calibration.biases.items()
    ]
    title = f"Biases from {facts['fitted']} votes ({facts['ties']} ties left out), T = {calibration.temperature:.2f}"
    show_table(title, ("system", "bias", "standard error", "votes"), rows)
    if gains is None:
        return
    accuracies = []
    for gain in gains:
        row = [str(gain.votes), f"{gain.accuracy.mean:.1%}", f"{gain.accuracy.low:.1%} to {gain.accuracy.high:.1%}"]
        if gain.gain is None or gain.p is None:
            row += ["", "", "", ""]
        else:
            interval = f"{100 * gain.gain.low:+.1f} to {100 * gain.gain.high:+.1f}"
            row += [f"{100 * gain.gain.mean:+.1f}", interval, f"{gain.p:.4f}", "yes" if gain.significant else "no"]
        accuracies.append(row)
    columns = ("votes", "accuracy", "95 % interval", "gain", "95 % interval", "p (Holm)", "significant")
    show_table(f"Held-out votes, mean of {len(gains[0].by_seed)} splits", columns, accuracies)
