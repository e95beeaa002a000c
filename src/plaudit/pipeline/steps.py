"""A recipe as a list of steps: their inputs and order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from plaudit import loading
from plaudit.backbone.base import BACKBONES
from plaudit.backbone.injections import INJECTIONS
from plaudit.corpus.sources import corpus_source
from plaudit.errors import RecipeError, RunError
from plaudit.evaluate.concepts.detectors import SHIPPED_ERROR_RATES as RATES
from plaudit.evaluate.concepts.vocabulary import SHIPPED_VOCABULARY as VOCABULARY
from plaudit.evaluate.embeddings import reference_digest
from plaudit.evaluate.metrics import METRICS, metrics_named
from plaudit.evaluate.pages.html import TEMPLATES
from plaudit.evaluate.values import REPLICATES, VALUES
from plaudit.pipeline import data, results, votes
from plaudit.pipeline.models import StageSetup, load_outside, load_stage, run_stage
from plaudit.pipeline.report_data import write_page
from plaudit.pipeline.requirements import requirements_beside_data
from plaudit.pipeline.run_folder import fingerprint, kind_of
from plaudit.pipeline.runner import Approve, External, Step, nothing_replaced, run_chain
from plaudit.pipeline.sweeps import FAILURE
from plaudit.recipe import EvaluateSettings, Recipe, VoteSettings, stage_of
from plaudit.registry import Registry, absolute_name, weights_digest
from plaudit.reporting import Reporter
from plaudit.settings import Settings
from plaudit.stages import STAGES, StageSettings, path_digest
from plaudit.stages.inputs import FrozenModels
from plaudit.storage import file_digest
from plaudit.training.distributed import process_device

FINISHED = "finished"
"""The table's row, and the step, of the last stage's clips after post-processing."""

MODEL_FILES = ("config.json", "model.safetensors")
CLIP_FILES = ("*.wav",)
CELL_FILES = (f"*/{VALUES}", f"*/{REPLICATES}", f"*/{FAILURE}")
SHARD_FILES = ("*.safetensors", "index.parquet", "stats.json")

PAIR_FILES = ("pairs.jsonl", "candidates.jsonl", *(f"shards/{pattern}" for pattern in SHARD_FILES))

PATHS = (
    *("corpus.folder", "corpus.table", "corpus.score_table"),
    *("evaluate.prompt_file", "evaluate.reference", "evaluate.baseline.model", "evaluate.tags"),
)
"""Settings that say where something lies: what counts is its content."""


def run_recipe(
    recipe: Recipe,
    folder: Path,
    reporter: Reporter,
    only: str = "report",
    approve: Approve = nothing_replaced,
    source: Path | None = None,
    device: str = "auto",
) -> Path:
    """Run the step `only`, and all it needs, where missing or stale in the run `folder`; the step's folder.

    approve: whether stale steps may be replaced; by default they never are. source: another run, whose finished steps
    are shared where their inputs are the same. device: of models and training; under torchrun, cuda is a GPU for each
    process. Raises RunError for a step that the recipe doesn't have, for steps that would be replaced, and for a folder
    of anything else; RecipeError for a new run to the report that lacks a file, model or package.
    """
    recipe, process = located(recipe), process_device(device)
    for stage in recipe.stages:
        for name, value in stage.__dict__.items():
            if isinstance(value, Path) and value.resolve().is_relative_to((folder / stage.name).resolve()):
                raise RunError(
                    f"stages.{stage.name}.{name} lies in this run's {folder / stage.name}; copy it to another folder"
                )
    if source is not None:
        _check_source(source, folder)
    elif only == "report" and kind_of(folder) is None:
        _check_requirements(recipe)
    required = required_steps(only, steps(recipe, folder, process))
    run_chain(recipe, folder, required, reporter, kind_of_run(recipe), approve, source, process)
    return folder / only


def _check_requirements(recipe: Recipe) -> None:
    """RecipeError where something is missing that only a later step would miss; the corpus is what the first reads."""
    if missing := [one for one in requirements_beside_data(recipe) if not one.here]:
        needs = "; ".join(f"{one.what} {one.name!r} ({one.otherwise})" for one in missing)
        raise RecipeError(f"this recipe needs what is not here: {needs}")


def kind_of_run(recipe: Recipe) -> str:
    """The kind of a run of this recipe in `run.json`."""
    return f"a run of recipe {recipe.name}"


def _check_source(source: Path, folder: Path) -> None:
    if not (kind_of(source) or "").startswith("a run of recipe"):
        raise RunError(f"{source} is not a run folder; give --from a folder that `plaudit run` made")
    if source.resolve() == folder.resolve():
        raise RunError(f"--from and --output are both {source}; give the new run a folder of its own with -o")


def required_steps(name: str, chain: list[Step]) -> list[Step]:
    """The step called `name` and those of the chain that it needs, directly or not, in the chain's order."""
    if name not in {step.name for step in chain}:
        raise RunError(f"the recipe has no step {name!r}; its steps are {', '.join(step.name for step in chain)}")
    required = {name}
    for step in reversed(chain):
        if step.name in required:
            required.update(step.needs)
    return [step for step in chain if step.name in required]


