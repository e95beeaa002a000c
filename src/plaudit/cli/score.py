"""`plaudit score` and `plaudit rank`: what clips are worth to a reward."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plaudit.cli.console import Address, ConsoleReporter, EngineName, complain, is_ray, show_csv, show_json, show_table

if TYPE_CHECKING:
    from plaudit.reward.calibration import Calibration
    from plaudit.reward.scoring import Clip, ScoreCache, ScoredClip, ScoreReference
    from plaudit.types import Reward

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Csv = Annotated[Path | None, typer.Option("--csv", help="Write the result as CSV to this file; - prints it.")]
RewardName = Annotated[
    str, typer.Option("--reward", help="A known or installed reward, a reward folder, or MODULE:CLASS of your own.")
]
Paths = Annotated[
    list[Path] | None, typer.Argument(help="Audio files, folders of them, or - for a list of paths on standard input.")
]
Prompt = Annotated[
    str | None,
    typer.Option(
        help="What was asked for; empty means no prompt. Default: what a clip of plaudit generate says of itself, in "
        "the JSON file beside it or in its tags."
    ),
]
Table = Annotated[
    Path | None, typer.Option("--table", help="CSV with columns file, and optionally prompt or caption, and system.")
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither use nor keep scores in the user's cache folder.")]


def add_to(app: typer.Typer) -> None:
    """Register this group's commands."""
    app.command()(score)
    app.command()(rank)


def score(
    paths: Paths = None,
    prompt: Prompt = None,
    table: Table = None,
    reward: RewardName = "synthetic",
    reference: Annotated[
        Path | None, typer.Option(help="Folder or saved reference: each score's percentile among its scores.")
    ] = None,
    save_reference: Annotated[Path | None, typer.Option(help="Write the scores as a reference (JSON).")] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Biases of systems (plaudit reward calibrate) to take off, by --table's system.")
    ] = None,
    csv: Csv = None,
    json: Json = False,
    no_cache: NoCache = False,
    engine: EngineName = "local",
    ray_address: Address = None,
) -> None:
    """Predict how much people would like clips; higher is better, and only differences mean anything.

    Exits 1 where a file could not be scored; the others are scored all the same. Scores are kept: what was scored
    before, or before an interruption, is not computed again. Of a folder of plaudit generate, the candidates of
    --best-of are left out; name their folder to score them.

    Example: plaudit score out
    """
    from plaudit import loading
    from plaudit.reward.calibration import load_calibration
    from plaudit.reward.scoring import save_reference as save
    from plaudit.reward.scoring import score_reference

    biases = None if calibration is None else load_calibration(calibration)
    clips, jury = _clips(paths, table, prompt), loading.load_reward(reward)
    with score_cache(not no_cache) as cache:
        compared = None if reference is None else _reference(reference, prompt, jury, cache)
        if is_ray(engine):
            rows = _scored_on_ray(clips, reward, ray_address, not no_cache)
        else:
            rows = _scored("scoring", clips, jury, cache)
    if save_reference is not None:
        save(save_reference, score_reference(str(save_reference), getattr(jury, "identity", None), rows))
    if biases is not None and (unknown := biases.unknown([row.clip.system or "(none)" for row in rows])):
        complain(f"{calibration} knows nothing of {', '.join(unknown)}: their scores are as they were")
    _show("Reward", [_score_row(row, compared, biases) for row in rows], csv, json)
    if any(row.error is not None for row in rows):
        raise typer.Exit(1)


def rank(
    paths: Paths = None,
    prompt: Prompt = None,
    table: Table = None,
    keep: Annotated[int, typer.Option("-n", "--keep", min=1, help="How many to keep of each prompt.")] = 1,
    reward: RewardName = "synthetic",
    copy: Annotated[Path | None, typer.Option(help="Copy what is kept into this folder, the rank in the name.")] = None,
    csv: Csv = None,
    json: Json = False,
    no_cache: NoCache = False,
) -> None:
    """Keep the best candidates of each prompt, with their lead over the next.

    Exits 1 where a file could not be scored; the others are ranked all the same. --copy takes the JSON file beside a
    clip along, and refuses to replace a file.

    Example: plaudit rank out -n 3 --copy best
    """
    from plaudit import loading
    from plaudit.reward.scoring import copy_ranked, rank_clips

    clips = _clips(paths, table, prompt)
    if copy is not None:
        clips = _outside(clips, copy)
    jury = loading.load_reward(reward)
    with score_cache(not no_cache) as cache:
        rows = _scored("ranking", clips, jury, cache)
    best = rank_clips(rows, keep)
    copies: list[Any] = [None] * len(best) if copy is None else copy_ranked(best, copy)
    shown = []
    for entry, copied in zip(best, copies, strict=True):
        clip, place = entry.scored.clip, {"rank": entry.rank, "of": entry.candidates}
        row = {"prompt": clip.prompt, **place, "reward": entry.scored.score, "margin": entry.margin}
        shown.append({**row, "file": str(clip.file)} | ({} if copied is None else {"copy": str(copied)}))
    _show("Best", shown, csv, json)
    failed = [row.error for row in rows if row.error is not None]
    for error in failed:
        complain(error)
    if failed:
        raise typer.Exit(1)


