"""The typed experiment: one YAML file, validated, with any value settable from the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, SerializeAsAny, field_validator, model_validator

from plaudit.backbone.config import FLUXAUDIO
from plaudit.corpus.sources import CorpusSettings, corpus_source
from plaudit.errors import RecipeError
from plaudit.generate.settings import PostSettings, SamplingSettings, Solver, Steps
from plaudit.settings import (
    MOST,
    Count,
    NotNegative,
    PlainScalar,
    Positive,
    Precision,
    Score,
    Seed,
    Settings,
    nearest,
    plain,
    read_yaml,
    shortened,
    validated,
    with_changes,
)
from plaudit.stages import STAGES, BackboneName, InjectionName, Stage, StageSettings
from plaudit.storage import digest_of
from plaudit.training.settings import LoopSettings

STEPS = ("corpus", "shards", "systems", "features", "votes", "reward", "labels", "reference", "report")
ROWS = ("baseline", "unscored", "finished")
"""Rows of the report besides the stages."""

STEP_PREFIXES = ("clips", "scores", "values", "sweep")
"""Names in a run folder that no stage may have."""

RECORDED_SYSTEMS = ("corpus", "codec")
"""Systems in votes that are no models: clips of the corpus, and their round trips through the codec."""

SHIPPED_RECIPES = Path(__file__).parent / "recipes"
"""Recipes that come with the package, so that `plaudit run demo` works without a checkout."""


class ModelNames(Settings):
    """The frozen models around the backbone."""

    codec: str = "synthetic"
    text_encoder: str = "synthetic"
    clap: str = "synthetic"
    audio_embedder: str = "statistics"


class SystemSettings(Settings):
    """A system whose clips listeners compare: a model by its name or folder, and how it is sampled.

    name: of the system in votes; by default the model's. clips: of each prompt, with different seeds. What is not set
    here is as in the model's own sampling settings.
    """

    model: Annotated[str, Field(min_length=1)]
    name: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_-]*)?$")] = ""
    clips: Count = 1
    steps: Steps | None = None
    solver: Solver | None = None
    shift: Positive | None = None
    guidance: NotNegative | None = None
    score: Score | None = None

    @property
    def label(self) -> str:
        """What votes call it."""
        return self.name or self.model.rstrip("/").rpartition("/")[2]

    def sampling(self, settings: SamplingSettings) -> SamplingSettings:
        """The sampling settings of a model with what is set here in place of its own."""
        return settings.changed(
            steps=self.steps, solver=self.solver, shift=self.shift, weight=self.guidance, score=self.score
        )


class SystemVoteSettings(Settings):
    """Votes on what systems generate: listeners compare two clips of one prompt, each of any system or seed.

    prompts: captions of the training split, and an eighth as many of the validation and of the test split each.
    pairs: of the training split. validation_pairs: of the validation and of the test split each. Besides `systems`, the
    clip that a caption belongs to takes part as `corpus`, and its round trip through the codec as `codec`.
    """

    prompts: Annotated[int, Field(ge=16, le=MOST)] = 256
    pairs: Count = 8000
    validation_pairs: Count = 1000
    systems: Annotated[tuple[SystemSettings, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_differ(self) -> SystemVoteSettings:
        names = [*RECORDED_SYSTEMS, *(system.label for system in self.systems)]
        if doubled := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two systems are called {doubled[0]}; give one another name")
        return self


class VoteSettings(Settings):
    """Votes of simulated listeners on pairs of clips of the synthetic corpus: `pairs` of the training split, and
    `validation_pairs` of the validation and of the test split each; and, where `generated` is set, on what systems
    generate."""

    pairs: Count = 8000
    validation_pairs: Count = 2000
    generated: SystemVoteSettings | None = None
    seed: Seed = 0


class RewardSourceSettings(Settings):
    """`train` fits TuneJury's head on the run's votes; `load` takes the reward called `name`, of any kind: built in,
    installed, FILE.py:NAME (relative to the recipe) or a model folder; `table` takes the corpus's rewards as labels,
    and `name` for the clips that the run generates."""

    kind: Literal["train", "load", "table"] = "train"
    name: str = "synthetic"
    max_epochs: Count = 60
    seed: Seed = 0


class BackboneSettings(Settings):
    """The network that the first stage trains: a preset, with any of its sizes replaced by `overrides`; or, with
    `start_from`, network and weights of a model, by its name or folder.

    kind: the class of the network; FluxAudio's sizes are those of the preset, another's are in `overrides`. injection:
    where the conditioning score enters; by default "global_adaln", the paper's, or that of `start_from`.
    """

    kind: BackboneName = FLUXAUDIO
    preset: str = "synthetic"
    injection: InjectionName | None = None
    overrides: dict[str, int] = Field(default_factory=dict)
    start_from: str | None = None
    seed: Seed = 0

    @model_validator(mode="after")
    def _has_one_source_of_sizes(self) -> BackboneSettings:
        if self.start_from is not None and self.overrides:
            raise ValueError("backbone.overrides would change the network of backbone.start_from; leave them out")
        if self.kind != FLUXAUDIO and self.preset != "synthetic":
            raise ValueError(f"preset {self.preset} is of kind {FLUXAUDIO}; give the sizes in overrides")
        return self


class BaselineSettings(Settings):
    """A model that is the first row of the report, sampled without score, prefix and suffix, otherwise as the stages.

    model: its name or folder. guidance: weight of constant guidance. negative_prompt: "" is the encoding of the empty
    string.
    """

    model: Annotated[str, Field(min_length=1)]
    guidance: NotNegative = 4.5
    negative_prompt: str = ""


class EvaluateSettings(Settings):
    """Held-out prompts, reference clips, and the sweep over the conditioning score, which an empty list leaves out.

    prompts: how many. prompt_file: a list of prompts (`plaudit generate --prompts`), whose first ones are taken instead
    of the corpus's. reference: a folder of audio or an exported reference (`plaudit evaluate --export-reference`)
    instead of `reference_clips` clips of the corpus. audio_language_model, tags: for the metric challenge-concepts, as
    of `plaudit evaluate`.
    """

    prompts: Annotated[int, Field(ge=2, le=MOST)] = 64
    prompt_file: Path | None = None
    reference: Path | None = None
    baseline: BaselineSettings | None = None
    reference_clips: Annotated[int, Field(ge=2, le=MOST)] = 512
    seed: Seed = 42
    sweep_scores: tuple[Score, ...] = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
    sweep_prompts: Annotated[int, Field(ge=2, le=MOST)] = 64
    metrics: tuple[str, ...] = ()
    audio_language_model: Annotated[str, Field(min_length=1)] | None = None
    tags: Path | None = None
    audio_players: Count = 12

    @model_validator(mode="after")
    def _tags_are_asked(self) -> EvaluateSettings:
        if self.tags is not None and self.audio_language_model is None:
            raise ValueError("evaluate.tags need a model that answers; set evaluate.audio_language_model")
        return self


class Recipe(Settings):
    """A whole experiment, from corpus to report."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    precision: Precision = "bf16"
    corpus: CorpusSettings = CorpusSettings()
    models: ModelNames = ModelNames()
    votes: VoteSettings = VoteSettings()
    reward: RewardSourceSettings = RewardSourceSettings()
    backbone: BackboneSettings = BackboneSettings()
    stages: tuple[SerializeAsAny[StageSettings], ...]
    training_loop: LoopSettings = LoopSettings()
    sampling: SamplingSettings = SamplingSettings()
    sampling_batch: Count = 32
    evaluate: EvaluateSettings = EvaluateSettings()
    post: PostSettings = PostSettings()

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        corpus = corpus_source(self.corpus)
        if not corpus.truth_known and self.reward.kind == "train":
            raise ValueError("reward.kind train needs votes, which only the synthetic corpus has; use load or table")
        if not corpus.has_audio and self.reward.kind != "table":
            raise ValueError("a shard set has no audio to score; set reward.kind table for its rewards")
        if self.reward.kind == "table" and not corpus.has_rewards:
            raise ValueError(
                "reward.kind table needs corpus.kind shards, or folder with corpus.reward_column or corpus.score_table"
            )
        return self

    @field_validator("stages", mode="before")
    @classmethod
    def _of_their_kinds(cls, entries: Any) -> tuple[StageSettings, ...]:
        return parse_stages(entries)

    @model_validator(mode="after")
    def _stages_fit(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        if doubled := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two stages are called {doubled[0]}; give one another name")
        if reserved := [name for name in names if name in (*STEPS, *ROWS) or name.partition("-")[0] in STEP_PREFIXES]:
            raise ValueError(f"stage {reserved[0]} has the name of another step; give it another name")
        if not self.model_stages:
            raise ValueError("stages has none that leaves a model; add one, e.g. {kind: sft, train: ...}")
        for place, stage in enumerate(self.stages):
            kind, models = stage_of(stage), self.earlier(stage.name, "model")
            if stage.start_from is not None and stage.start_from not in models:
                there = ", ".join(models) or "none"
                raise ValueError(f"stages.{stage.name}.start_from is {stage.start_from}; models before it: {there}")
            try:
                self.sampling_of(stage.name)
            except RecipeError as error:
                raise ValueError(str(error)) from None
            if "pairs" in kind.uses and not self.earlier(stage.name, "pairs"):
                raise ValueError(f"stage {stage.name} needs pairs before it; add a stage {{kind: pairs}}")
            if kind.makes == "pairs" and not any(self.pairs_of(n) == stage.name for n in names[place:]):
                raise ValueError(f"nothing uses the pairs of stage {stage.name}; add crpo or nft after it or remove it")
        return self

    @property
    def model_stages(self) -> list[str]:
        """The names of the stages that leave a model, in order."""
        return [stage.name for stage in self.stages if stage_of(stage).makes == "model"]

    def stage(self, name: str) -> StageSettings:
        """The settings of the stage called `name`."""
        return next(stage for stage in self.stages if stage.name == name)

    def earlier(self, name: str, makes: str) -> list[str]:
        """The stages before the stage `name` that leave a "model" or "pairs", in order."""
        place = [stage.name for stage in self.stages].index(name)
        return [stage.name for stage in self.stages[:place] if stage_of(stage).makes == makes]

    def start_of(self, name: str) -> str | None:
        """The stage whose model the stage `name` starts from; None for the first, which starts from the backbone."""
        models = self.earlier(name, "model")
        return self.stage(name).start_from or (models[-1] if models else None)

    def sampling_of(self, name: str) -> SamplingSettings:
        """How clips of the model of stage `name` are sampled: as the recipe says, unless a stage changes it."""
        start, settings = self.start_of(name), self.stage(name)
        before = self.sampling if start is None else self.sampling_of(start)
        return stage_of(settings).sampling(settings, before)

    @property
    def swept_stages(self) -> list[str]:
        """The first and the last of the stages whose models are sampled as `sampling` says, with any score."""
        stages = [name for name in self.model_stages if self.sampling_of(name) == self.sampling]
        return list(dict.fromkeys([stages[0], stages[-1]])) if stages and self.evaluate.sweep_scores else []

    def pairs_of(self, name: str) -> str | None:
        """The pairs stage that the stage `name` uses: the last one before it."""
        pairs = self.earlier(name, "pairs") if "pairs" in stage_of(self.stage(name)).uses else []
        return pairs[-1] if pairs else None

    def to_yaml(self) -> str:
        """Every setting as resolved, as a recipe file that gives this recipe again."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def fingerprint(self) -> str:
        """A short hash of every setting but `training_loop`, which does not affect results."""
        text = json.dumps(self.model_dump(mode="json", exclude={"training_loop"}), sort_keys=True)
        return digest_of(text.encode())[:12]


def stage_of(settings: StageSettings) -> Stage:
    """The stage that settings are of."""
    return STAGES.load(settings.kind)()


REPEAT_SEED_STEP = 100_000
"""More than the clips that a stage draws, whose seeds follow each other."""


def parse_stages(entries: Any, source: str = "") -> tuple[StageSettings, ...]:
    """The entries of `stages`, each validated by the settings of its kind, with its default name.

    A stage that repeats a kind draws other captions and clips than the one before: where its `seed` is not given, it is
    REPEAT_SEED_STEP higher. RecipeError, in one line that begins with `source`.
    """
    prefix = f"{source}: " if source else ""
    stages: list[StageSettings] = []
    kinds: list[str] = []
    for name, entry in _named_stages(entries, prefix).items():
        if isinstance(entry, StageSettings):
            kinds.append(entry.kind)
            stages.append(entry.model_copy(update={"name": name}))
            continue
        kind = str(entry["kind"])
        repeats = kinds.count(kind)
        kinds.append(kind)
        try:
            settings = STAGES.load(kind).Settings
        except RecipeError as error:
            raise RecipeError(f"{prefix}stages.{name}: {error}") from None
        seed = settings.model_fields.get("seed")
        drawn = {"seed": seed.default + repeats * REPEAT_SEED_STEP} if seed is not None and repeats else {}
        stages.append(validated(settings, {**drawn, **entry, "kind": kind, "name": name}, f"{prefix}stages.{name}"))
    return tuple(stages)


def _named_stages(entries: Any, prefix: str) -> dict[str, Any]:
    """The entries of `stages` by name, by default their kind, numbered from the second of a kind on."""
    entries = plain(entries)
    if isinstance(entries, Mapping):
        raise RecipeError(f"{prefix}stages is a list now: - {{kind: sft, train: ...}}; docs/recipes.md has examples")
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise RecipeError(f"{prefix}stages must be a list of stages, each {{kind: ..., ...}}")
    named: dict[str, Any] = {}
    for number, entry in enumerate(entries):
        entry = plain(entry)
        values = entry.__dict__ if isinstance(entry, StageSettings) else entry
        if not (isinstance(values, Mapping) and values.get("kind")):
            raise RecipeError(f"{prefix}stages.{number} has no kind; kinds of stages are {', '.join(STAGES.names())}")
        name = values.get("name")
        kind = default = str(values["kind"]).rpartition(":")[2]
        while not name and default in named:
            default = f"{kind}-{int(default[len(kind) + 1 :] or 1) + 1}"
        if name in named:
            raise RecipeError(f"{prefix}two stages are called {name}; give one another name")
        named[str(name or default)] = entry
    return named


def _changed(tree: dict[Any, Any], change: str, source: str) -> dict[Any, Any]:
    """`with_changes` for one change; of a stage by its name or number. A stage set to null is removed, and one that is
    not there is added at the end."""
    parts, entries = change.partition("=")[0].strip().split("."), plain(tree.get("stages"))
    if parts[0] != "stages" or len(parts) < 2 or not isinstance(entries, list):
        return with_changes(tree, [change], source)
    stages = _named_stages(entries, f"{source}: ")
    name = parts[1]
    if name.isdecimal():
        if int(name) >= len(stages):
            raise RecipeError(f"{source}: there is no stages.{name}; the recipe has {len(stages)} stages")
        name = list(stages)[int(name)]
        change = change.replace(f"stages.{parts[1]}", f"stages.{name}", 1)
    changed = with_changes(tree | {"stages": stages}, [change], source)
    entries = {key: plain(one) for key, one in changed["stages"].items()}
    if name not in stages and isinstance(entries[name], Mapping):
        if name not in STAGES.names() and "kind" not in entries[name]:
            near = nearest(name, [*stages, *STAGES.names()])
            hint = f"did you mean {near}?" if near else f"kinds of stages are {', '.join(STAGES.names())}"
            raise RecipeError(f"{source}: the recipe has no stage {name}; {hint}")
        entries[name] = {"kind": name, **entries[name]}
    return changed | {"stages": [one for one in entries.values() if one is not None]}


RENAMED_KEYS = {
    "loop": "training_loop",
    "training_loop.explosion": "max_loss_ratio",
    "training_loop.readers": "loader_threads",
    "votes.held_out": "validation_pairs",
    "evaluate.players": "audio_players",
    "generation_batch": "sampling_batch",
    "corpus.flawed_share": "flawed_fraction",
    "corpus.miscaptioned_share": "miscaptioned_fraction",
    "corpus.validation_share": "validation_fraction",
    "corpus.test_share": "test_fraction",
    "sampling.trajectory.share": "weight",
    "stages.sft.injection": "backbone.injection",
    "stages.expert_iteration.polish": "fine_tune",
    "stages.expert_iteration.corpus": "include_corpus",
    "stages.pairs.by": "criterion",
    "stages.nft.by": "criterion",
    "stages.nft.advantages": "advantage",
    "stages.nft.clip": "max_advantage",
    "stages.*.train.clip": "max_grad_norm",
}
"""Keys of earlier recipes, with `*` for any stage, and what they are called now: for the message alone."""


def _check_renamed(values: Any, source: str, prefix: str = "") -> None:
    """RecipeError for the first key that has another name now."""
    if isinstance(values, list) and prefix == "stages.":
        values = _named_stages(values, f"{source}: ")
    for name, value in values.items() if isinstance(values, Mapping) else ():
        key = f"{prefix}{name}"
        for old, new in RENAMED_KEYS.items():
            if fnmatchcase(key, old) and key.count(".") == old.count("."):
                raise RecipeError(f"{source}: {key} is called {new} now")
        _check_renamed(plain(value), source, f"{key}.")


def load_recipe(name_or_path: str, changes: list[str] | None = None) -> Recipe:
    """Read a recipe file, or a shipped one by name (`demo`, or as in a checkout `recipes/demo.yaml`), apply
    `key.path=value` changes, and validate.

    Raises RecipeError, in one line, for a file that is missing or not YAML, an unknown key (naming the nearest known
    one), or a value that doesn't fit.
    """
    path = Path(name_or_path)
    shipped = SHIPPED_RECIPES / f"{path.stem}.yaml"
    if path in (Path(shipped.stem), Path("recipes", shipped.name)) and not os.path.isfile(path):
        path = shipped if os.path.exists(shipped) else path
    try:
        tree = read_yaml(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        names = ", ".join(sorted(p.stem for p in SHIPPED_RECIPES.glob("*.yaml")))
        raise RecipeError(f"no recipe {name_or_path!r}: give a YAML file or one of {names}") from None
    except (yaml.YAMLError, OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else shortened(" ".join(str(error).split()), 300)
        raise RecipeError(f"{path} is not readable as a recipe: {reason}") from None
    if not isinstance(tree, dict):
        raise RecipeError(f"{path} is not a recipe: it must be a mapping of settings")
    for change in changes or []:
        tree = _changed(tree, change, str(path))
    _check_renamed(tree, str(path))
    tree = _with_absolute_files(tree, path.parent)
    if "stages" in tree:
        tree = tree | {"stages": parse_stages(tree["stages"], str(path))}
    return validated(Recipe, tree, str(path))


def _with_absolute_files(value: Any, folder: Path) -> Any:
    """A setting in which `path/to/file.py:NAME`, where that file lies in the recipe's folder, has an absolute path."""
    if isinstance(value, PlainScalar) and isinstance(value.value, dict | list):
        value = value.value
    if isinstance(value, dict):
        return {key: _with_absolute_files(inner, folder) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_absolute_files(inner, folder) for inner in value]
    file = value.rpartition(":")[0] if isinstance(value, str) else ""
    return str((folder / value).absolute()) if file.endswith(".py") and (folder / file).is_file() else value