def steps(recipe: Recipe, folder: Path | None = None, device: str | torch.device = "auto") -> list[Step]:
    """Every step that `recipe` asks for, each after those it needs.

    folder: of its run, which may know the digests of audio files that have not changed. device: of the frozen models.
    """
    chain = _Chain(recipe, folder, device)
    others = [*chain.of_data(), *chain.of_stages(), *chain.of_results()]
    return [*others, chain.report(others)]


def _code_of(section: str, settings: Settings, **registries: Registry[Any]) -> External:
    """Digests of the code outside the package that a section of the recipe names."""
    names = {field: getattr(settings, field, None) for field in registries}
    return {
        f"{section}.{field}": registries[field].identity(name)
        for field, name in names.items()
        if name is not None and name not in registries[field].builtin
    }


class _Chain:
    """The steps of one recipe, and the inputs that several of them share."""

    def __init__(self, recipe: Recipe, folder: Path | None, device: str | torch.device) -> None:
        self.recipe = recipe
        self._manifest = None if folder is None else folder / "corpus" / data.MANIFEST
        self._leaves = leaves(recipe)
        self._source = corpus_source(recipe.corpus)
        self._synthetic = self._source.truth_known
        self._reward_step = ("reward",) if recipe.reward.kind == "train" else ()
        self._models = FrozenModels(**recipe.models.model_dump(), device=device)
        self._setup = StageSetup.of(recipe, self._models)
        models = recipe.models
        self._digests = {
            "models.codec": loading.CODECS.identity(models.codec),
            "models.text_encoder": loading.TEXT_ENCODERS.identity(models.text_encoder),
            "models.clap": loading.CLAPS.identity(models.clap),
            "models.audio_embedder": loading.AUDIO_ENCODERS.identity(models.audio_embedder),
            "backbone.start_from": loading.start_digest(recipe.backbone.start_from),
            "reward.name": "none" if recipe.reward.kind == "train" else loading.REWARDS.identity(recipe.reward.name),
            "probes": weights_digest("probes"),
            "vocabulary": _files_digest(VOCABULARY, RATES),
            "report templates": _files_digest(*sorted(TEMPLATES.iterdir())),
        }

    def of_data(self) -> list[Step]:
        recipe, corpus, models, reward = self.recipe, self.recipe.corpus, self._models, self.recipe.reward
        digest = cache(partial(self._source.digest, self._manifest))
        outside: External = {} if self._synthetic else {"corpus.folder": digest}  # type: ignore[dict-item]  # None only for synthetic
        source = self._settings("corpus", without=(*PATHS, "corpus.shard_size"))
        encoders = self._external("models.codec", "models.text_encoder")
        listing: tuple[str, ...] = ("corpus",) if self._source.has_audio else ()
        if self._source.has_audio:
            make: Callable[..., None] = partial(data.list_corpus, corpus=corpus)
            chain = [Step("corpus", source, (), make, outside, ("facts.json", "truth.jsonl"))]
            make = partial(data.encode, corpus=corpus, models=models)
            settings = source | self._settings("corpus.shard_size")
            chain.append(Step("shards", settings, listing, make, encoders, SHARD_FILES))
        else:
            make = partial(data.accept_shards, corpus=corpus, models=models)
            preparation = ("clips_per_track", "place", "peak", "duplicates")
            settings = self._settings("corpus.kind", "corpus.seconds", *(f"corpus.{name}" for name in preparation))
            chain = [Step("shards", settings, (), make, encoders | outside, ("facts.json",))]
        settings = self._settings("corpus.kind", "reward.kind")
        label = partial(data.compute_rewards, corpus=corpus, models=models, reward=reward)
        if reward.kind == "train":
            audio_encoders = self._external("models.clap", "models.audio_embedder")
            extract = partial(votes.extract_features, corpus=corpus, models=models, votes=recipe.votes)
            vote = partial(votes.simulate_votes, corpus=corpus, votes=recipe.votes)
            train = partial(votes.train_reward, models=models, reward=reward)
            fit = self._settings("reward.max_epochs", "reward.seed")
            sampled: tuple[str, ...] = ()
            if recipe.votes.generated is not None:
                chain.append(self._systems_step(source))
                sampled = ("shards", "systems")
            of_systems = source | self._settings("votes.generated", "votes.seed")
            chain += [
                Step("features", of_systems, (*listing, "shards", *sampled[1:]), extract, audio_encoders),
                Step("votes", source | self._settings("votes"), ("corpus", *sampled), vote, self._external("probes")),
                Step("reward", fit, ("votes", "features"), train, audio_encoders, MODEL_FILES),
            ]
            return [*chain, Step("labels", settings, ("shards", "features", "reward"), label, audio_encoders)]
        if reward.kind == "load":
            settings |= source
        else:
            listing = ()
        return [*chain, Step("labels", settings, (*listing, "shards"), label, self._reward(), ("rewards.json",))]

    def _systems_step(self, source: dict[str, Any]) -> Step:
        recipe, generated = self.recipe, self.recipe.votes.generated
        assert generated is not None
        make = partial(
            votes.sample_systems, corpus=recipe.corpus, models=self._models, votes=recipe.votes,
            batch=recipe.sampling_batch,
        )  # fmt: skip
        settings = self._settings("votes.generated", "votes.seed", "sampling_batch", "corpus.seconds")
        settings = picked(settings, [*settings], without=("votes.generated.pairs", "votes.generated.validation_pairs"))
        external = self._external("models.codec") | {
            f"votes.generated.systems.{system.label}": partial(loading.start_digest, system.model)
            for system in generated.systems
        }
        return Step("systems", source | settings, ("shards",), make, external, ("*/*.wav",))

    def of_stages(self) -> list[Step]:
        return [self._stage_step(settings) for settings in self.recipe.stages]

    def _stage_step(self, settings: StageSettings) -> Step:
        recipe, name = self.recipe, settings.name
        stage, start, pairs = stage_of(settings), recipe.start_of(settings.name), recipe.pairs_of(settings.name)
        files = stage.files(settings)
        paths = tuple(f"stages.{name}.{field}" for field in files)
        values = self._settings(f"stages.{name}", without=(*paths, f"stages.{name}.start_from"))
        values |= self._settings("precision")
        external = self._external("models.codec", "models.text_encoder") | dict(zip(paths, files.values(), strict=True))
        needs = [start or "shards"]
        external |= _code_of(f"stages.{name}", settings, kind=STAGES, injection=INJECTIONS)
        if start is None:
            # Names of models are in its config.json.
            values |= self._settings("backbone", "corpus.kind", "corpus.seconds", "models.codec", "models.text_encoder",
                                     without=("backbone.start_from",))  # fmt: skip
            external |= self._external("backbone.start_from")
            external |= _code_of("backbone", recipe.backbone, kind=BACKBONES, injection=INJECTIONS)
        if start is None or {"corpus", "candidates"} & {*stage.uses}:
            needs += ["shards", "labels"]
            values |= self._settings("corpus.kind")
        if "candidates" in stage.uses:
            needs += self._reward_step
            values |= self._settings("sampling", "sampling_batch", "corpus.seconds", "reward.kind")
            external |= self._evaluators()
        if "sampling" in stage.uses:
            values |= self._settings("sampling")
        if pairs is not None:
            needs.append(pairs)
        read_later = MODEL_FILES if stage.makes == "model" else PAIR_FILES
        sampling = recipe.sampling if start is None else recipe.sampling_of(start)
        setup = replace(self._setup, sampling=sampling)
        make = partial(run_stage, stage=type(stage), settings=settings, start=start, pairs=pairs, setup=setup)
        return Step(name, values, tuple(dict.fromkeys(needs)), make, external, read_later, "training" in stage.uses)

    def of_results(self) -> list[Step]:
        recipe, corpus, models, reward, evaluate = (
            self.recipe, self.recipe.corpus, self._models, self.recipe.reward, self.recipe.evaluate
        )  # fmt: skip
        first, last = recipe.model_stages[0], recipe.model_stages[-1]
        shown, file = results.stages_of(recipe), evaluate.prompt_file
        world = self._settings("corpus.kind", "corpus.seconds")
        sampling = self._settings("sampling", "sampling_batch")
        of_corpus: tuple[str, ...] = () if self._synthetic or file is not None else ("shards",)
        listed: External = {} if file is None else {"evaluate.prompt_file": lambda: path_digest(file)}
        settings = self._settings("evaluate.prompts", "evaluate.seed") | sampling | world
        external = self._external("models.codec", "models.text_encoder") | listed
        chain = [self._reference_step()]
        common: dict[str, Any] = {"corpus": corpus, "evaluate": evaluate, "prompt_file": file}
        common["batch"] = recipe.sampling_batch
        make: Callable[..., None]
        for label in shown:
            if label == "baseline":
                assert evaluate.baseline is not None
                name, plain = evaluate.baseline.model, results.baseline_sampling(recipe.sampling, evaluate.baseline)
                load = partial(load_outside, name=name)
                make = partial(results.generate_held_out, label=label, load=load, sampling=plain, **common)
                values = settings | self._settings("evaluate.baseline", without=PATHS)
                outside = listed | {"evaluate.baseline.model": loading.start_digest(name)}
                chain.append(Step("clips-baseline", values, of_corpus, make, outside, CLIP_FILES))
                continue
            stage = first if label == "unscored" else label
            without_score = {"score": None} if label == "unscored" else {}
            make = partial(
                results.generate_held_out, label=label, load=partial(load_stage, stage=stage),
                sampling=recipe.sampling_of(stage).model_copy(update=without_score), **common,
            )  # fmt: skip
            chain.append(Step(f"clips-{label}", settings, (stage, *of_corpus), make, external, CLIP_FILES))
        post = recipe.post.model_copy(update={"seconds": recipe.post.seconds or corpus.seconds})
        make = partial(results.finish_clips, clips=f"clips-{last}", post=post)
        settings = self._settings("post", "corpus.seconds")
        chain.append(Step(f"clips-{FINISHED}", settings, (f"clips-{last}",), make, read_later=CLIP_FILES))
        needs = ("reference", *self._reward_step, *of_corpus)
        metrics_named(evaluate.metrics)  # one that is not there is an error before anything is run
        evaluators = self._evaluators() | {f"metric {name}": METRICS.identity(name) for name in evaluate.metrics}
        chosen = self._settings("evaluate.seed", "evaluate.metrics", "reward.kind")
        settings = chosen | self._settings("evaluate.prompts", "evaluate.audio_language_model") | world
        tags = evaluate.tags
        tagged: External = {} if tags is None else {"evaluate.tags": lambda: path_digest(tags)}
        measured: dict[str, Any] = {"corpus": corpus, "evaluate": evaluate, "prompt_file": file}
        measured |= {"models": models, "reward": reward}
        for label in (*shown, FINISHED):
            make = partial(results.evaluate_stage, label=label, **measured)
            outside = evaluators | listed | tagged
            chain.append(Step(f"values-{label}", settings, (f"clips-{label}", *needs), make, outside))
        settings = chosen | sampling | world | self._settings("evaluate.sweep_prompts", "evaluate.sweep_scores")
        for stage in recipe.swept_stages:
            make = partial(
                results.sweep, stage=stage, sampling=recipe.sampling_of(stage), batch=recipe.sampling_batch, **measured
            )
            chain.append(Step(f"sweep-{stage}", settings, (stage, *needs), make, evaluators | listed, CELL_FILES))
        return chain

    def _reference_step(self) -> Step:
        """The music that clips are compared with: of the corpus, or from outside."""
        corpus, evaluate = self.recipe.corpus, self.recipe.evaluate
        place = evaluate.reference
        make = partial(
            results.embed_reference, corpus=corpus, models=self._models, count=evaluate.reference_clips, place=place
        )
        if place is not None:
            outside = self._external("models.clap") | {"evaluate.reference": lambda: reference_digest(place)}
            return Step("reference", {}, (), make, outside)
        shards: tuple[str, ...] = () if self._synthetic else ("shards",)
        audio = ("corpus",) if self._source.has_audio and not self._synthetic else ()
        settings = self._settings("evaluate.reference_clips", "corpus.kind", "corpus.seconds")
        external = self._external("models.clap", *([] if self._source.has_audio else ["models.codec"]))
        return Step("reference", settings, (*audio, *shards), make, external)

    def report(self, others: list[Step]) -> Step:
        names = [step.name for step in others]
        shown, swept = ([name.removeprefix(prefix) for name in names if name.startswith(prefix)]
                        for prefix in ("values-", "sweep-"))  # fmt: skip
        page = partial(write_page, recipe=self.recipe, stages=shown, swept=swept, finished=names)
        everything = {name: value for name, value in self._leaves.items() if not name.startswith("training_loop.")}
        external = self._external("report templates", *(["probes", "vocabulary"] if self._synthetic else []))
        return Step("report", everything, tuple(names), page, external, read_later=())

    def _settings(self, *names: str, without: tuple[str, ...] = ()) -> dict[str, Any]:
        return picked(self._leaves, names, without)

    def _external(self, *names: str) -> External:
        return {name: self._digests[name] for name in names}

    def _reward(self) -> External:
        """The reward from outside the run, where it takes one."""
        return {} if self.recipe.reward.kind == "train" else self._external("reward.name")

    def _evaluators(self) -> External:
        """All models that clips are sampled and evaluated with."""
        models = (f"models.{name}" for name in type(self.recipe.models).model_fields)
        return self._external(*models, *(["probes", "vocabulary"] if self._synthetic else [])) | self._reward()


