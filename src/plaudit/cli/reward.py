"""`plaudit reward ...`: rewards trained, evaluated, probed and calibrated."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from plaudit.api.options import DEVICE_HELP, Device
from plaudit.cli.console import (
    ConsoleReporter,
    Json,
    complain,
    progress_console,
    result_console,
    say,
    show_json,
    show_table,
)
from plaudit.cli.options import App, options
from plaudit.settings import MOST_SEED, BothBad, Count, Settings, option

if TYPE_CHECKING:
    from plaudit.reward.cross_validation import CrossValidatedReward
    from plaudit.reward.scored_votes import ScoredVote
    from plaudit.reward.training import RewardSettings, SeededRewards
    from plaudit.reward.votes import VoteFeatures
    from plaudit.statistics import Interval
    from plaudit.types import Vote

app = App(help="Rewards: training, evaluation and calibration.", no_args_is_help=True)

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the result.")]
Features = Annotated[
    Path | None, typer.Option(help="Folder of clip features, to share between commands. Default: in the output.")
]
DeviceOption = Annotated[str, typer.Option("--device", help=DEVICE_HELP)]
RewardName = Annotated[str, typer.Argument(help="A reward by name, its folder, or FILE.py:CLASS.")]


class VoteTrainingSettings(Settings):
    """Votes, encoders and seeds of `plaudit reward train` and `ablate`."""

    votes: tuple[Path, ...] = option(
        ..., "--votes", help="Votes (.jsonl, .csv): one file, which is split, or three: --votes TRAINING --votes "
        "VALIDATION --votes TEST.",
    )  # fmt: skip
    audio: Path = option(
        ..., "--audio", help="Folder of clips, named in votes by their paths in it, or a CSV with columns id and file."
    )
    output: Path = option(..., "-o", "--output", help="Folder for the result.")
    clap: str = option("synthetic", "--clap", help="A CLAP by name, its folder, or FILE.py:NAME.")
    audio_embedder: str = option("statistics", "--audio-embedder", help="Audio encoder: name, folder, or FILE.py:NAME.")
    blocks: str | None = option(
        None, "--blocks", help="Inputs of the reward, e.g. clap_audio,audio,clap_text. Default: the preset's."
    )
    seeds: str = option("0", "--seeds", help="Seeds, e.g. 0,1,2; a single one varies by about a point.")
    preset: Literal["published", "synthetic"] | None = option(
        None, "--preset", help="TuneJury's training as published, or the synthetic world's. Default: by the encoders."
    )
    max_epochs: Count | None = option(None, "--max-epochs", help="Epochs at most. Default: the preset's.")
    features: Path | None = option(
        None, "--features", help="Folder of clip features, to share between commands. Default: in the output."
    )
    both_bad: BothBad = option("leave-out", "--both-bad", help="What becomes of votes that find both clips bad.")
    device: Device = "auto"


@app.command()
@options(VoteTrainingSettings, output=Path("reward"))
def train(
    *,
    settings: VoteTrainingSettings,
    folds: Annotated[
        int | None,
        typer.Option("--folds", min=3, help="Hold out each vote once, in so many parts, and train on all votes."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="With --folds: a reward to compare with on the same votes.")
    ] = None,
    save_anyway: Annotated[
        bool, typer.Option("--save-anyway", help="Save the reward even if it predicts votes no better than chance.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a reward on votes; of several seeds, the one with the least validation loss is saved.

    Votes are a CSV with the columns prompt, a, b and winner (a, b or tie), where a and b are audio files. A reward that
    predicts held-out votes no better than chance is not saved, and the exit code is 1. With few votes, --folds
    measures the accuracy on all of them instead of a tenth: no vote is predicted by a reward that saw its prompt.

    Example: plaudit reward train --votes votes.csv --audio music/ -o reward --seeds 0,1,2
    """
    from plaudit.errors import VoteError
    from plaudit.registry import portable_name
    from plaudit.reward.training import SeededRewards

    training, seeds, output = _reward_settings(settings), _seeds(settings.seeds), settings.output
    if folds is None and baseline is not None:
        raise VoteError("--baseline is compared with in cross-validation; give --folds too")
    if folds is not None and len(seeds) > 1:
        raise VoteError(f"--folds trains one reward on all votes; give one seed, not --seeds {settings.seeds}")
    data = _vote_features(settings, training, split=folds is None)
    result: SeededRewards | CrossValidatedReward
    if folds is None:
        result = _train_seeds(data, training, seeds)
    else:
        result = _cross_validate(settings, data, replace(training, seed=seeds[0]), folds, baseline)
    signs = result.chance_signs
    figures = {**result.to_dict(), "saved": save_anyway or not signs, "left_out": data.notes}
    if figures["saved"]:
        result.save(output, figures, portable_name(settings.clap), portable_name(settings.audio_embedder))
    if json:
        show_json(figures)
    else:
        if isinstance(result, SeededRewards):
            _show_training(result, figures["saved"])
        else:
            _show_cross_validation(result)
        if figures["saved"]:
            say(f"Reward: {output.resolve()}")
    if signs:
        finding = f"the reward predicts held-out votes no better than chance ({'; '.join(signs)})"
        if not figures["saved"]:
            older = "; the one in the folder is an earlier one" if (output / "model.safetensors").exists() else ""
            raise VoteError(f"{finding}. It is not saved{older}. Collect more votes, or save it with --save-anyway")
        complain(f"warning: {finding}")


