"""From votes to a model: jobs that train a reward on a test's votes, and that tune a model with it.

`train-reward` trains TuneJury's head on votes of tests, or trains a reward further on them, and reports its accuracy on
held-out votes beside how often listeners agree. `tune` is a run of a recipe in the studio's runs: it shows its
progress, stops where it is cancelled, and goes on where it was when it is retried or the studio was killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sqlalchemy import select

from plaudit.errors import VoteError
from plaudit.places import SHIPPED_REWARDS
from plaudit.studio import catalogue
from plaudit.studio.database import Clip, RewardModel, Test, by_id
from plaudit.studio.jobs import JobContext, job
from plaudit.studio.listening import statistics as st
from plaudit.studio.listening.records import screened_out, votes_of
from plaudit.studio.listening.results import answers_of
from plaudit.studio.listening.sessions import settings_of
from plaudit.types import Vote

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


def counted_answers(context: JobContext, tests: Sequence[str]) -> tuple[list[st.Answer], list[Vote], dict[str, Path]]:
    """The answers that count for the results of tests, as answers and as votes, and the files of their clips."""
    answers: list[st.Answer] = []
    votes: list[Vote] = []
    files: dict[str, Path] = {}
    with context.database.reading() as session:
        for test_id in dict.fromkeys(tests):
            test = by_id(session, Test, test_id)
            if test.kind != "preference":
                raise VoteError(f"the test {test.name!r} has ratings, not votes; name tests of preferences")
            given = answers_of(votes_of(session, test_id))
            rules = settings_of(test).exclusion_rules
            excluded = {*st.exclusions(st.listener_figures(given), rules), *screened_out(session, test_id)}
            kept = st.counted(given, excluded)
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
    from plaudit import loading
    from plaudit.audio import read_audio
    from plaudit.reward.features import FeatureStore, RewardFeatures
    from plaudit.reward.training import SYNTHETIC_REWARD, comparisons, fit_reward, margins, reward_metrics
    from plaudit.reward.tunejury import save_reward
    from plaudit.reward.votes import split_votes, usable_votes
    from plaudit.storage import read_json

    answers, votes, files = counted_answers(context, request["tests"])
    split_votes(votes)  # too few are refused before their audio is encoded
    folder = context.settings.layout.rewards / context.job_id
    start = None
    if request["start_from"] is not None:
        name = catalogue.resolve_reward(context.settings, context.database, request["start_from"])
        start = loading.load_tunejury(name, context.settings.device)
        features, encoders = (
            start.features,
            read_json(loading.model_folder(name, SHIPPED_REWARDS) / "config.json")["encoders"],
        )
        settings = replace(SYNTHETIC_REWARD, blocks=features.blocks, hidden=start.head.hidden, **FINE_TUNING)
    else:
        encoders = {"clap": "synthetic", "audio": "statistics"}
        clap = loading.load_part(loading.CLAPS, encoders["clap"], context.settings.device)
        audio = loading.load_part(loading.AUDIO_ENCODERS, encoders["audio"], context.settings.device)
        features, settings = RewardFeatures(clap, audio, SYNTHETIC_REWARD.blocks), SYNTHETIC_REWARD
        settings = replace(settings, batch_size=64)
    settings = replace(settings, seed=request["seed"])
    store = FeatureStore(folder / "features", features)

    def load(id: str) -> Any:
        import torch

        wave, rate = read_audio(files[id])
        return torch.from_numpy(wave), rate

    ids = list(dict.fromkeys(clip for vote in votes for clip in (vote.a, vote.b)))
    store.extract(ids, load, progress=lambda done, total: context.progress(done, total, label="encoding clips"))
    split = split_votes(usable_votes(votes, store))
    fitted = fit_reward(
        split.train, split.validation, split.test, store, settings,
        lambda epoch: context.progress(epoch.epoch, settings.max_epochs, label="training the reward"),
        None if start is None else start.head,
    )  # fmt: skip
    before = None
    if start is not None:
        held_out = comparisons(split.test, store, features)
        before = reward_metrics(margins(start.head, held_out), held_out.target)
    agreement, (_, repeats) = st.listener_agreement(answers), st.repeat_agreement(answers)
    metrics: dict[str, Any] = {
        "votes": {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)},
        "accuracy": fitted.metrics.accuracy,
        "accuracy_interval": list(fitted.metrics.accuracy_interval),
        "decided": fitted.metrics.decided,
        "validation_loss": fitted.validation_loss,
        "better_than_chance": not fitted.chance_signs,
        "listeners_agree": None if agreement.agreeing is None else asdict(agreement.agreeing),
        "repeats_agree": None if repeats is None else asdict(repeats),
        "start_from": request["start_from"],
        "start_accuracy": None if before is None else before.accuracy,
        "tests": list(request["tests"]),
    }
    context.check_cancelled()
    save_reward(fitted.reward, folder, encoders["clap"], encoders["audio"])
    path = folder.relative_to(context.settings.layout.root).as_posix()
    with context.database.transaction() as session:
        row = session.scalar(select(RewardModel).where(RewardModel.job_id == context.job_id))
        if row is None:
            row = RewardModel(job_id=context.job_id, name=request["name"], path=path, metrics=metrics)
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
