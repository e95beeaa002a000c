"""`plaudit prepare`: data sets of audio and captions to shard sets."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plaudit.api.options import Device, Engine, RayAddress
from plaudit.cli.console import ConsoleReporter, agreed, complain, progress_console, say, show_json, show_table
from plaudit.cli.options import App, options
from plaudit.settings import Count, CountOrZero, Duplicates, Peak, Place, Seconds, Settings, option

if TYPE_CHECKING:
    from plaudit.corpus.estimate import PreparationEstimate
    from plaudit.corpus.layouts import Listing
    from plaudit.corpus.manifest import ListedCorpus
    from plaudit.corpus.shard_set import ShardProvenance
    from plaudit.corpus.shards import ShardEncoder

app = App(help="Encode audio with captions to a shard set: latents, caption features, rewards.", no_args_is_help=True)

Audio = Annotated[Path, typer.Argument(help="Folder of the audio.")]
Rewards = Annotated[Path | None, typer.Option(help="CSV of scores by track: track_id, reward_score.")]
RewardColumn = Annotated[str, typer.Option(help="Column of the scores; the paper's is instrumental_reward_score.")]
Licences = Annotated[
    Path | None, typer.Option(help="Licences: MTG-Jamendo's audio_licenses.txt, or a CSV of track_id, licence.")
]
Share = Annotated[float, typer.Option(min=0, max=1, help="Fraction of the tracks in this split.")]


class EncodingSettings(Settings):
    """Settings shared by all data sets, without the folder of the result."""

    seconds: Seconds = option(10.0, "--seconds", ge=0.1, help="Length of a clip.")
    clips_per_track: CountOrZero | None = option(
        None, "--clips-per-track", help="Maximum; 0 for as many as fit. Default: 10; song-describer: 1."
    )
    place: Place = option("spread", "--place", help="Where in a track clips are.")
    peak: Peak | None = option(
        None, "--peak", help="Scale each file as a whole to this peak before it is cut; 0.95 was published."
    )
    duplicates: Duplicates = option(
        "together", "--duplicates", help="Files with the same content: in one split, only the first, or as they come."
    )
    codec: str = option("synthetic", "--codec", help="A codec by name, its folder, or FILE.py:NAME.")
    text_encoder: str = option("synthetic", "--text-encoder", help="A text encoder: a name, a folder, or FILE.py:NAME.")
    shard_size: Count = option(512, "--shard-size", help="Clips of a shard.")
    batch: Count = option(16, "--batch", help="Clips encoded at once.")
    separate: CountOrZero = option(
        0, "--separate", help="Passes of source separation that remove vocals; _instrumental files are skipped."
    )
    separator: str = option("mdx_extra", "--separator", help="A demucs model or a folder of one.")
    device: Device = "auto"
    engine: Engine = "local"
    ray_address: RayAddress = None
    workers: Count | None = option(None, "--workers", help="Of --engine ray. Default: as many as fit.")
    dry_run: bool = option(False, "--dry-run", help="Only print the size of the result and the time it would take.")
    yes: bool = option(False, "--yes", help="Replace shards of other settings without asking.")
    json_output: bool = option(False, "--json", help="Print the result as JSON.")


class PrepareSettings(EncodingSettings):
    """Settings shared by all data sets."""

    output: Path = option(..., "-o", "--output", help="Folder of the shard set.")


@app.command()
@options(PrepareSettings)
def jamendo(
    audio: Audio,
    captions: Annotated[Path, typer.Option(help='JSON: a list of {"path", "caption"}.')],
    settings: PrepareSettings,
    rewards: Rewards = None,
    reward_column: RewardColumn = "reward_score",
    licences: Licences = None,
    validation: Share = 0.05,
    test: Share = 0.05,
) -> None:
    """MTG-Jamendo as distributed: folder/id.mp3, or folder/id_instrumental.mp3 with vocals removed.

    Finished shards are kept: the same command continues after an interruption.

    Example: plaudit prepare jamendo mtg-jamendo/ --captions captions.json --rewards scores.csv -o shards
    """
    from plaudit.corpus.layouts import list_jamendo

    listing = list_jamendo(audio.absolute(), captions, rewards, validation, test, reward_column, licences)
    _prepare(listing, settings, _source("jamendo", audio, captions))


@app.command()
@options(EncodingSettings)
def song_describer(
    audio: Audio,
    settings: EncodingSettings,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder of the shard set.")] = None,
    captions: Annotated[Path | None, typer.Option(help="Default: song_describer.csv in the folder.")] = None,
    rewards: Rewards = None,
    reward_column: RewardColumn = "reward_score",
    licences: Licences = None,
    prompts: Annotated[Path | None, typer.Option(help="Write captions, each of another track, as a CSV here.")] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=2, help="Number of --prompts.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of --prompts.")] = 0,
    reference: Annotated[Path | None, typer.Option(help="Write the tracks' embeddings as a reference here.")] = None,
    clap: Annotated[str, typer.Option(help="CLAP of --reference: a name, folder, or FILE.py:NAME.")] = "synthetic",
) -> None:
    """The Song Describer Dataset, an evaluation set: all of it is the test split.

    With --prompts and --reference, what a recipe's `evaluate.prompt_file` and `evaluate.reference` take.

    Example: plaudit prepare song-describer sdd/ --prompts prompts.csv --reference sdd.safetensors --clap clap-music
    """
    from plaudit.corpus.evaluation_prompts import draw_prompts
    from plaudit.corpus.layouts import list_song_describer
    from plaudit.tables import write_table

    if output is None and prompts is None and reference is None:
        raise typer.BadParameter("give --output, --prompts or --reference, or there is nothing to write")
    listing = list_song_describer(audio.absolute(), captions, rewards, reward_column, licences)
    if prompts is not None:
        write_table(prompts, ("id", "prompt"), enumerate(draw_prompts(listing.entries, count, seed)))
        say(f"Prompts: {prompts.resolve()}")
    if reference is not None:
        files = sorted({entry.path for entry in listing.entries if entry.path is not None and not entry.problem})
        _write_reference(files, str(audio), reference, clap, settings.device)
    if output is not None:
        encoding = PrepareSettings(**settings.model_dump(), output=output)
        _prepare(listing, encoding, _source("song-describer", audio, captions), clips_per_track=1)


def _write_reference(files: list[Path], source: str, reference: Path, clap: str, device: str) -> None:
    from plaudit import loading
    from plaudit.evaluate.embeddings import AudioEncoder, embed_reference_files, export_references

    encoder = AudioEncoder(clap, loading.CLAPS.identity(clap), loading.load_part(loading.CLAPS, clap, device))
    with ConsoleReporter().progress("reference") as advance:
        references, notes, _ = embed_reference_files(files, source, [encoder], None, advance)
    for note in notes:
        complain(note)
    export_references(reference, references, with_embeddings=True)
    say(f"Reference of {references[0].clips} tracks: {reference.resolve()}")


@app.command()
@options(PrepareSettings)
def folder(
    audio: Audio,
    captions: Annotated[Path, typer.Option(help="CSV with the columns file and caption.")],
    settings: PrepareSettings,
    rewards: Rewards = None,
    reward_column: Annotated[
        str | None, typer.Option(help="Column of the rewards, in the CSV of scores, or else of captions.")
    ] = None,
    licence_column: Annotated[str | None, typer.Option(help="Column of the captions' CSV with licences.")] = None,
    file_column: Annotated[str, typer.Option(help="Column of the files.")] = "file",
    caption_column: Annotated[str, typer.Option(help="Column of the captions.")] = "caption",
    validation: Share = 0.05,
    test: Share = 0.05,
) -> None:
    """A folder of audio and a CSV of captions; clips with equal captions are in the same split.

    Example: plaudit prepare folder music/ --captions music/captions.csv -o shards
    """
    from plaudit.corpus.layouts import list_folder

    columns = {"file_column": file_column, "caption_column": caption_column, "reward_column": reward_column}
    columns["licence_column"] = licence_column
    table = captions.absolute() if captions.is_file() else captions  # else a name inside the folder
    listing = list_folder(audio.absolute(), table, score_table=rewards, validation=validation, test=test, **columns)
    _prepare(listing, settings, _source("folder", audio, table))


@app.command()
@options(PrepareSettings)
def layout(
    name: Annotated[str, typer.Argument(help="An installed layout, or path/to/file.py:NAME.")],
    audio: Audio,
    settings: PrepareSettings,
    set: Annotated[list[str] | None, typer.Option("--set", help="An argument of the layout, as key=value.")] = None,
) -> None:
    """A data set read by a layout: a Python function that lists the recordings in a folder.

    Example: plaudit prepare layout examples/corpus_layout.py:list_albums music/ --set test=0.1 -o shards
    """
    from plaudit.corpus.sources import LayoutOptions, list_layout
    from plaudit.registry import absolute_name
    from plaudit.settings import validated, with_changes

    changes = with_changes({}, [f"options.{change}" for change in set or []], name)
    arguments = validated(LayoutOptions, {"options": {}, **changes}, name).options
    source = {**_source(absolute_name(name), audio, None), **{key: str(value) for key, value in arguments.items()}}
    _prepare(list_layout(name, audio.absolute(), arguments), settings, source)


def _source(data_set: str, audio: Path, captions: Path | None) -> dict[str, str]:
    """The identity of a data set."""
    files = {"audio": audio.resolve(), "captions": None if captions is None else captions.resolve()}
    if captions is not None and not captions.exists():  # a name inside the folder
        files["captions"] = (audio / captions).resolve()
    return {"data set": data_set, **{name: str(path) for name, path in files.items() if path is not None}}


def _prepare(listing: Listing, settings: PrepareSettings, source: dict[str, str], clips_per_track: int = 10) -> None:
    """Measure the files, cut them into clips and encode these, or only estimate the cost."""
    from plaudit.corpus.clips import ClipSettings, cut_clips, cutting_notes, measure_durations
    from plaudit.corpus.duplicates import deduplicate
    from plaudit.corpus.estimate import estimate_preparation
    from plaudit.corpus.manifest import ListedCorpus
    from plaudit.corpus.shard_set import ShardProvenance, check_claim
    from plaudit.encoders.truncation import truncation_note
    from plaudit.generate.settings import SeparationSettings
    from plaudit.ray_engine import build_shard_encoder
    from plaudit.registry import portable_name
    from plaudit.settings import validated

    count = clips_per_track if settings.clips_per_track is None else settings.clips_per_track
    values = {"seconds": settings.seconds, "per_track": count, "place": settings.place, "peak": settings.peak}
    cutting = validated(ClipSettings, values, "clips")
    provenance = ShardProvenance(source, _shard_settings(settings, count))
    approve = partial(agreed, settings.yes)
    if not settings.dry_run:
        check_claim(settings.output, provenance, approve)  # before the files are surveyed
    with ConsoleReporter().progress("surveying") as advance:
        unique = deduplicate(listing.entries, settings.duplicates)
        durations = measure_durations(unique.entries, advance)
    corpus = ListedCorpus(listing.name, cut_clips(unique.entries, durations, cutting))
    cut = cutting_notes(corpus.listed, durations, cutting, "--clips-per-track")
    for note in [*listing.notes, *unique.notes, *cut]:
        complain(note)
    names = (portable_name(settings.codec), portable_name(settings.text_encoder))
    separation = SeparationSettings(passes=settings.separate, model=portable_name(settings.separator))
    build = partial(build_shard_encoder, *names, settings.seconds, settings.batch, settings.device, separation)
    maker = build()
    if truncation := truncation_note(maker.text_encoder, (clip.caption for clip in corpus.listed), "captions"):
        complain(truncation)
    if settings.dry_run:
        expected = estimate_preparation(corpus.listed, maker, settings.output)
        _show_forecast(expected, unique.copies, settings.json_output)
    else:
        _encode(corpus, maker, build, settings, provenance, unique.copies)


def _shard_settings(settings: PrepareSettings, clips_per_track: int) -> dict[str, Any]:
    """Options that every shard depends on."""
    names = ("seconds", "place", "codec", "text_encoder", "shard_size", "batch", "separate")
    values = {name: getattr(settings, name) for name in names} | {"clips_per_track": clips_per_track}
    if settings.separate:
        values["separator"] = settings.separator
    if settings.peak is not None:
        values["peak"] = settings.peak
    if settings.duplicates != "together":
        values["duplicates"] = settings.duplicates
    return {f"--{name.replace('_', '-')}": value for name, value in values.items()}


def _encode(
    corpus: ListedCorpus,
    maker: ShardEncoder,
    build: Callable[[], ShardEncoder],
    settings: PrepareSettings,
    provenance: ShardProvenance,
    duplicates: int,
) -> None:
    from collections import Counter

    from plaudit.corpus.shards import encode_corpus
    from plaudit.ray_engine import Cluster, connected, ray_engine

    distributed = settings.engine == "ray"
    cluster = Cluster(settings.ray_address, settings.workers, device=settings.device)
    together = connected(cluster.address) if distributed else nullcontext()  # clips and captions in one session
    with together, ConsoleReporter().progress("encoding") as advance:
        shards = encode_corpus(
            corpus,
            maker.codec,
            maker.text_encoder,
            settings.output,
            settings.seconds,
            settings.shard_size,
            settings.batch,
            advance,
            preprocessing=maker.preprocessing,
            engine=ray_engine(build, cluster) if distributed else None,
            provenance=provenance,
            approve=lambda differences: True,  # approved before
        )
    rewarded = int((shards.rewards == shards.rewards).sum())  # a missing one is NaN
    facts = {
        "clips": len(shards),
        "quarantined": shards.stats["quarantined"],
        "rewarded": rewarded,
        "duplicate_files": duplicates,
        **Counter(shards.splits),
    }
    licences = {"licences": shards.stats["licences"]} if "licences" in shards.stats else {}
    if settings.json_output:
        show_json({"folder": str(settings.output.resolve()), **facts, **licences})
    else:
        show_table(str(settings.output), list(facts), [list(facts.values())])
        if licences:
            show_table("Clips by licence", ("licence", "clips"), list(licences["licences"].items()))


def _show_forecast(expected: PreparationEstimate, duplicates: int, json: bool) -> None:
    if json:
        show_json(asdict(expected) | {"duplicate_files": duplicates})
        return
    rows: list[tuple[str, Any]] = [
        ("tracks", expected.tracks),
        ("clips", expected.clips),
        ("unusable (to quarantine)", expected.unusable),
        ("by split", ", ".join(f"{name} {count}" for name, count in sorted(expected.splits.items()))),
        ("with a reward", expected.rewarded),
        ("duplicate files", duplicates),
        ("distinct captions", expected.captions),
        ("hours of clips", f"{expected.hours:.2f}"),
        ("size", f"{expected.size / 1e9:.3f} GB of {expected.free / 1e9:.1f} GB free"),
    ]
    if expected.seconds is not None:
        pace = f"{expected.clips_per_second:.1f} clips a second, measured on {expected.measured}"
        rows.append(("time in one process", f"about {expected.seconds / 3600:.2f} h ({pace})"))
    show_table("Estimate", ("what", "how much"), rows)
    if expected.size > expected.free:
        progress_console.print("the disk is too small for it; choose another folder", highlight=False)