def _files_digest(*paths: Path) -> str:
    return fingerprint(**{path.name: file_digest(path) for path in paths if path.is_file()})


REGISTRIES = (loading.CODECS, loading.TEXT_ENCODERS, loading.CLAPS, loading.AUDIO_ENCODERS)
KNOWN = {*loading.MODELS, *loading.REWARDS.builtin, *(name for registry in REGISTRIES for name in registry.builtin)}
"""Names of built-in parts, which are never interpreted as folders."""


def located(recipe: Recipe) -> Recipe:
    """The recipe with every path in it absolute, so that its run folder can be used from any other folder."""
    corpus, models = recipe.corpus, recipe.models
    moved: dict[str, Any] = {name: _absolute(getattr(corpus, name)) for name in ("folder", "score_table")}
    moved["kind"] = absolute_name(corpus.kind)
    if corpus.table is not None and corpus.table.exists():  # else it is a name inside the folder
        moved["table"] = corpus.table.absolute()
    changed: dict[str, Any] = {
        "corpus": corpus.model_copy(update=moved),
        "models": models.model_copy(update={name: _named(value) for name, value in models.model_dump().items()}),
        "reward": recipe.reward.model_copy(update={"name": _named(recipe.reward.name)}),
        "votes": _located_votes(recipe.votes),
        "evaluate": _located_evaluation(recipe.evaluate),
        "backbone": recipe.backbone.model_copy(update={"start_from": _named(recipe.backbone.start_from)}),
    }
    changed["stages"] = tuple(
        stage.model_copy(update={n: v.absolute() for n, v in stage.__dict__.items() if isinstance(v, Path)})
        for stage in recipe.stages
    )
    return recipe.model_copy(update=changed)


