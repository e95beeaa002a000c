"""`plaudit prepare`: data sets of audio and captions to shard sets."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import MISSING, asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from plaudit.cli.console import (
    Address,
    ConsoleReporter,
    EngineName,
    Yes,
    agreed,
    complain,
    is_ray,
    progress_console,
    show_json,
    show_table,
)
from plaudit.cli.options import App

if TYPE_CHECKING:
    from plaudit.corpus.estimate import PreparationEstimate
    from plaudit.corpus.layouts import Listing
    from plaudit.corpus.manifest import ListedCorpus
    from plaudit.corpus.shard_set import Provenance
    from plaudit.corpus.shards import ShardEncoder

app = App(help="Audio with captions to a shard set: latents, caption features, rewards.", no_args_is_help=True)

Audio = Annotated[Path, typer.Argument(help="Folder of the audio.")]
Rewards = Annotated[Path | None, typer.Option(help="CSV of scores by track: track_id, reward_score.")]
Share = Annotated[float, typer.Option(min=0, max=1, help="Share of the tracks for this split.")]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every data set is prepared with."""

    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the shard set.")]
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of a clip.")] = 10.0
    clips_per_track: Annotated[
        int | None, typer.Option(min=0, help="At most; 0: as many as fit. Default: 10, and 1 of song-describer.")
    ] = None
    place: Annotated[str, typer.Option(help="Where in a track clips are: spread, start or random.")] = "spread"
    codec: Annotated[str, typer.Option(help="A known or imported codec.")] = "synthetic"
    text_encoder: Annotated[str, typer.Option(help="A known or imported text encoder.")] = "synthetic"
    shard_size: Annotated[int, typer.Option(min=1, help="Clips of a shard.")] = 512
    batch: Annotated[int, typer.Option(min=1, help="Clips encoded at once.")] = 16
    separate: Annotated[
        int, typer.Option(min=0, help="Passes of separation that take vocals out; _instrumental files are spared.")
    ] = 0
    separator: Annotated[str, typer.Option(help="A demucs model or a folder of one.")] = "mdx_extra"
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto"
    engine: EngineName = "local"
    ray_address: Address = None
    workers: Annotated[int | None, typer.Option(min=1, help="Of --engine ray. Default: as many as fit.")] = None
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be made, and how long it would take.")
    ] = False
    yes: Yes = False
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each field of Options in place of its parameter `options`."""
    hints = get_type_hints(Options, include_extras=True)
    own = list(inspect.signature(command, eval_str=True).parameters.values())
    shared = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, annotation=hints[f.name])
        if f.default is MISSING
        else inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, annotation=hints[f.name], default=f.default)
        for f in fields(Options)
    ]
    shown = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own if p.name != "options"] + shared

    def run(**given: Any) -> None:
        options = Options(**{f.name: given.pop(f.name) for f in fields(Options)})
        command(options=options, **given)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    return run


@app.command()
@_with_options
def jamendo(
    audio: Audio,
    captions: Annotated[Path, typer.Option(help='JSON: a list of {"path", "caption"}.')],
    options: Options,
    rewards: Rewards = None,
    validation: Share = 0.05,
    test: Share = 0.05,
) -> None:
    """MTG-Jamendo as it is distributed: folder/id.mp3, or folder/id_instrumental.mp3, whose vocals were removed.

    What is finished is kept: the same command continues after an interruption.

    Example: plaudit prepare jamendo mtg-jamendo/ --captions captions.json --rewards scores.csv -o shards
    """
    from plaudit.corpus.layouts import list_jamendo

    listing = list_jamendo(audio.absolute(), captions, rewards, validation, test)
    _prepare(listing, options, _source("jamendo", audio, captions))


@app.command()
@_with_options
def song_describer(
    audio: Audio,
    options: Options,
    captions: Annotated[Path | None, typer.Option(help="Default: song_describer.csv in the folder.")] = None,
    rewards: Rewards = None,
) -> None:
    """The Song Describer Dataset; it is for evaluation, so all of it is the test split.

    Example: plaudit prepare song-describer song-describer/ -o shards
    """
    from plaudit.corpus.layouts import list_song_describer

    listing = list_song_describer(audio.absolute(), captions, rewards)
    _prepare(listing, options, _source("song-describer", audio, captions), clips_per_track=1)


@app.command()
@_with_options
def folder(
    audio: Audio,
    captions: Annotated[Path, typer.Option(help="CSV with the columns file and caption.")],
    options: Options,
    rewards: Rewards = None,
    reward_column: Annotated[str | None, typer.Option(help="Column of the captions' CSV with rewards.")] = None,
    file_column: Annotated[str, typer.Option(help="Column of the files.")] = "file",
    caption_column: Annotated[str, typer.Option(help="Column of the captions.")] = "caption",
    validation: Share = 0.05,
    test: Share = 0.05,
) -> None:
    """A folder of audio and a CSV that gives each file its caption; equal captions are in one split.

    Example: plaudit prepare folder music/ --captions music/captions.csv -o shards
    """
    from plaudit.corpus.layouts import list_folder

    columns = {"file_column": file_column, "caption_column": caption_column, "reward_column": reward_column}
    table = captions.absolute() if captions.is_file() else captions  # else a name inside the folder
    listing = list_folder(audio.absolute(), table, score_table=rewards, validation=validation, test=test, **columns)
    _prepare(listing, options, _source("folder", audio, table))


@app.command()
@_with_options
def layout(
    name: Annotated[str, typer.Argument(help="An installed layout, or path/to/file.py:NAME.")],
    audio: Audio,
    options: Options,
    set: Annotated[list[str] | None, typer.Option("--set", help="An argument of the layout, as key=value.")] = None,
) -> None:
    """A data set whose files a layout lists: a Python function of the folder that returns a Listing.

    Example: plaudit prepare layout examples/corpus_layout.py:list_albums music/ --set test=0.1 -o shards
    """
    from plaudit.corpus.sources import LayoutOptions, list_layout
    from plaudit.registry import absolute_name
    from plaudit.settings import validated, with_changes

    changes = with_changes({}, [f"options.{change}" for change in set or []], name)
    arguments = validated(LayoutOptions, {"options": {}, **changes}, name).options
    source = {**_source(absolute_name(name), audio, None), **{key: str(value) for key, value in arguments.items()}}
    _prepare(list_layout(name, audio.absolute(), arguments), options, source)


def _source(data_set: str, audio: Path, captions: Path | None) -> dict[str, str]:
    """What tells a data set from others."""
    files = {"audio": audio.resolve(), "captions": None if captions is None else captions.resolve()}
    if captions is not None and not captions.exists():  # a name inside the folder
        files["captions"] = (audio / captions).resolve()
    return {"data set": data_set, **{name: str(path) for name, path in files.items() if path is not None}}


def _prepare(listing: Listing, options: Options, source: dict[str, str], clips_per_track: int = 10) -> None:
    """Survey the files, cut them to clips, and encode these, or only say what that would be."""
    from plaudit.corpus.clips import ClipSettings, cut_clips, cutting_notes, measure_durations
    from plaudit.corpus.estimate import estimate_preparation
    from plaudit.corpus.manifest import ListedCorpus
    from plaudit.corpus.shard_set import Provenance, check_claim
    from plaudit.encoders.truncation import truncation_note
    from plaudit.generate.settings import SeparationSettings
    from plaudit.ray_engine import build_shard_encoder, portable_name
    from plaudit.settings import validated

    if options.place not in ("spread", "start", "random"):
        raise typer.BadParameter(f"--place is spread, start or random, not {options.place!r}")
    is_ray(options.engine)
    count = clips_per_track if options.clips_per_track is None else options.clips_per_track
    values = {"seconds": options.seconds, "per_track": count, "place": options.place}
    cutting = validated(ClipSettings, values, "clips")
    made_from = Provenance(source, _settings(options, count))
    approve = partial(agreed, options.yes)
    if not options.dry_run:
        check_claim(options.output, made_from, approve)  # before the files are surveyed
    with ConsoleReporter().progress("surveying") as advance:
        durations = measure_durations(listing.entries, advance)
    corpus = ListedCorpus(listing.name, cut_clips(listing.entries, durations, cutting))
    for note in [*listing.notes, *cutting_notes(corpus.listed, durations, cutting, "--clips-per-track")]:
        complain(note)
    names = (portable_name(options.codec), portable_name(options.text_encoder))
    separation = SeparationSettings(passes=options.separate, model=portable_name(options.separator))
    build = partial(build_shard_encoder, *names, options.seconds, options.batch, options.device, separation)
    maker = build()
    if truncation := truncation_note(maker.text_encoder, (clip.caption for clip in corpus.listed), "captions"):
        complain(truncation)
    if options.dry_run:
        _show_forecast(estimate_preparation(corpus.listed, maker, options.output), options.json)
    else:
        _encode(corpus, maker, build, options, made_from)


def _settings(options: Options, clips_per_track: int) -> dict[str, Any]:
    """Options that every shard depends on."""
    names = ("seconds", "place", "codec", "text_encoder", "shard_size", "batch", "separate")
    values = {name: getattr(options, name) for name in names} | {"clips_per_track": clips_per_track}
    if options.separate:
        values["separator"] = options.separator
    return {f"--{name.replace('_', '-')}": value for name, value in values.items()}


def _encode(
    corpus: ListedCorpus,
    maker: ShardEncoder,
    build: Callable[[], ShardEncoder],
    options: Options,
    made_from: Provenance,
) -> None:
    from collections import Counter

    from plaudit.corpus.shards import encode_corpus
    from plaudit.ray_engine import Cluster, connected, ray_engine

    spread = is_ray(options.engine)
    cluster = Cluster(options.ray_address, options.workers, device=options.device)
    together = connected(cluster.address) if spread else nullcontext()  # clips and captions in one session
    with together, ConsoleReporter().progress("encoding") as advance:
        made = encode_corpus(
            corpus,
            maker.codec,
            maker.text_encoder,
            options.output,
            options.seconds,
            options.shard_size,
            options.batch,
            maker.device,
            advance,
            preprocessing=maker.preprocessing,
            engine=ray_engine(build, cluster) if spread else None,
            provenance=made_from,
            approve=lambda differences: True,  # asked before
        )
    rewarded = int((made.rewards == made.rewards).sum())  # a missing one is NaN
    facts = {"clips": len(made), "quarantined": made.stats["quarantined"], "rewarded": rewarded, **Counter(made.splits)}
    if options.json:
        show_json({"folder": str(options.output.resolve()), **facts})
    else:
        show_table(str(options.output), list(facts), [list(facts.values())])


def _show_forecast(expected: PreparationEstimate, json: bool) -> None:
    if json:
        show_json(asdict(expected))
        return
    rows: list[tuple[str, Any]] = [
        ("tracks", expected.tracks),
        ("clips", expected.clips),
        ("unusable (to quarantine)", expected.unusable),
        ("by split", ", ".join(f"{name} {count}" for name, count in sorted(expected.splits.items()))),
        ("with a reward", expected.rewarded),
        ("distinct captions", expected.captions),
        ("hours of clips", f"{expected.hours:.2f}"),
        ("size", f"{expected.size / 1e9:.3f} GB of {expected.free / 1e9:.1f} GB free"),
    ]
    if expected.seconds is not None:
        pace = f"{expected.clips_per_second:.1f} clips a second, measured on {expected.measured}"
        rows.append(("time in one process", f"about {expected.seconds / 3600:.2f} h ({pace})"))
    show_table("What would be made", ("what", "how much"), rows)
    if expected.size > expected.free:
        progress_console.print("the disk is too small for it; choose another folder", highlight=False)
