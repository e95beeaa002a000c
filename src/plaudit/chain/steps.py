"""The chain as a list of steps: what each is made from, and in which order."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from plaudit import hub
from plaudit.chain import data, pairs, results, train
from plaudit.chain.page import write_page
from plaudit.chain.runner import Context, Maker, Reporter, Step, run_chain
from plaudit.corpus.embedded.listeners import Taste
from plaudit.errors import RunError
from plaudit.recipe import Recipe, load_recipe
from plaudit.settings import Settings

FINISHED = "finished"
"""The table's row, and the step, of the last stage's clips after post-processing."""


def run_recipe(recipe: Recipe, folder: Path, reporter: Reporter, only: str = "report") -> Path:
    """Make what is missing or stale of the step `only` and of all it needs in the run `folder`; the step's folder.

    Raises RunError for a step that the recipe doesn't have, and for pairs that making the run would remove.
    """
    given = None if recipe.stages.pairs is None else recipe.stages.pairs.read_from
    if given is not None and given.resolve().is_relative_to((folder / "pairs").resolve()):
        raise RunError(f"stages.pairs.read_from lies in this run's own {folder / 'pairs'}; copy it to another folder")
    run_chain(recipe, folder, needed_for(only, steps(recipe)), reporter)
    return folder / only


def needed_for(name: str, chain: list[Step]) -> list[Step]:
    """The step called `name` and those of the chain that it needs, however indirectly, in the chain's order."""
    if name not in {step.name for step in chain}:
        raise RunError(f"the recipe has no step {name!r}; its steps are {', '.join(step.name for step in chain)}")
    wanted = {name}
    for step in reversed(chain):
        if step.name in wanted:
            wanted.update(step.needs)
    return [step for step in chain if step.name in wanted]


def rewrite_report(folder: Path, reporter: Reporter) -> Path:
    """The report of a run folder, written again; RunError where the run is not there or not finished."""
    if not (folder / "recipe.yaml").is_file():
        raise RunError(f"{folder} is not a run folder (it has no recipe.yaml); name one that `plaudit run` made")
    recipe = load_recipe(str(folder / "recipe.yaml"))
    wanted = [step.name for step in steps(recipe) if step.name != "report"]
    if missing := [name for name in wanted if not (folder / name / "done.json").exists()]:
        raise RunError(f"{folder} is not finished: {missing[0]} is missing; continue it with plaudit run")
    (folder / "report" / "done.json").unlink(missing_ok=True)
    return run_recipe(recipe, folder, reporter)


def steps(recipe: Recipe) -> list[Step]:
    """Every step that `recipe` asks for, each after those it needs."""
    return [*_data_steps(recipe), *_training_steps(recipe), *_result_steps(recipe)]


def _data_steps(recipe: Recipe) -> list[Step]:
    corpus, models = recipe.corpus.model_dump(mode="json"), recipe.models
    codec, text = hub.digest(hub.CODECS, models.codec), hub.digest(hub.TEXT_ENCODERS, models.text_encoder)
    clap, listener = hub.digest(hub.CLAPS, models.clap), hub.digest(hub.AUDIO_EMBEDDERS, models.audio_embedder)
    named = {"models": models.model_dump()}
    encoders = {**named, "codec": codec, "text": text, "clap": clap}
    if recipe.corpus.kind == "shards":
        prepared = {"corpus": corpus, "set": data.shards_digest(recipe.corpus)}
        found = [Step("shards", 1, {**encoders, **prepared}, (), data.accept_shards)]
    else:
        found = [
            Step("corpus", 2, {"corpus": corpus}, (), data.list_corpus),
            Step("shards", 1, encoders, ("corpus",), data.encode),
        ]
    labelled_from: tuple[str, ...] = ("shards",)
    if recipe.reward.kind != "table":
        found.append(Step("features", 1, {**named, "clap": clap, "listener": listener}, ("shards",), data.hear))
        labelled_from = ("features",)
    if recipe.reward.kind == "train":
        votes, reward = {"votes": recipe.votes.model_dump(), "taste": asdict(Taste())}, recipe.reward.model_dump()
        found += [
            Step("votes", 1, {**votes, "probes": hub.weights_digest("probes")}, ("corpus",), data.vote),
            Step("reward", 1, {"reward": reward}, ("votes", "features"), data.train_reward),
        ]
        labelled_from = ("features", "reward")
    chosen = {"reward": recipe.reward.model_dump(), "weights": hub.reward_digest(recipe.reward.name)}
    return [*found, Step("labels", 1, chosen if recipe.reward.kind != "train" else {}, labelled_from, data.label)]


