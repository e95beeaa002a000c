"""`plaudit reward ...`: rewards trained, evaluated, probed and calibrated."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plaudit.cli import reward_evaluation, reward_training
from plaudit.cli.console import progress_console, result_console, show_json, show_table
from plaudit.cli.options import App

if TYPE_CHECKING:
    from plaudit.reward.scored_votes import ScoredVote

app = App(help="Rewards: training, evaluation and calibration.", no_args_is_help=True)
reward_training.add_to(app)
reward_evaluation.add_to(app)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def calibrate(
    votes: Annotated[Path, typer.Argument(help="CSV: system_a, system_b, winner, score_a, score_b (or tj_a, tj_b).")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="JSON file for the biases.")] = None,
    pin: Annotated[
        str | None, typer.Option("--anchor-system", help="System whose scores are trusted; its bias is 0.")
    ] = None,
    count: Annotated[int | None, typer.Option("--votes", min=0, help="Use the first so many. Default: all.")] = None,
    study: Annotated[
        Path | None,
        typer.Option(help="JSON file with an order of votes (new_uuids): accuracy on held-out votes, not a fit."),
    ] = None,
    ids: Annotated[str, typer.Option(help="Column of the votes' ids, for --study.")] = "battle_id",
    sizes: Annotated[str, typer.Option(help="Numbers of votes to fit on, for --study.")] = "0,3,10,30,100,250",
    seeds: Annotated[int, typer.Option(min=1, help="Splits, for --study.")] = 5,
    test: Annotated[int, typer.Option(min=1, help="Votes of each half of a split, for --study.")] = 299,
    json: Json = False,
) -> None:
    """Fit one bias per system to votes, for rewards of systems that the reward's training has not seen.

    Example: plaudit reward calibrate votes.csv --anchor-system sonauto-v2-2 -o calibration.json
    """
    from plaudit.reward.calibration import fit_calibration, save_calibration
    from plaudit.reward.scored_votes import read_scored_votes, vote_warnings

    found = read_scored_votes(votes, ids)
    if study is not None:
        return _study(found, study, pin, sizes, seeds, test, json)
    used = found[:count] if count is not None else found
    calibration = fit_calibration(used, pin)
    systems = [system for vote in used for system in (vote.system_a, vote.system_b)]
    if pin is not None and pin not in systems:
        progress_console.print(f"no vote is of {pin}, so no system is the anchor", highlight=False)
    for doubt in vote_warnings(used):
        progress_console.print(doubt, highlight=False, soft_wrap=True)
    if output is not None:
        save_calibration(output, calibration)
    if json:
        return show_json(asdict(calibration))
    rows = [(system, bias.value, bias.error, bias.votes) for system, bias in calibration.biases.items()]
    show_table(f"Biases from {len(used)} votes", ("system", "bias", "standard error", "votes"), rows)
    result_console.print(f"temperature {calibration.temperature:.3f}")


def _study(
    found: list[ScoredVote], order_file: Path, pin: str | None, sizes: str, seeds: int, test: int, json: bool
) -> None:
    from plaudit.errors import VoteError
    from plaudit.evaluate.rewards import calibration_study
    from plaudit.storage import read_json

    order = read_json(order_file)
    names = order.get("new_uuids") if isinstance(order, dict) else order
    if not isinstance(names, list):
        raise VoteError(f"{order_file} holds no list of vote ids (new_uuids); check the file")
    try:
        wanted = [int(size) for size in sizes.split(",")]
    except ValueError:
        raise VoteError(f"--sizes takes whole numbers with commas, not {sizes!r}") from None
    by_id = {vote.id: vote for vote in found if vote.target != 0.5}
    both = [by_id[name] for name in names if name in by_id]
    rows = calibration_study(both, pin, wanted, range(seeds), test)
    if json:
        return show_json([asdict(row) for row in rows])
    table = [
        (
            row.votes,
            _percent(row.accuracy.mean),
            f"{_percent(row.accuracy.low)} to {_percent(row.accuracy.high)}",
            f"{100 * row.gain.mean:+.1f} [{100 * row.gain.low:+.1f}, {100 * row.gain.high:+.1f}]" if row.votes else "",
            f"{row.p_holm:.3f}" if row.votes else "",
        )
        for row in rows
    ]
    columns = ("votes", "accuracy %", "95 % interval", "gain", "p (Holm)")
    show_table(f"{seeds} splits of {len(both)} votes, {test} held out", columns, table)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