def _train_seeds(data: VoteFeatures, training: RewardSettings, seeds: list[int]) -> SeededRewards:
    from plaudit.reward.training import fit_seeds

    with ConsoleReporter().progress("training") as advance:
        total = len(seeds) * training.max_epochs
        return fit_seeds(
            *_three(data),
            data.store,
            training,
            seeds,
            lambda seed, epoch: advance(seeds.index(seed) * training.max_epochs + epoch.epoch, total),
        )


def _cross_validate(
    settings: VoteTrainingSettings, data: VoteFeatures, training: RewardSettings, folds: int, baseline: str | None
) -> CrossValidatedReward:
    from plaudit.reward.cross_validation import cross_validated_reward

    (votes,) = data.votes
    compared = None if baseline is None else _margins_of(baseline, votes, data, settings)
    with ConsoleReporter().progress("training") as advance:
        return cross_validated_reward(votes, data.store, training, folds, baseline=compared, progress=advance)


def _margins_of(reward: str, votes: list[Vote], data: VoteFeatures, settings: VoteTrainingSettings) -> list[float]:
    """The margins of another reward on votes; VoteError where it cannot score all of them."""
    from plaudit import loading
    from plaudit.errors import VoteError
    from plaudit.reward.scored_votes import score_audio_of_votes, score_votes
    from plaudit.reward.tunejury import TuneJury

    loaded = loading.load_reward(reward, settings.device)
    if isinstance(loaded, TuneJury) and loaded.features.is_part_of(data.store.features):
        scored = score_votes(votes, loaded, data.store)
    else:
        with ConsoleReporter().progress(f"scoring clips by {reward}") as advance:
            scored = score_audio_of_votes(votes, loaded, settings.audio, advance)[0]
    if len(scored) < len(votes):
        unscored = len(votes) - len(scored)
        raise VoteError(f"--baseline {reward} cannot score the clips of {unscored} votes; leave them out")
    return [vote.score_a - vote.score_b for vote in scored]


def _show_cross_validation(result: CrossValidatedReward) -> None:
    figures = result.cross_validation
    rows: list[tuple[Any, ...]] = [("this reward", *_estimate(figures.accuracy))]
    if figures.baseline is not None:
        rows += [("the baseline", *_estimate(figures.baseline)), ("difference", *_estimate(figures.difference))]
    title = f"{figures.votes} votes that are not ties, in {figures.folds} folds"
    show_table(title, ("accuracy of", "", "95 % interval"), rows)
    say(f"calibration error (ECE) {result.metrics.calibration_error:.3f}")