def _located_votes(votes: VoteSettings) -> VoteSettings:
    if votes.generated is None:
        return votes
    systems = tuple(
        one.model_copy(update={"model": _named(one.model), "name": one.label}) for one in votes.generated.systems
    )
    return votes.model_copy(update={"generated": votes.generated.model_copy(update={"systems": systems})})


def _located_evaluation(evaluate: EvaluateSettings) -> EvaluateSettings:
    paths = ("prompt_file", "reference", "tags")
    changed: dict[str, Any] = {name: _absolute(getattr(evaluate, name)) for name in paths}
    changed["metrics"] = tuple(map(absolute_name, evaluate.metrics))
    if evaluate.baseline is not None:
        changed["baseline"] = evaluate.baseline.model_copy(update={"model": _named(evaluate.baseline.model)})
    return evaluate.model_copy(update=changed)


def leaves(recipe: Recipe) -> dict[str, Any]:
    """Every setting by its dotted name, as in `--set`, stages by theirs; a section that is left out is None."""
    values = recipe.model_dump(mode="json")
    return _flat(values | {"stages": {stage.pop("name"): stage for stage in values["stages"]}}, "")


def picked(settings: dict[str, Any], names: Sequence[str], without: Sequence[str] = ()) -> dict[str, Any]:
    """The settings of these names or in sections of these names."""
    return {key: value for key, value in settings.items() if _within(key, names) and not _within(key, without)}


def _within(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _flat(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


def _named(name: str | None) -> str | None:
    """A part's name, or the absolute path of its file or folder."""
    if name is None or name in KNOWN or not (Path(name) / "config.json").is_file():
        return None if name is None else absolute_name(name)
    return str(Path(name).absolute())