def _training_steps(recipe: Recipe) -> list[Step]:
    stages, shared = recipe.stages, {"precision": recipe.precision}
    sampling = {**shared, "sampling": recipe.sampling.model_dump(mode="json"), "batch": recipe.generation_batch}
    start = hub.start_digest(recipe.backbone.start_from)
    backbone = {**shared, "backbone": recipe.backbone.model_dump(), "start": start}
    found = [Step("sft", 1, {**backbone, "stage": stages.sft.model_dump()}, ("shards", "labels"), train.sft, True)]

    def add(name: str, settings: Settings | None, make: Maker, together: bool = True, **more: str) -> None:
        if settings is not None:
            paired = ("pairs",) if name in ("crpo", "nft") else ()
            needs = (stages.before(name), *paired, "labels")
            made_from = {**sampling, "stage": settings.model_dump(mode="json"), **more}
            found.append(Step(name, 1, made_from, needs, make, together))

    add("expert_iteration", stages.expert_iteration, train.expert_iteration)
    add("cross_load", stages.cross_load, train.cross_loaded, together=False)
    if stages.pairs is not None:
        add("pairs", stages.pairs, pairs.make_pairs, together=False, file=pairs.pairs_digest(stages.pairs))
    add("crpo", stages.crpo, train.crpo)
    add("nft", stages.nft, train.nft)
    return found


def _result_steps(recipe: Recipe) -> list[Step]:
    evaluate = recipe.evaluate.model_dump()
    sampling: dict[str, Any] = {
        "sampling": recipe.sampling.model_dump(mode="json"),
        "batch": recipe.generation_batch,
        "evaluate": evaluate,
    }
    found = [Step("reference", 1, {"evaluate": evaluate}, ("shards",), results.embed_reference)]
    shown = results.stages_of(recipe)
    for stage in shown:
        made_by = "sft" if stage == "baseline" else stage
        clips = f"clips-{stage}"
        found.append(Step(clips, 1, sampling, (made_by,), partial(results.generate_stage, stage=stage)))
    last = f"clips-{shown[-1]}"
    finish = partial(_from_clips, results.finish_clips, last)
    found.append(Step(f"clips-{FINISHED}", 1, {"post": recipe.post.model_dump()}, (last,), finish))
    judged = ("reference", "labels")
    for stage in (*shown, FINISHED):
        clips = f"clips-{stage}"
        score = partial(_from_clips, results.evaluate_stage, clips)
        found.append(Step(f"scores-{stage}", 2, {"probes": hub.weights_digest("probes")}, (clips, *judged), score))
    swept = list(dict.fromkeys(["sft", shown[-1]]))
    for stage in swept:
        make = partial(results.sweep, stage=stage)
        found.append(Step(f"sweep-{stage}", 2, sampling, (stage, *judged), make))
    needs = tuple(step.name for step in found)
    page = partial(write_page, shown=[*shown, FINISHED], swept=swept)
    return [*found, Step("report", 2, {"name": recipe.name, "players": recipe.evaluate.players}, needs, page)]


def _from_clips(make: Any, clips: str, context: Context, folder: Path) -> None:
    make(context, folder, context.path(clips))
