"""The chain as a list of steps: what each is made from, and in which order."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any

from plaudit import loading
from plaudit.corpus.sources import corpus_source
from plaudit.errors import RunError
from plaudit.evaluate.concepts.detectors import SHIPPED_ERROR_RATES as RATES
from plaudit.evaluate.concepts.vocabulary import SHIPPED_VOCABULARY as VOCABULARY
from plaudit.evaluate.pages.html import TEMPLATES
from plaudit.pipeline import data, results
from plaudit.pipeline.outlook import Approve, nothing_replaced
from plaudit.pipeline.report_data import write_page
from plaudit.pipeline.run_folder import fingerprint, kind_of
from plaudit.pipeline.runner import Context, Reporter, run_chain
from plaudit.pipeline.settings import leaves, located, picked
from plaudit.pipeline.stage_models import run_stage
from plaudit.pipeline.step import Given, Step
from plaudit.recipe import Recipe, stage_of
from plaudit.registry import weights_digest
from plaudit.stages import STAGES, StageSettings
from plaudit.storage import file_digest

FINISHED = "finished"
"""The table's row, and the step, of the last stage's clips after post-processing."""

MODEL_FILES = ("config.json", "model.safetensors")
CLIP_FILES = ("*.wav",)
CELL_FILES = ("*/scores.json", "*/embeddings.npz", "*/unjudged.json")
SHARD_FILES = ("*.safetensors", "index.parquet", "stats.json")

PAIR_FILES = ("pairs.jsonl", "candidates.jsonl", *(f"shards/{pattern}" for pattern in SHARD_FILES))

PATHS = ("corpus.folder", "corpus.table", "corpus.score_table")
"""Settings that say where something lies: what counts is its content."""


def run_recipe(
    recipe: Recipe,
    folder: Path,
    reporter: Reporter,
    only: str = "report",
    approve: Approve = nothing_replaced,
    source: Path | None = None,
) -> Path:
    """Make what is missing or stale of the step `only` and of all it needs in the run `folder`; the step's folder.

    approve: asked before steps that were made from something else are replaced; by default they never are. source:
    another run, whose finished steps are taken where they are made from the same. Raises RunError for a step that the
    recipe doesn't have, for steps that would be replaced, and for a folder of anything else.
    """
    recipe = located(recipe)
    for stage in recipe.stages:
        for name, value in stage.__dict__.items():
            if isinstance(value, Path) and value.resolve().is_relative_to((folder / stage.name).resolve()):
                raise RunError(
                    f"stages.{stage.name}.{name} lies in this run's {folder / stage.name}; copy it to another folder"
                )
    if source is not None:
        _check_source(source, folder)
    run_chain(
        recipe, folder, required_steps(only, steps(recipe, folder)), reporter, kind_of_run(recipe), approve, source
    )
    return folder / only


def kind_of_run(recipe: Recipe) -> str:
    """What `run.json` calls a run of this recipe."""
    return f"a run of recipe {recipe.name}"


def _check_source(source: Path, folder: Path) -> None:
    if not (kind_of(source) or "").startswith("a run of recipe"):
        raise RunError(f"{source} is not a run folder; give --from a folder that `plaudit run` made")
    if source.resolve() == folder.resolve():
        raise RunError(f"--from and --output are both {source}; give the new run a folder of its own with -o")


def required_steps(name: str, chain: list[Step]) -> list[Step]:
    """The step called `name` and those of the chain that it needs, however indirectly, in the chain's order."""
    if name not in {step.name for step in chain}:
        raise RunError(f"the recipe has no step {name!r}; its steps are {', '.join(step.name for step in chain)}")
    wanted = {name}
    for step in reversed(chain):
        if step.name in wanted:
            wanted.update(step.needs)
    return [step for step in chain if step.name in wanted]