def _outside(clips: list[Clip], folder: Path) -> list[Clip]:
    """The clips that are not in `folder`, where copies of an earlier ranking are."""
    kept = [clip for clip in clips if not clip.file.resolve().is_relative_to(folder.resolve())]
    if not kept:
        raise typer.BadParameter(f"--copy {folder} holds all that is ranked; copy into another folder")
    return kept


def _clips(paths: list[Path] | None, table: Path | None, prompt: str | None) -> list[Clip]:
    from plaudit.generate.requests import check_text
    from plaudit.reward.scoring import clips_at, clips_in_table
    from plaudit.sidecars import candidates_note

    if not paths and table is None:
        raise typer.BadParameter("no files: give audio files or folders, - for a list on standard input, or --table")
    if prompt is not None:
        check_text(prompt, "--prompt")
    if note := candidates_note(paths or []):
        complain(note)
    found = clips_in_table(table, prompt) if table is not None else []
    return found + (clips_at(paths, prompt, sys.stdin) if paths else [])


@contextmanager
def score_cache(wanted: bool) -> Iterator[ScoreCache | None]:
    """The user's cache of scores, closed in the end; None where it is not wanted."""
    from plaudit.reward.scoring import ScoreCache

    cache = ScoreCache.of_user(complain) if wanted else None
    try:
        yield cache
    finally:
        if cache is not None:
            cache.close()


def _scored(label: str, clips: list[Clip], jury: Reward, cache: ScoreCache | None) -> list[ScoredClip]:
    from plaudit.reward.scoring import score_clips

    with ConsoleReporter().progress(label) as advance:
        return score_clips(clips, jury, cache, advance)


def _scored_on_ray(clips: list[Clip], reward: str, address: str | None, cached: bool) -> list[ScoredClip]:
    from plaudit.ray_engine import Cluster, score_clips_on_ray

    with ConsoleReporter().progress("scoring") as advance:
        return score_clips_on_ray(clips, reward, Cluster(address), cached, advance)


def _reference(path: Path, prompt: str | None, jury: Reward, cache: ScoreCache | None) -> ScoreReference:
    """A folder's clips are asked for the same prompt as those compared with it."""
    from plaudit.reward.scoring import clips_at, load_reference, score_reference

    identity = getattr(jury, "identity", None)
    if not path.is_dir():
        return load_reference(path, identity)
    return score_reference(str(path), identity, _scored("reference", clips_at([path], prompt, []), jury, cache))


def _score_row(row: ScoredClip, compared: ScoreReference | None, biases: Calibration | None) -> dict[str, Any]:
    system = {} if row.clip.system is None else {"system": row.clip.system}
    shown = {"file": str(row.clip.file), "prompt": row.clip.prompt, **system, "reward": row.score, "error": row.error}
    if biases is not None:
        shown["calibrated"] = None if row.score is None else biases.apply(row.score, row.clip.system or "")
    if compared is not None:
        percentile = None if row.score is None else compared.percentile(row.score)
        shown |= {"percentile": percentile, "percentile_definition": compared.definition}
    return shown


def _show(title: str, rows: list[dict[str, Any]], csv: Path | None, json: bool) -> None:
    """All of it as CSV or JSON; for people a table of what differs between rows."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if csv is not None:
        show_csv(csv, columns, rows)
    if json:
        show_json(rows)
    elif csv is None:
        one_prompt = len({row["prompt"] for row in rows}) < 2
        hidden = {"error", "percentile_definition"} | ({"prompt"} if one_prompt else set())
        shown = [column for column in columns if column not in hidden]
        told = {row["percentile_definition"] for row in rows if "percentile_definition" in row}
        cells = [[_cell(row, column) for column in shown] for row in rows]
        show_table("; percentile: ".join([title, *told]), shown, cells)


def _cell(row: dict[str, Any], column: str) -> Any:
    """A prompt's beginning says which it is; a row without a reward says why."""
    if column == "reward" and row.get("error"):
        return row["error"]
    value = "" if row.get(column) is None else row[column]
    return value[:60] if column == "prompt" else value