def _show_training(result: SeededRewards, saved: bool) -> None:
    rows = []
    for seed, fitted in result.fitted.items():
        test, note = fitted.metrics, "saved" if saved and seed == result.best_seed else ""
        interval = "{:.3f} to {:.3f}".format(*test.accuracy_interval)
        rows.append((seed, test.accuracy, interval, test.calibration_error, fitted.validation_loss, note))
    columns = ("seed", "accuracy", "95 % interval", "ECE", "validation loss", "")
    show_table(f"{result.best.metrics.decided} test votes that are not ties", columns, rows)
    say(f"accuracy {result.accuracy.mean:.3f}, standard deviation over seeds {result.accuracy.std:.3f}")


@app.command()
@options(VoteTrainingSettings, skip=("blocks",), output=Path("reward-ablation"), seeds="0,1,2")
def ablate(*, settings: VoteTrainingSettings, json: Json = False) -> None:
    """Train without each input (A1 to A7) and without each source of votes; finished trainings are kept.

    Example: plaudit reward ablate --votes votes.jsonl --audio music/ -o ablation --seeds 0,1,2
    """
    from plaudit.reward.ablation import run_ablation
    from plaudit.storage import write_json

    training, seeds, output = _reward_settings(settings), _seeds(settings.seeds), settings.output
    data = _vote_features(settings, training)
    with ConsoleReporter().progress("training") as advance:
        result = run_ablation(*_three(data), data.store, training, seeds, output, advance)
    rows = [asdict(row) for row in result]
    write_json(output / "ablation.json", {"seeds": seeds, "left_out": data.notes, "rows": rows})
    if json:
        return show_json(rows)
    table = [
        (row.name, " ".join(row.blocks), row.votes, f"{row.accuracy.mean:.3f} ± {row.accuracy.std:.3f}",
         f"{row.calibration_error.mean:.3f} ± {row.calibration_error.std:.3f}")
        for row in result
    ]  # fmt: skip
    show_table(f"Mean ± standard deviation over {len(seeds)} seeds",
               ("condition", "inputs", "test votes", "accuracy", "ECE"), table)  # fmt: skip
    say(f"Ablation: {(output / 'ablation.json').resolve()}")


def _reward_settings(settings: VoteTrainingSettings) -> RewardSettings:
    """The settings of the preset, by default the one for the encoders; warns about another."""
    from plaudit.reward.training import REWARD_PRESETS

    blocks = None if settings.blocks is None else tuple(block.strip() for block in settings.blocks.split(","))
    fitting = _fitting_preset(settings.clap, settings.audio_embedder, blocks)
    if settings.preset not in (None, fitting):
        complain(
            f"warning: --preset {settings.preset} does not fit the encoders {settings.clap} and "
            f"{settings.audio_embedder}; --preset {fitting}, the default, does"
        )
    training = REWARD_PRESETS[settings.preset or fitting]
    if blocks is not None:
        training = replace(training, blocks=blocks)
    return training if settings.max_epochs is None else replace(training, max_epochs=settings.max_epochs)


def _fitting_preset(clap: str, audio_embedder: str, blocks: tuple[str, ...] | None) -> str:
    """The published preset for published encoders; the synthetic one, which standardizes its inputs, for all others."""
    from plaudit import loading

    published = []
    if blocks is None or any(block != "audio" for block in blocks):
        published.append(loading.CLAPS.is_folder(clap))
    if blocks is None or "audio" in blocks:
        published.append(loading.AUDIO_ENCODERS.is_folder(audio_embedder))
    return "published" if all(published) else "synthetic"