def steps(recipe: Recipe, folder: Path | None = None) -> list[Step]:
    """Every step that `recipe` asks for, each after those it needs.

    folder: of its run, which may know the digests of audio files that have not changed.
    """
    chain = _Chain(recipe, folder)
    found = [*chain.of_data(), *chain.of_stages(), *chain.of_results()]
    return [*found, chain.report(found)]


class _Chain:
    """The steps of one recipe, and what several of them are made from."""

    def __init__(self, recipe: Recipe, folder: Path | None) -> None:
        self.recipe = recipe
        self._manifest = None if folder is None else folder / "corpus" / data.MANIFEST
        self._leaves = leaves(recipe)
        self._source = corpus_source(recipe.corpus)
        self._synthetic = self._source.truth_known
        self._own_reward = ("reward",) if recipe.reward.kind == "train" else ()
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
        recipe = self.recipe
        digest = cache(partial(self._source.digest, self._manifest))
        corpus: Given = {} if self._synthetic else {"corpus.folder": digest}
        source = self._settings("corpus", without=(*PATHS, "corpus.shard_size"))
        encoders = self._given("models.codec", "models.text_encoder")
        if not self._source.has_audio:
            needed: tuple[str, ...] = ("shards",)
            found = [Step("shards", self._settings("corpus.kind", "corpus.seconds"), (), data.accept_shards,
                          encoders | corpus, ("facts.json",))]  # fmt: skip
        else:
            needed = ("corpus", "shards")
            encoded = source | self._settings("corpus.shard_size")
            found = [
                Step("corpus", source, (), data.list_corpus, corpus, ("facts.json", "truth.jsonl")),
                Step("shards", encoded, ("corpus",), data.encode, encoders, SHARD_FILES),
            ]
        settings = self._settings("corpus.kind", "reward.kind")
        if recipe.reward.kind == "train":
            votes, fit = self._settings("votes"), self._settings("reward.max_epochs", "reward.seed")
            inputs = self._given("models.clap", "models.audio_embedder")
            found += [
                Step("features", source, needed, data.extract_features, inputs),
                Step("votes", source | votes, ("corpus",), data.simulate_votes_step, self._given("probes")),
                Step("reward", fit, ("votes", "features"), data.train_reward_step, inputs, MODEL_FILES),
            ]
            return [*found, Step("labels", settings, ("shards", "features", "reward"), data.compute_rewards, inputs)]
        if recipe.reward.kind == "load":
            settings |= source
        else:
            needed = ("shards",)
        return [*found, Step("labels", settings, needed, data.compute_rewards, self._reward(), ("rewards.json",))]

    def of_stages(self) -> list[Step]:
        return [self._stage_step(settings) for settings in self.recipe.stages]

    def _stage_step(self, settings: StageSettings) -> Step:
        recipe, name = self.recipe, settings.name
        stage, start, pairs = stage_of(settings), recipe.start_of(settings.name), recipe.pairs_of(settings.name)
        files = stage.files(settings)
        paths = tuple(f"stages.{name}.{field}" for field in files)
        values = self._settings(f"stages.{name}", without=(*paths, f"stages.{name}.start_from"))
        values |= self._settings("precision")
        given = self._given("models.codec", "models.text_encoder") | dict(zip(paths, files.values(), strict=True))
        needs = [start or "shards"]
        if settings.kind not in STAGES.builtin:
            given[f"stages.{name}.kind"] = STAGES.identity(settings.kind)
        if start is None:
            # Names of models are in its config.json.
            values |= self._settings("backbone", "corpus.kind", "corpus.seconds", "models.codec", "models.text_encoder",
                                     without=("backbone.start_from",))  # fmt: skip
            given |= self._given("backbone.start_from")
        if start is None or {"corpus", "candidates"} & {*stage.uses}:
            needs += ["shards", "labels"]
            values |= self._settings("corpus.kind")
        if "candidates" in stage.uses:
            needs += self._own_reward
            values |= self._settings("sampling", "sampling_batch", "corpus.seconds", "reward.kind")
            given |= self._everyone()
        if pairs is not None:
            needs.append(pairs)
        read_later = MODEL_FILES if stage.makes == "model" else PAIR_FILES
        make = partial(run_stage, stage=type(stage), settings=settings, start=start, pairs=pairs)
        return Step(name, values, tuple(dict.fromkeys(needs)), make, given, read_later, "training" in stage.uses)

    def of_results(self) -> list[Step]:
        world = self._settings("corpus.kind", "corpus.seconds")
        sampling = self._settings("sampling", "sampling_batch")
        prompts = () if self._synthetic else ("shards",)
        compared = self._settings("evaluate.reference_clips") | world
        heard = () if self._synthetic else ("shards",) if not self._source.has_audio else ("corpus", "shards")
        listener = self._given("models.clap", *(["models.codec"] if not self._source.has_audio else []))
        found = [Step("reference", compared, heard, results.embed_reference, listener)]
        shown = results.stages_of(self.recipe)
        asked = self._settings("evaluate.prompts", "evaluate.seed") | sampling | world
        parts = self._given("models.codec", "models.text_encoder")
        for stage in shown:
            make = partial(results.generate_stage, stage=stage)
            made_by = shown[1] if stage == "baseline" else stage
            found.append(Step(f"clips-{stage}", asked, (made_by, *prompts), make, parts, CLIP_FILES))
        last = f"clips-{shown[-1]}"
        finish = partial(_from_clips, results.finish_clips, last)
        post = self._settings("post", "corpus.seconds")
        found.append(Step(f"clips-{FINISHED}", post, (last,), finish, read_later=CLIP_FILES))
        judges = ("reference", *self._own_reward, *prompts)
        scored = self._settings("evaluate.prompts", "reward.kind") | world
        for stage in (*shown, FINISHED):
            clips = f"clips-{stage}"
            score = partial(_from_clips, results.evaluate_stage, clips)
            found.append(Step(f"scores-{stage}", scored, (clips, *judges), score, self._everyone()))
        swept = list(dict.fromkeys([shown[1], shown[-1]]))
        swept_over = self._settings("evaluate.sweep_prompts", "evaluate.sweep_scores", "evaluate.seed", "reward.kind")
        sweep = sampling | world | swept_over
        for stage in swept:
            make = partial(results.sweep, stage=stage)
            found.append(Step(f"sweep-{stage}", sweep, (stage, *judges), make, self._everyone(), CELL_FILES))
        return found

    def report(self, others: list[Step]) -> Step:
        names = [step.name for step in others]
        shown, swept = ([name.removeprefix(prefix) for name in names if name.startswith(prefix)]
                        for prefix in ("scores-", "sweep-"))  # fmt: skip
        page = partial(write_page, stages=shown, swept=swept, finished=names)
        everything = {name: value for name, value in self._leaves.items() if not name.startswith("training_loop.")}
        given = self._given("report templates", *(["probes", "vocabulary"] if self._synthetic else []))
        return Step("report", everything, tuple(names), page, given, read_later=())

    def _settings(self, *names: str, without: tuple[str, ...] = ()) -> dict[str, Any]:
        return picked(self._leaves, names, without)

    def _given(self, *names: str) -> Given:
        return {name: self._digests[name] for name in names}

    def _reward(self) -> Given:
        """The reward from outside the run, where it takes one."""
        return {} if self.recipe.reward.kind == "train" else self._given("reward.name")

    def _everyone(self) -> Given:
        """All models that clips are made and judged by."""
        models = (f"models.{name}" for name in type(self.recipe.models).model_fields)
        return self._given(*models, *(["probes", "vocabulary"] if self._synthetic else [])) | self._reward()


def _files_digest(*paths: Path) -> str:
    return fingerprint(**{path.name: file_digest(path) for path in paths if path.is_file()})


def _from_clips(make: Any, clips: str, context: Context, folder: Path) -> None:
    make(context, folder, context.path(clips))
