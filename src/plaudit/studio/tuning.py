"""From votes to a model: jobs that train a reward on a test's votes, and that tune a model with it.

`train-reward` trains TuneJury's head on votes of tests, or trains a reward further on them, and reports its accuracy in
cross-validation beside how often listeners agree. `tune` is a run of a recipe in the studio's runs: it shows its
progress, stops where it is cancelled, and goes on where it was when it is retried or the studio was killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from plaudit.errors import VoteError
from plaudit.places import SHIPPED_REWARDS
from plaudit.studio import catalogue
from plaudit.studio.database import Clip, RewardModel, Test, by_id
from plaudit.studio.jobs import JobContext, job
from plaudit.studio.listening.records import screened_out, votes_of
from plaudit.studio.listening.results import answers_of
from plaudit.studio.listening.sessions import settings_of
from plaudit.studio.listening.statistics.agreement import listener_agreement, repeat_agreement
from plaudit.studio.listening.statistics.answers import Answer, counted
from plaudit.studio.listening.statistics.attention import exclusions, listener_figures
from plaudit.types import Vote

if TYPE_CHECKING:
    from plaudit.reward.cross_validation import CrossValidatedReward
    from plaudit.reward.features import FeatureStore, RewardFeatures
    from plaudit.reward.training import RewardSettings
    from plaudit.reward.tunejury import TuneJury, TuneJuryHead

SHIPPED = "synthetic"
"""The reward that one trained from nothing is compared with."""

FINE_TUNING: dict[str, Any] = {"learning_rate": 1e-4, "batch_size": 64, "max_epochs": 40, "patience": 8}
"""Training of a reward that has been trained before: short and careful, as the votes are few (ours)."""

SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"prompts": 4, "candidates": 2, "steps": 4, "batch": 4, "seconds": 3.0},
    "small": {"prompts": 96, "candidates": 6, "steps": 150, "batch": 16, "seconds": 5.0},
    "full": {"prompts": 384, "candidates": 8, "steps": 600, "batch": 32, "seconds": 10.0},
}
"""Of a tuning: prompts, clips sampled of each, updates and clips of each update, and length of clips (ours)."""

CORPUS = 32
"""Synthetic clips whose captions, and statistics, a tuning has at least."""

HELD_OUT = 12
"""Prompts of the comparison of before and after that a tuning proposes."""


def counted_answers(context: JobContext, tests: Sequence[str]) -> tuple[list[Answer], list[Vote], dict[str, Path]]:
    """The answers that count for the results of tests, as answers and as votes, and the files of their clips."""
    answers: list[Answer] = []
    votes: list[Vote] = []
    files: dict[str, Path] = {}
    with context.database.reading() as session:
        for test_id in dict.fromkeys(tests):
            test = by_id(session, Test, test_id)
            if test.kind != "preference":
                raise VoteError(f"the test {test.name!r} has ratings, not votes; name tests of preferences")
            given = answers_of(votes_of(session, test_id))
            rules = settings_of(test).exclusion_rules
            excluded = {*exclusions(listener_figures(given), rules), *screened_out(session, test_id)}
            kept = counted(given, excluded)
            answers += kept
            votes += [
                Vote(x.id, x.prompt, x.a, x.b, x.winner, x.system_a, x.system_b, f"studio:{test_id}", x.listener)
                for x in kept
                if x.winner != "both_bad"
            ]
            for id, path in session.execute(select(Clip.id, Clip.path).where(Clip.test_id == test_id)):
                files[id] = context.settings.layout.root / path
    return answers, votes, files


@job("train-reward")
def train_reward(context: JobContext, request: dict[str, Any]) -> dict[str, Any]:
    """Train a reward on the votes of tests; its id, and its metrics."""
    from plaudit.reward.cross_validation import cross_validated_reward
    from plaudit.reward.scored_votes import score_votes
    from plaudit.reward.votes import LEAST_FOLDS, fold_votes, usable_votes

    answers, votes, files = counted_answers(context, request["tests"])
    fold_votes(votes, LEAST_FOLDS)  # too few are refused before their audio is encoded
    beginning = _beginning(context, request)
    folder = context.settings.layout.rewards / context.job_id
    store = _encoded(context, folder / "features", beginning, votes, files)
    usable = usable_votes(votes, store)
    baseline = [vote.score_a - vote.score_b for vote in score_votes(usable, beginning.baseline, store)]
    trained = cross_validated_reward(
        usable,
        store,
        beginning.settings,
        start=beginning.start,
        baseline=baseline,
        progress=lambda done, total: context.progress(done, total, label="training the reward"),
    )
    metrics = {**_metrics(trained, answers, usable), **_origin(context, request)}
    context.check_cancelled()
    trained.save(folder, trained.to_dict(), **beginning.encoders)
    return _recorded(context, request["name"], folder, metrics)


@dataclass(frozen=True)
class _Beginning:
    """What the training of a reward begins with. encoders: their names. start: the head to train further, if any;
    baseline: the reward to compare with."""

    features: RewardFeatures
    encoders: dict[str, str]
    settings: RewardSettings
    start: TuneJuryHead | None
    baseline: TuneJury


def _beginning(context: JobContext, request: dict[str, Any]) -> _Beginning:
    from plaudit import loading
    from plaudit.reward.features import RewardFeatures
    from plaudit.reward.training import SYNTHETIC_REWARD
    from plaudit.storage import read_json

    name = catalogue.resolve_reward(context.settings, context.database, request["start_from"] or SHIPPED)
    baseline = loading.load_tunejury(name, context.settings.device)
    encoders = read_json(loading.model_folder(name, SHIPPED_REWARDS) / "config.json")["encoders"]
    settings = replace(SYNTHETIC_REWARD, batch_size=FINE_TUNING["batch_size"], seed=request["seed"])
    if request["start_from"] is None:
        own = RewardFeatures(baseline.features.clap, baseline.features.audio_encoder, settings.blocks)
        return _Beginning(own, encoders, settings, None, baseline)
    changes = {"blocks": baseline.features.blocks, "hidden": baseline.head.hidden, **FINE_TUNING}
    return _Beginning(baseline.features, encoders, replace(settings, **changes), baseline.head, baseline)


def _encoded(
    context: JobContext, folder: Path, beginning: _Beginning, votes: Sequence[Vote], files: dict[str, Path]
) -> FeatureStore:
    """The features of all clips of the votes."""
    from plaudit.audio import read_audio
    from plaudit.reward.features import FeatureStore

    def load(id: str) -> Any:
        import torch

        wave, rate = read_audio(files[id])
        return torch.from_numpy(wave), rate

    store = FeatureStore(folder, beginning.features)
    ids = list(dict.fromkeys(clip for vote in votes for clip in (vote.a, vote.b)))
    store.extract(ids, load, progress=lambda done, total: context.progress(done, total, label="encoding clips"))
    return store


def _metrics(trained: CrossValidatedReward, answers: Sequence[Answer], votes: Sequence[Vote]) -> dict[str, Any]:
    """How well the reward predicts votes on prompts that it was not trained on, beside how well listeners agree."""
    figures = trained.cross_validation
    agreement, (_, repeats) = listener_agreement(answers), repeat_agreement(answers)
    return {
        "votes": len(votes),
        "decided": figures.votes,
        "prompts": len({vote.prompt for vote in votes}),
        "folds": figures.folds,
        "accuracy": figures.accuracy.mean,
        "accuracy_interval": [figures.accuracy.low, figures.accuracy.high],
        "baseline_accuracy": None if figures.baseline is None else asdict(figures.baseline),
        "difference": None if figures.difference is None else asdict(figures.difference),
        "loss": trained.metrics.loss,
        "better_than_chance": not trained.chance_signs,
        "listeners_agree": None if agreement.agreeing is None else asdict(agreement.agreeing),
        "repeats_agree": None if repeats is None else asdict(repeats),
        "note": figures.note,
    }


def _origin(context: JobContext, request: dict[str, Any]) -> dict[str, Any]:
    """The tests and the reward that a training begins with. votes_seen_before: whether that reward was itself trained
    on votes of these tests, so that they are held out from neither."""
    start, tests = request["start_from"], list(request["tests"])
    earlier: list[str] = []
    if start is not None:
        with context.database.reading() as session:
            row = catalogue.trained_reward(session, start)
            earlier = [] if row is None else [*row.metrics["tests"], *row.metrics.get("earlier_tests", [])]
    return {
        "start_from": start,
        "baseline": start or SHIPPED,
        "tests": tests,
        "earlier_tests": earlier,
        "votes_seen_before": bool(set(tests) & set(earlier)),
    }


def _recorded(context: JobContext, name: str, folder: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    """Enter a trained reward in the database, once for each job."""
    path = folder.relative_to(context.settings.layout.root).as_posix()
    with context.database.transaction() as session:
        row = session.scalar(select(RewardModel).where(RewardModel.job_id == context.job_id))
        if row is None:
            row = RewardModel(job_id=context.job_id, name=name, path=path, metrics=metrics)
            session.add(row)
        row.metrics = metrics
        session.flush()
        return {"reward": row.id, "name": row.name, "metrics": metrics}


def tuning_recipe(request: dict[str, Any], reward: str, model: str) -> Any:
    """The recipe of a tuning: expert iteration, or pairs and CRPO or NFT. reward, model: what loads them."""
    from plaudit import loading
    from plaudit.generate.model import read_model_config
    from plaudit.recipe import Recipe, parse_stages
    from plaudit.settings import validated

    size = SIZES[request["size"]]
    prompts, candidates, steps = size["prompts"], size["candidates"], size["steps"]
    config = read_model_config(loading.model_folder(model, loading.MODELS))
    seconds = request["seconds"] or min(size["seconds"], config.seconds)
    training = {
        "steps": steps, "batch": size["batch"], "checkpoint_every": max(1, steps // 8), "warmup": max(1, steps // 10),
        "seed": request["seed"],
    }  # fmt: skip
    # A tuning compares clips of the same prompt: across prompts it would learn which prompts are easy.
    pairs_of_each = candidates // 2
    pairs = {
        "kind": "pairs", "captions": prompts, "candidates": candidates, "criterion": "reward",
        "pairs": prompts * pairs_of_each, "per_caption": pairs_of_each, "seed": 1000 + request["seed"],
    }  # fmt: skip
    stages: list[dict[str, Any]]
    if request["recipe"] == "expert_iteration":
        stages = [
            {
                "kind": "expert_iteration", "candidates": prompts * candidates, "candidates_per_prompt": candidates,
                "keep": prompts, "score": config.sampling.score, "criterion": "reward", "include_corpus": False,
                "seed": 1000 + request["seed"], "train": {**training, "learning_rate": 5.0e-5},
            }
        ]  # fmt: skip
    elif request["recipe"] == "crpo":
        stages = [pairs, {"kind": "crpo", "train": {**training, "learning_rate": 1.0e-5}}]
    else:
        stages = [
            pairs,
            {
                "kind": "nft", "beta": 1.0, "advantage": "binary",
                "train": {**training, "learning_rate": 5.0e-5},
            },
        ]  # fmt: skip
    return validated(
        Recipe,
        {
            "name": request["name"],
            "corpus": {"kind": "synthetic", "size": max(CORPUS, 2 * prompts), "seconds": seconds},
            "models": {"codec": config.codec, "text_encoder": config.text_encoder},
            "reward": {"kind": "load", "name": reward},
            "backbone": {"start_from": model, "injection": config.backbone.injection},
            "stages": parse_stages(stages),
            "sampling": config.sampling.model_dump(),
            "sampling_batch": 16,
        },
        "the tuning",
    )


@job("tune")
def tune(context: JobContext, request: dict[str, Any]) -> dict[str, Any]:
    """Tune a model with a reward; the tuned model's name, and prompts that it was not tuned on."""
    from plaudit import api
    from plaudit.corpus.sources import corpus_source

    reward = catalogue.resolve_reward(context.settings, context.database, request["reward"])
    model = catalogue.resolve_model(context.settings, request["model"])
    recipe = tuning_recipe(request, reward, model)
    stage = recipe.stages[-1].name
    folder = context.settings.runs_folder / recipe.name
    api.run(recipe, output=folder, only=stage, device=context.settings.device, reporter=context.reporter())
    held_out = corpus_source(recipe.corpus).held_out(HELD_OUT)
    return {
        "model": f"{recipe.name}/{stage}", "before": request["model"], "reward": request["reward"],
        "seconds": recipe.corpus.seconds, "prompts": held_out.prompts,
    }  # fmt: skip