def _seeds(text: str) -> list[int]:
    from plaudit.errors import VoteError

    try:
        seeds = [int(seed) for seed in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or max(seeds) > MOST_SEED or len(set(seeds)) < len(seeds):
        raise VoteError(f"--seeds {text!r} must be different whole numbers from 0 to {MOST_SEED:,}, such as 0,1,2")
    return seeds


def _vote_features(settings: VoteTrainingSettings, training: RewardSettings, split: bool = True) -> VoteFeatures:
    from plaudit import loading
    from plaudit.reward.features import RewardFeatures
    from plaudit.reward.votes import load_training_votes

    clap = loading.load_part(loading.CLAPS, settings.clap, settings.device)
    audio = loading.load_part(loading.AUDIO_ENCODERS, settings.audio_embedder, settings.device)
    encoders = RewardFeatures(clap, audio, training.blocks, training.clap_through)
    folder = settings.features or settings.output / "features"
    with ConsoleReporter().progress("encoding clips") as advance:
        data = load_training_votes(
            list(settings.votes), settings.audio, encoders, folder, advance, settings.both_bad, split
        )
    for line in data.notes:
        complain(line)
    return data


def _three(data: VoteFeatures) -> tuple[list[Vote], list[Vote], list[Vote]]:
    training, validation, test = data.votes
    return training, validation, test


@app.command()
def evaluate(
    reward: Annotated[
        str | None,
        typer.Argument(help="A built-in or installed reward, a reward folder, or FILE.py:NAME; not with --scores."),
    ] = None,
    votes: Annotated[Path | None, typer.Option(help="Votes to predict (.jsonl, .csv).")] = None,
    audio: Annotated[Path | None, typer.Option(help="Folder of clips, or a CSV with columns id and file.")] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="Scored votes instead: CSV with system_a, system_b, winner, score_a, score_b (and source)."),
    ] = None,
    output: Output = Path("reward-evaluation"),
    features: Features = None,
    both_bad: Annotated[BothBad, typer.Option(help="What becomes of votes that find both clips bad.")] = "leave-out",
    device: DeviceOption = "auto",
    json: Json = False,
) -> None:
    """Evaluate a reward on votes: accuracy and calibration, by source and by pair of systems, with intervals.

    Votes between two clips of one system count towards accuracy but not towards comparisons of systems.

    Example: plaudit reward evaluate reward --votes held-out.jsonl --audio music/ -o evaluation
    """
    from plaudit.errors import VoteError
    from plaudit.evaluate.rewards import evaluate_votes, save_evaluation
    from plaudit.reward.scored_votes import read_scored_votes, write_scored_votes

    if scores is not None and (reward, votes, audio) == (None, None, None):
        scored = read_scored_votes(scores, both_bad=both_bad)
    elif scores is None and reward is not None and votes is not None and audio is not None:
        scored = _scored(reward, votes, audio, features or output / "features", both_bad, device)
    else:
        raise VoteError("give a reward with --votes and --audio, or --scores alone")
    evaluation = evaluate_votes(scored)
    write_scored_votes(output / "scores.csv", scored)
    save_evaluation(evaluation, output)
    if json:
        return show_json(asdict(evaluation))
    overall = evaluation.overall
    columns = ("votes", "not ties", "accuracy", "95 % interval")
    rows: list[tuple[Any, ...]] = [
        ("all", overall.votes, overall.decided, overall.accuracy, "{:.3f} to {:.3f}".format(*overall.accuracy_interval))
    ]
    named = [source for source in evaluation.sources if source.name or len(evaluation.sources) > 1]
    for group in (*named, *evaluation.pairs):
        rows.append((group.name or "(no source)", group.votes, group.decided, *_estimate(group.accuracy)))
    show_table("Accuracy", ("of", *columns), rows)
    if evaluation.systems:
        titles = ("system", "votes", "mean reward", "95 % interval", "win rate", "95 % interval")
        systems = [(s.name, s.votes, *_estimate(s.reward), *_estimate(s.win_rate)) for s in evaluation.systems]
        show_table("Systems", titles, systems)
    low, high = overall.calibration_error_interval
    say(f"calibration error (ECE) {overall.calibration_error:.3f} [{low:.3f}, {high:.3f}]")
    if evaluation.spearman is not None:
        value, interval = _estimate(evaluation.spearman)
        say(f"rank correlation of mean reward and win rate {value:.3f}, {interval}")
    if evaluation.same_system:
        say(f"{evaluation.same_system} votes are between two clips of one system: only in the accuracy")
    say(f"Evaluation: {output.resolve()}")


