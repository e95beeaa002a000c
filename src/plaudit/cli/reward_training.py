"""`plaudit reward train|evaluate|ablate|probe`: rewards from votes, and how far to trust them."""

from __future__ import annotations

from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plaudit.cli.console import ConsoleReporter, progress_console, result_console, show_json, show_table

if TYPE_CHECKING:
    from plaudit.evaluate.statistics import Interval
    from plaudit.reward.features import RewardFeatures
    from plaudit.reward.inputs import HeardVotes
    from plaudit.reward.training import RewardSettings
    from plaudit.types import Vote


class Preset(StrEnum):
    """Settings of a training: TuneJury's, or the embedded world's."""

    published = "published"
    embedded = "embedded"


Votes = Annotated[
    list[Path], typer.Option("--votes", help="Votes (.jsonl, .csv): one file, which is split, or three: "
                             "--votes TRAINING --votes VALIDATION --votes TEST.")
]  # fmt: skip
Audio = Annotated[
    Path, typer.Option(help="Folder whose clips are called by their paths in it, or a CSV with columns id and file.")
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the result.")]
Clap = Annotated[str, typer.Option(help="A known CLAP, its folder, or one of your models.")]
Listener = Annotated[str, typer.Option("--audio-embedder", help="A known audio embedder, its folder, or a model.")]
Blocks = Annotated[
    str | None, typer.Option(help="What the reward sees, e.g. clap_audio,audio,clap_text. Default: the preset's.")
]
Seeds = Annotated[str, typer.Option(help="Seeds, e.g. 0,1,2; a single one varies by about a point.")]
PresetOption = Annotated[Preset, typer.Option(help="TuneJury's published settings, or the embedded world's.")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Most epochs of a training. Default: the preset's.")]
Features = Annotated[
    Path | None, typer.Option(help="Folder of clip features, to share between commands. Default: in the output.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def add_to(app: typer.Typer) -> None:
    """Register these commands in the group `plaudit reward`."""
    app.command()(train)
    app.command()(evaluate)
    app.command()(ablate)
    app.command()(probe)


def train(
    votes: Votes,
    audio: Audio,
    output: Output = Path("reward"),
    clap: Clap = "embedded",
    audio_embedder: Listener = "statistics",
    blocks: Blocks = None,
    seeds: Seeds = "0",
    preset: PresetOption = Preset.published,
    max_epochs: Epochs = None,
    features: Features = None,
    json: Json = False,
) -> None:
    """Train a reward on votes; of several seeds, the one that validation prefers is saved.

    Example: plaudit reward train --votes votes.jsonl --audio music/ -o reward --seeds 0,1,2
    """
    from plaudit.assets import write_json
    from plaudit.reward.inputs import training_votes
    from plaudit.reward.scorer import save_reward
    from plaudit.reward.seeds import fit_seeds

    settings, numbers = _settings(preset, blocks, max_epochs), _numbers(seeds)
    encoders = _encoders(clap, audio_embedder, settings.blocks)
    heard = _hear(training_votes(votes), audio, encoders, features or output / "features")
    with ConsoleReporter().progress("training") as advance:
        total = len(numbers) * settings.max_epochs
        made = fit_seeds(
            *_three(heard),
            heard.store,
            settings,
            numbers,
            lambda seed, epoch: advance(numbers.index(seed) * settings.max_epochs + epoch.epoch, total),
        )
    figures: dict[str, Any] = {
        "best_seed": made.best_seed,
        "accuracy": asdict(made.accuracy),
        "calibration_error": asdict(made.calibration_error),
        "left_out": heard.told,
        "seeds": {
            str(seed): {
                "validation_loss": fitted.validation_loss,
                "best_epoch": fitted.history.best_epoch,
                "epochs": [asdict(epoch) for epoch in fitted.history.epochs],
                "test": asdict(fitted.metrics),
            }
            for seed, fitted in made.fitted.items()
        },
    }
    made.best.jury.facts["seeds"] = {key: figures[key] for key in ("best_seed", "accuracy", "calibration_error")}
    write_json(output / "training.json", figures)
    save_reward(made.best.jury, output)
    if json:
        return show_json(figures)
    rows = []
    for seed, fitted in made.fitted.items():
        test, kept = fitted.metrics, "saved" if seed == made.best_seed else ""
        interval = "{:.3f} to {:.3f}".format(*test.accuracy_interval)
        rows.append((seed, test.accuracy, interval, test.calibration_error, fitted.validation_loss, kept))
    columns = ("seed", "accuracy", "95 % interval", "ECE", "validation loss", "")
    show_table(f"{made.best.metrics.decided} test votes that are not ties", columns, rows)
    _say(f"accuracy {made.accuracy.mean:.3f}, standard deviation over seeds {made.accuracy.std:.3f}")
    _say(f"Reward: {output.resolve()}")


def evaluate(
    reward: Annotated[str | None, typer.Argument(help="A known reward or a reward folder; not with --scores.")] = None,
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
    from plaudit.evaluate.reward_votes import evaluate_votes, save_evaluation
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
    for group in (*found.sources, *found.pairs):
        rows.append((group.name or "(no source)", group.votes, group.decided, *_estimate(group.accuracy)))
    show_table("Accuracy", ("of", *columns), rows)
    if found.systems:
        titles = ("system", "votes", "mean reward", "95 % interval", "win rate", "95 % interval")
        systems = [(s.name, s.votes, *_estimate(s.reward), *_estimate(s.win_rate)) for s in found.systems]
        show_table("Systems", titles, systems)
    low, high = overall.calibration_error_interval
    _say(f"calibration error (ECE) {overall.calibration_error:.3f} [{low:.3f}, {high:.3f}]")
    if found.spearman is not None:
        value, interval = _estimate(found.spearman)
        _say(f"rank correlation of mean reward and win rate {value:.3f}, {interval}")
    if found.same_system:
        _say(f"{found.same_system} votes are between two clips of one system: in the accuracy, in no pair of systems")
    _say(f"Evaluation: {output.resolve()}")


def ablate(
    votes: Votes,
    audio: Audio,
    output: Output = Path("reward-ablation"),
    clap: Clap = "embedded",
    audio_embedder: Listener = "statistics",
    seeds: Seeds = "0,1,2",
    preset: PresetOption = Preset.published,
    max_epochs: Epochs = None,
    features: Features = None,
    json: Json = False,
) -> None:
    """Train without each input (A1 to A7) and without each source of votes; what is done is not done again.

    Example: plaudit reward ablate --votes votes.jsonl --audio music/ -o ablation --seeds 0,1,2
    """
    from plaudit.assets import write_json
    from plaudit.reward.ablation import ablate as train_all
    from plaudit.reward.inputs import training_votes

    settings, numbers = _settings(preset, None, max_epochs), _numbers(seeds)
    encoders = _encoders(clap, audio_embedder, settings.blocks)
    heard = _hear(training_votes(votes), audio, encoders, features or output / "features")
    with ConsoleReporter().progress("training") as advance:
        made = train_all(*_three(heard), heard.store, settings, numbers, output, advance)
    rows = [asdict(row) for row in made]
    write_json(output / "ablation.json", {"seeds": numbers, "left_out": heard.told, "rows": rows})
    if json:
        return show_json(rows)
    table = [
        (row.name, " ".join(row.blocks), row.votes, f"{row.accuracy.mean:.3f} ± {row.accuracy.std:.3f}",
         f"{row.calibration_error.mean:.3f} ± {row.calibration_error.std:.3f}")
        for row in made
    ]  # fmt: skip
    show_table(f"Mean ± standard deviation over {len(numbers)} seeds",
               ("condition", "inputs", "test votes", "accuracy", "ECE"), table)  # fmt: skip
    _say(f"Ablation: {(output / 'ablation.json').resolve()}")


def probe(
    reward: Annotated[str, typer.Argument(help="A known reward or a reward folder.")],
    paths: Annotated[list[Path], typer.Argument(help="Audio files, or folders of them.")],
    prompt: Annotated[str, typer.Option(help="What was asked for; empty means no prompt.")] = "",
    json: Json = False,
) -> None:
    """See what moves a reward: changes that should not (loudness, resampling), and damage that should.

    Example: plaudit reward probe embedded music/
    """
    from plaudit import hub
    from plaudit.audio import audio_files
    from plaudit.evaluate.reward_probes import probe_files

    files, jury = audio_files(paths), hub.load_reward_model(reward)
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
        _warn(f"left out: {line}")


def _settings(preset: Preset, blocks: str | None, max_epochs: int | None) -> RewardSettings:
    from plaudit.reward.training import PRESETS

    settings = PRESETS[preset.value]
    if blocks is not None:
        settings = replace(settings, blocks=tuple(block.strip() for block in blocks.split(",")))
    return settings if max_epochs is None else replace(settings, max_epochs=max_epochs)


def _numbers(seeds: str) -> list[int]:
    from plaudit.errors import VoteError
    from plaudit.settings import MOST_SEED

    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0 or max(numbers) > MOST_SEED or len(set(numbers)) < len(numbers):
        raise VoteError(f"--seeds {seeds!r} must be different whole numbers from 0 to {MOST_SEED:,}, such as 0,1,2")
    return numbers


def _encoders(clap: str, audio_embedder: str, blocks: tuple[str, ...]) -> RewardFeatures:
    from plaudit import hub
    from plaudit.reward.features import RewardFeatures

    return RewardFeatures(hub.build(hub.CLAPS, clap), hub.build(hub.AUDIO_EMBEDDERS, audio_embedder), blocks)


def _hear(parts: list[list[Vote]], audio: Path, encoders: RewardFeatures, folder: Path) -> HeardVotes:
    from plaudit.reward.inputs import hear_votes

    with ConsoleReporter().progress("hearing") as advance:
        heard = hear_votes(parts, audio, encoders, folder, advance)
    for line in heard.told:
        _warn(line)
    return heard


def _three(heard: HeardVotes) -> tuple[list[Vote], list[Vote], list[Vote]]:
    training, validation, test = heard.votes
    return training, validation, test


def _scored(reward: str, votes: Path, audio: Path, folder: Path) -> Any:
    from plaudit import hub
    from plaudit.reward.scored_votes import score_votes
    from plaudit.reward.votes import read_votes

    jury, read = hub.load_tunejury(reward), read_votes(votes)
    heard = _hear([read], audio, jury.features, folder)
    return score_votes(heard.votes[0], jury, heard.store)


def _estimate(interval: Interval | None) -> tuple[float | str, str]:
    return ("-", "") if interval is None else (interval.mean, f"{interval.low:.3f} to {interval.high:.3f}")


def _say(line: str) -> None:
    result_console.print(line, soft_wrap=True, highlight=False)


def _warn(line: str) -> None:
    progress_console.print(line, soft_wrap=True, highlight=False, markup=False)
