"""`plaudit reward evaluate|probe`: how far to trust a reward."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plaudit.cli.console import ConsoleReporter, complain, say, show_json, show_table
from plaudit.cli.reward_training import Features, Json, Output

if TYPE_CHECKING:
    from plaudit.reward.scored_votes import ScoredVote
    from plaudit.statistics import Interval

RewardName = Annotated[str, typer.Argument(help="A built-in or installed reward, a reward folder, or FILE.py:NAME.")]


def add_to(app: typer.Typer) -> None:
    """Register these commands in the group `plaudit reward`."""
    app.command()(evaluate)
    app.command()(probe)


def evaluate(
    reward: Annotated[
        str | None,
        typer.Argument(help="A built-in or installed reward, a reward folder, or FILE.py:NAME; not with --scores."),
    ] = None,
    votes: Annotated[Path | None, typer.Option(help="Votes to be predicted (.jsonl, .csv).")] = None,
    audio: Annotated[Path | None, typer.Option(help="Folder of clips, or a CSV with columns id and file.")] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="Instead of all these: CSV with system_a, system_b, winner, score_a, score_b (and source)."),
    ] = None,
    output: Output = Path("reward-evaluation"),
    features: Features = None,
    json: Json = False,
) -> None:
    """Say how well a reward predicts votes: accuracy, calibration, by source and by pair of systems, with intervals.

    Votes between two clips of one system count for accuracy and are left out of what compares systems.

    Example: plaudit reward evaluate reward --votes held-out.jsonl --audio music/ -o evaluation
    """
    from plaudit.errors import VoteError
    from plaudit.evaluate.rewards import evaluate_votes, save_evaluation
    from plaudit.reward.scored_votes import read_scored_votes, write_scored_votes

    if scores is not None and (reward, votes, audio) == (None, None, None):
        scored = read_scored_votes(scores)
    elif scores is None and reward is not None and votes is not None and audio is not None:
        scored = _scored(reward, votes, audio, features or output / "features")
    else:
        raise VoteError("give a reward with --votes and --audio, or --scores alone")
    found = evaluate_votes(scored)
    write_scored_votes(output / "scores.csv", scored)
    save_evaluation(found, output)
    if json:
        return show_json(asdict(found))
    overall = found.overall
    columns = ("votes", "not ties", "accuracy", "95 % interval")
    rows: list[tuple[Any, ...]] = [
        ("all", overall.votes, overall.decided, overall.accuracy, "{:.3f} to {:.3f}".format(*overall.accuracy_interval))
    ]
    named = [source for source in found.sources if source.name or len(found.sources) > 1]
    for group in (*named, *found.pairs):
        rows.append((group.name or "(no source)", group.votes, group.decided, *_estimate(group.accuracy)))
    show_table("Accuracy", ("of", *columns), rows)
    if found.systems:
        titles = ("system", "votes", "mean reward", "95 % interval", "win rate", "95 % interval")
        systems = [(s.name, s.votes, *_estimate(s.reward), *_estimate(s.win_rate)) for s in found.systems]
        show_table("Systems", titles, systems)
    low, high = overall.calibration_error_interval
    say(f"calibration error (ECE) {overall.calibration_error:.3f} [{low:.3f}, {high:.3f}]")
    if found.spearman is not None:
        value, interval = _estimate(found.spearman)
        say(f"rank correlation of mean reward and win rate {value:.3f}, {interval}")
    if found.same_system:
        say(f"{found.same_system} votes are between two clips of one system: in the accuracy, in no pair of systems")
    say(f"Evaluation: {output.resolve()}")


def probe(
    reward: RewardName,
    paths: Annotated[list[Path], typer.Argument(help="Audio files, or folders of them.")],
    prompt: Annotated[str, typer.Option(help="What was asked for; empty means no prompt.")] = "",
    json: Json = False,
) -> None:
    """See what moves a reward: changes that should not (loudness, resampling), and damage that should.

    Example: plaudit reward probe synthetic music/
    """
    from plaudit import loading
    from plaudit.audio import list_audio_files
    from plaudit.evaluate.rewards import probe_files

    files, jury = list_audio_files(paths), loading.load_reward(reward)
    with ConsoleReporter().progress("probing") as advance:
        found = probe_files(files, prompt, jury, advance)
    if json:
        return show_json(asdict(found))
    rows: list[tuple[Any, ...]] = [
        (row.name, row.expected, row.clips, *_estimate(row.change), "-" if row.moved is None else row.moved,
         {True: "yes", False: "NO", None: ""}[row.passed])
        for row in found.rows
    ]  # fmt: skip
    rows.append(("silence", "refused", "", "", "", "", "yes" if found.silence_refused else "NO"))
    columns = ("change", "should", "clips", "mean change", "95 % interval", "mean |change|", "as it should")
    show_table(f"{found.clips} clips; changes in standard deviations of the reward ({found.deviation:.3f})",
               columns, rows)  # fmt: skip
    for line in found.skipped:
        complain(f"left out: {line}")


def _scored(reward: str, votes: Path, audio: Path, folder: Path) -> list[ScoredVote]:
    """The votes with the reward's scores: of a TuneJury from stored features, of any other reward from the audio."""
    from plaudit import loading
    from plaudit.reward.scored_votes import score_audio_of_votes, score_votes
    from plaudit.reward.tunejury import TuneJury
    from plaudit.reward.votes import extract_vote_features, read_votes

    loaded, read = loading.load_reward(reward), read_votes(votes)
    if isinstance(loaded, TuneJury):
        with ConsoleReporter().progress("encoding clips") as advance:
            features = extract_vote_features([read], audio, loaded.features, folder, advance)
        scored, notes = score_votes(features.votes[0], loaded, features.store), features.notes
    else:
        with ConsoleReporter().progress("scoring clips") as advance:
            scored, notes = score_audio_of_votes(read, loaded, audio, advance)
    for note in notes:
        complain(note)
    return scored


def _estimate(interval: Interval | None) -> tuple[float | str, str]:
    return ("-", "") if interval is None else (interval.mean, f"{interval.low:.3f} to {interval.high:.3f}")