@app.command()
def probe(
    reward: RewardName,
    paths: Annotated[list[Path], typer.Argument(help="Audio files, or folders of them.")],
    prompt: Annotated[str, typer.Option(help="The prompt of the clips; empty for none.")] = "",
    device: DeviceOption = "auto",
    json: Json = False,
) -> None:
    """Test a reward's robustness: harmless changes (loudness, resampling) should not move it, damage should lower it.

    Example: plaudit reward probe synthetic music/
    """
    from plaudit import loading
    from plaudit.audio import list_audio_files
    from plaudit.evaluate.rewards import probe_files

    files, loaded = list_audio_files(paths), loading.load_reward(reward, device)
    with ConsoleReporter().progress("probing") as advance:
        result = probe_files(files, prompt, loaded, advance)
    if json:
        return show_json(asdict(result))
    rows: list[tuple[Any, ...]] = [
        (row.name, row.expected, row.clips, *_estimate(row.change), "-" if row.moved is None else row.moved,
         {True: "yes", False: "NO", None: ""}[row.passed])
        for row in result.rows
    ]  # fmt: skip
    rows.append(("silence", "refused", "", "", "", "", "yes" if result.silence_refused else "NO"))
    columns = ("change", "should", "clips", "mean change", "95 % interval", "mean |change|", "as it should")
    show_table(f"{result.clips} clips; changes in standard deviations of the reward ({result.deviation:.3f})",
               columns, rows)  # fmt: skip
    for line in result.skipped:
        complain(f"left out: {line}")


def _scored(reward: str, votes: Path, audio: Path, folder: Path, both_bad: BothBad, device: str) -> list[ScoredVote]:
    """The votes with the reward's scores: of a TuneJury from stored features, of any other reward from the audio."""
    from plaudit import loading
    from plaudit.reward.scored_votes import score_audio_of_votes, score_votes
    from plaudit.reward.tunejury import TuneJury
    from plaudit.reward.votes import extract_vote_features, read_votes

    loaded, read = loading.load_reward(reward, device), read_votes(votes, both_bad)
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


@app.command()
def calibrate(
    votes: Annotated[Path, typer.Argument(help="CSV: system_a, system_b, winner, score_a, score_b (or tj_a, tj_b).")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="JSON file for the biases.")] = None,
    anchor: Annotated[
        str | None, typer.Option("--anchor-system", help="System whose scores are trusted; its bias is 0.")
    ] = None,
    count: Annotated[int | None, typer.Option("--votes", min=0, help="Number of votes to use. Default: all.")] = None,
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
    """Fit one bias per system to votes, for a reward applied to systems it was not trained on.

    Example: plaudit reward calibrate votes.csv --anchor-system sonauto-v2-2 -o calibration.json
    """
    from plaudit.reward.calibration import fit_calibration, save_calibration
    from plaudit.reward.scored_votes import read_scored_votes, vote_warnings

    scored = read_scored_votes(votes, ids)
    if study is not None:
        return _study(scored, study, anchor, sizes, seeds, test, json)
    used = scored[:count] if count is not None else scored
    calibration = fit_calibration(used, anchor)
    systems = [system for vote in used for system in (vote.system_a, vote.system_b)]
    if anchor is not None and anchor not in systems:
        progress_console.print(f"no vote is of {anchor}, so no system is the anchor", highlight=False)
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
    scored: list[ScoredVote], order_file: Path, anchor: str | None, sizes: str, seeds: int, test: int, json: bool
) -> None:
    from plaudit.errors import VoteError
    from plaudit.evaluate.rewards import calibration_study
    from plaudit.storage import read_json

    order = read_json(order_file)
    names = order.get("new_uuids") if isinstance(order, dict) else order
    if not isinstance(names, list):
        raise VoteError(f"{order_file} holds no list of vote ids (new_uuids); check the file")
    try:
        counts = [int(size) for size in sizes.split(",")]
    except ValueError:
        raise VoteError(f"--sizes takes whole numbers with commas, not {sizes!r}") from None
    by_id = {vote.id: vote for vote in scored if vote.target != 0.5}
    both = [by_id[name] for name in names if name in by_id]
    rows = calibration_study(both, anchor, counts, range(seeds), test)
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
