"""`plaudit votes import|check|leaderboard`: votes from published sources, checks of vote files, systems by strength."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from plaudit.cli.console import ConsoleReporter, progress_console, show_json, show_table
from plaudit.cli.options import App
from plaudit.reward.bradley_terry import PRIOR_SD

app = App(help="Votes on pairs of clips: import from published data sets, checks, leaderboards.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
COLUMNS = ("votes", "ties", "both bad", "without prompt", "systems", "prompts", "clips", "listeners")


@app.command("import")
def import_votes(
    source: Annotated[str, typer.Argument(help="music-arena, musicprefs, aime or songeval.")],
    folder: Annotated[Path, typer.Argument(help="Folder of the downloaded data set; with --hub, download to it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the votes and clips.csv.")],
    audio: Annotated[
        Path | None, typer.Option(help="Folder for clips extracted from Parquet files. Default: not extracted.")
    ] = None,
    splits: Annotated[
        Path | None, typer.Option(help="JSON with vote ids under train, valid and test, as TuneJury publishes them.")
    ] = None,
    min_gap: Annotated[
        float | None, typer.Option(help="songeval: least difference of two mean ratings. Default: 0.5.")
    ] = None,
    hub: Annotated[bool, typer.Option("--hub", help="Download the data set to FOLDER first; resumable.")] = False,
    json: Json = False,
) -> None:
    """Convert a published data set to votes.jsonl (or train, validation and test.jsonl) and clips.csv (id, audio file).

    Example: plaudit votes import music-arena music-arena-dataset -o votes --hub
    """
    from plaudit.models.fetch import dataset_from_hub
    from plaudit.reward.scored_votes import summarize_votes
    from plaudit.reward.sources import find_source, read_source
    from plaudit.reward.sources.importing import split_by_ids, write_clips
    from plaudit.reward.votes import write_votes

    publisher = find_source(source)
    if hub:
        for repository in publisher.repositories:
            alone = len(publisher.repositories) == 1
            dataset_from_hub(repository, folder if alone else folder / repository.split("/")[1])
    read = read_source(source, folder, min_gap)
    progress_console.print(f"{source}: licence {publisher.licence}", highlight=False, soft_wrap=True)
    parts, absent = {"votes": read.votes}, 0
    if splits is not None:
        parts, absent = split_by_ids(read.votes, splits)
    with ConsoleReporter().progress("writing clips") as advance:
        written, wrong = write_clips(read.clips, output, audio, advance)
    for part, votes in parts.items():
        write_votes(output / f"{part}.jsonl", votes)
    rows = {part: asdict(summarize_votes(votes)) for part, votes in parts.items()}
    remarks = [f"{count} records left out: {reason}" for reason, count in read.skipped.items()]
    if absent:
        remarks.append(f"{absent} ids of {splits} are not among the votes")
    if left := len(read.clips) - written - len(wrong):
        remarks.append(f"{left} clips lie inside Parquet files; --audio FOLDER writes them")
    if missing := len({clip for vote in read.votes for clip in (vote.a, vote.b)} - read.clips.keys()):
        remarks.append(f"{missing} clips have no audio under {folder}")
    if json:
        return show_json({"splits": rows, "clips_with_audio": written, "remarks": remarks, "unusable": wrong})
    show_table(f"{source}: {output}", ("split", *COLUMNS), [(part, *row.values()) for part, row in rows.items()])
    for remark in [*remarks, *wrong]:
        progress_console.print(remark, highlight=False, soft_wrap=True)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A .jsonl or .csv file of votes.")],
    audio: Annotated[
        Path | None, typer.Option(help="Folder of clips, or a CSV with columns id and file, such as clips.csv.")
    ] = None,
    json: Json = False,
) -> None:
    """Check that a file of votes is well formed, and warn of what makes it less informative.

    Exits 1 if there is a warning.

    Example: plaudit votes check votes/votes.jsonl --audio votes/clips.csv
    """
    from plaudit.errors import listed
    from plaudit.reward.scored_votes import missing_clips, summarize_votes, vote_warnings
    from plaudit.reward.votes import named_files, read_all_votes

    votes = read_all_votes(file)
    problems = vote_warnings(votes)
    if audio is not None:
        named = [clip for vote in votes for clip in (vote.a, vote.b)]
        if missing := missing_clips(votes, named_files(audio, named)):
            problems.append(f"{len(missing)} clips are not in {audio}: {listed(missing)}")
    if json:
        show_json(asdict(summarize_votes(votes)) | {"doubts": problems})
    else:
        show_table(str(file), COLUMNS, [tuple(asdict(summarize_votes(votes)).values())])
        for doubt in problems:
            progress_console.print(doubt, highlight=False, soft_wrap=True)
    if problems:
        raise typer.Exit(1)


@app.command()
def leaderboard(
    file: Annotated[Path, typer.Argument(help="A .jsonl or .csv file of votes with system_a, system_b and winner.")],
    ties: Annotated[
        Literal["davidson", "half"],
        typer.Option(help="half: a tie is half a win of either; davidson: its own parameter."),
    ] = "davidson",
    prior_sd: Annotated[
        float, typer.Option(help="Standard deviation of the prior of a strength, in logits.", min=0.01)
    ] = PRIOR_SD,
    json: Json = False,
) -> None:
    """Rank systems by the votes between their clips: Bradley-Terry strengths with 95 % intervals.

    Scores are 1000 plus 400 / ln 10 times the strength, as arenas publish them. Votes that find both clips bad are left
    out. Intervals are over listeners, or over votes where the file names fewer than two.

    With Music Arena's formula: plaudit votes leaderboard votes.jsonl --ties half --prior-sd 1

    Example: plaudit votes leaderboard votes/votes.jsonl
    """
    from plaudit.errors import listed
    from plaudit.reward.leaderboard import arena_scale, bradley_terry
    from plaudit.reward.system_votes import read_system_votes

    board = bradley_terry(read_system_votes(file), ties, prior_sd)
    if json:
        strengths = [asdict(one) | {"arena_score": one.arena_score} for one in board.strengths]
        return show_json(asdict(board) | {"strengths": strengths})
    rows = [
        (
            one.rank,
            one.system,
            *(f"{arena_scale(value):.0f}" for value in (one.strength.mean, one.strength.low, one.strength.high)),
            " to ".join(str(rank) for rank in dict.fromkeys(one.ranks)),
            one.votes,
        )
        for one in board.strengths
    ]
    show_table(str(file), ("rank", "system", "score", "low", "high", "possible ranks", "votes"), rows)
    remarks = [f"{board.votes} votes, {board.ties} of them ties; intervals are over {board.resampled}"]
    if board.both_bad:
        remarks.append(f"{board.both_bad} votes find both clips bad and are left out")
    if len(board.groups) > 1:
        groups = "; ".join(listed(group) for group in board.groups)
        remarks.append(f"no vote links these groups of systems, whose scores cannot be compared: {groups}")
    for remark in remarks:
        progress_console.print(remark, highlight=False, soft_wrap=True)
