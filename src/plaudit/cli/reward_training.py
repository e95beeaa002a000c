"""`plaudit reward train|ablate`: rewards from votes."""

from __future__ import annotations

from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plaudit.cli.console import ConsoleReporter, complain, say, show_json, show_table

if TYPE_CHECKING:
    from plaudit.reward.features import RewardFeatures
    from plaudit.reward.training import RewardSettings, SeededRewards
    from plaudit.reward.votes import VoteFeatures
    from plaudit.types import Vote


class Preset(StrEnum):
    """Settings of a training: TuneJury's, or the synthetic world's."""

    published = "published"
    synthetic = "synthetic"


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
PresetOption = Annotated[
    Preset | None,
    typer.Option(help="TuneJury's published settings, or the synthetic world's. Default: what fits the encoders."),
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Most epochs of a training. Default: the preset's.")]
Features = Annotated[
    Path | None, typer.Option(help="Folder of clip features, to share between commands. Default: in the output.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def add_to(app: typer.Typer) -> None:
    """Register these commands in the group `plaudit reward`."""
    app.command()(train)
    app.command()(ablate)


def train(
    votes: Votes,
    audio: Audio,
    output: Output = Path("reward"),
    clap: Clap = "synthetic",
    audio_embedder: Listener = "statistics",
    blocks: Blocks = None,
    seeds: Seeds = "0",
    preset: PresetOption = None,
    max_epochs: Epochs = None,
    features: Features = None,
    save_anyway: Annotated[
        bool, typer.Option("--save-anyway", help="Save the reward even if it predicts votes no better than chance.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a reward on votes; of several seeds, the one with the least validation loss is saved.

    Votes are a CSV with the columns prompt, a, b and winner (a, b or tie), where a and b are audio files. A reward that
    predicts held-out votes no better than chance is not saved, and the exit code is 1.

    Example: plaudit reward train --votes votes.csv --audio music/ -o reward --seeds 0,1,2
    """
    from plaudit.errors import VoteError
    from plaudit.reward.training import fit_seeds
    from plaudit.reward.tunejury import save_reward
    from plaudit.storage import write_json

    settings, numbers = _settings(preset, clap, audio_embedder, blocks, max_epochs), _numbers(seeds)
    encoders = _encoders(clap, audio_embedder, settings.blocks)
    data = _vote_features(votes, audio, encoders, features or output / "features")
    with ConsoleReporter().progress("training") as advance:
        total = len(numbers) * settings.max_epochs
        made = fit_seeds(
            *_three(data),
            data.store,
            settings,
            numbers,
            lambda seed, epoch: advance(numbers.index(seed) * settings.max_epochs + epoch.epoch, total),
        )
    signs = made.best.chance_signs
    figures: dict[str, Any] = {
        "best_seed": made.best_seed,
        "better_than_chance": not signs,
        "saved": save_anyway or not signs,
        "accuracy": asdict(made.accuracy),
        "calibration_error": asdict(made.calibration_error),
        "left_out": data.notes,
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
    if figures["saved"]:
        shown = ("best_seed", "accuracy", "calibration_error", "better_than_chance")
        made.best.reward.facts["seeds"] = {key: figures[key] for key in shown}
        write_json(output / "training.json", figures)
        save_reward(made.best.reward, output)
    if json:
        show_json(figures)
    else:
        _show_training(made, figures["saved"])
        if figures["saved"]:
            say(f"Reward: {output.resolve()}")
    if signs:
        found = f"the reward predicts held-out votes no better than chance ({'; '.join(signs)})"
        if not figures["saved"]:
            left = "; the one in the folder is an earlier one" if (output / "model.safetensors").exists() else ""
            raise VoteError(f"{found}. It is not saved{left}. Collect more votes, or save it with --save-anyway")
        complain(f"warning: {found}")


def _show_training(made: SeededRewards, saved: bool) -> None:
    rows = []
    for seed, fitted in made.fitted.items():
        test, kept = fitted.metrics, "saved" if saved and seed == made.best_seed else ""
        interval = "{:.3f} to {:.3f}".format(*test.accuracy_interval)
        rows.append((seed, test.accuracy, interval, test.calibration_error, fitted.validation_loss, kept))
    columns = ("seed", "accuracy", "95 % interval", "ECE", "validation loss", "")
    show_table(f"{made.best.metrics.decided} test votes that are not ties", columns, rows)
    say(f"accuracy {made.accuracy.mean:.3f}, standard deviation over seeds {made.accuracy.std:.3f}")


def ablate(
    votes: Votes,
    audio: Audio,
    output: Output = Path("reward-ablation"),
    clap: Clap = "synthetic",
    audio_embedder: Listener = "statistics",
    seeds: Seeds = "0,1,2",
    preset: PresetOption = None,
    max_epochs: Epochs = None,
    features: Features = None,
    json: Json = False,
) -> None:
    """Train without each input (A1 to A7) and without each source of votes; what is done is not done again.

    Example: plaudit reward ablate --votes votes.jsonl --audio music/ -o ablation --seeds 0,1,2
    """
    from plaudit.reward.training import ablate as train_all
    from plaudit.storage import write_json

    settings, numbers = _settings(preset, clap, audio_embedder, None, max_epochs), _numbers(seeds)
    encoders = _encoders(clap, audio_embedder, settings.blocks)
    data = _vote_features(votes, audio, encoders, features or output / "features")
    with ConsoleReporter().progress("training") as advance:
        made = train_all(*_three(data), data.store, settings, numbers, output, advance)
    rows = [asdict(row) for row in made]
    write_json(output / "ablation.json", {"seeds": numbers, "left_out": data.notes, "rows": rows})
    if json:
        return show_json(rows)
    table = [
        (row.name, " ".join(row.blocks), row.votes, f"{row.accuracy.mean:.3f} ± {row.accuracy.std:.3f}",
         f"{row.calibration_error.mean:.3f} ± {row.calibration_error.std:.3f}")
        for row in made
    ]  # fmt: skip
    show_table(f"Mean ± standard deviation over {len(numbers)} seeds",
               ("condition", "inputs", "test votes", "accuracy", "ECE"), table)  # fmt: skip
    say(f"Ablation: {(output / 'ablation.json').resolve()}")


def _settings(
    preset: Preset | None, clap: str, audio_embedder: str, blocks: str | None, max_epochs: int | None
) -> RewardSettings:
    """The settings of the preset, by default of the one that fits the encoders; a warning for another."""
    from plaudit.reward.training import REWARD_PRESETS

    names = None if blocks is None else tuple(block.strip() for block in blocks.split(","))
    fitting = _fitting_preset(clap, audio_embedder, names)
    if preset not in (None, fitting):
        complain(
            f"warning: --preset {preset} does not fit the encoders {clap} and {audio_embedder}; "
            f"--preset {fitting}, the default, does"
        )
    settings = REWARD_PRESETS[(preset or fitting).value]
    if names is not None:
        settings = replace(settings, blocks=names)
    return settings if max_epochs is None else replace(settings, max_epochs=max_epochs)


def _fitting_preset(clap: str, audio_embedder: str, blocks: tuple[str, ...] | None) -> Preset:
    """The published preset for published encoders; the synthetic one, which standardizes its inputs, for all others."""
    from plaudit import loading

    used = []
    if blocks is None or any(block != "audio" for block in blocks):
        used.append(loading.CLAPS.is_folder(clap))
    if blocks is None or "audio" in blocks:
        used.append(loading.AUDIO_ENCODERS.is_folder(audio_embedder))
    return Preset.published if all(used) else Preset.synthetic


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
    from plaudit import loading
    from plaudit.reward.features import RewardFeatures

    return RewardFeatures(loading.CLAPS.load(clap), loading.AUDIO_ENCODERS.load(audio_embedder), blocks)


def _vote_features(files: list[Path], audio: Path, encoders: RewardFeatures, folder: Path) -> VoteFeatures:
    from plaudit.reward.votes import load_training_votes

    with ConsoleReporter().progress("encoding clips") as advance:
        data = load_training_votes(files, audio, encoders, folder, advance)
    for line in data.notes:
        complain(line)
    return data


def _three(data: VoteFeatures) -> tuple[list[Vote], list[Vote], list[Vote]]:
    training, validation, test = data.votes
    return training, validation, test
