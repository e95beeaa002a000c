"""The typed experiment: one YAML file, validated, with any value settable from the command line."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, model_validator

from plaudit.corpus.sources import CorpusSettings, corpus_source
from plaudit.errors import RecipeError
from plaudit.generate.settings import PostSettings, SamplingSettings
from plaudit.plain_yaml import read_yaml
from plaudit.settings import (
    MOST,
    Count,
    Precision,
    Score,
    Seed,
    Settings,
    shortened,
    validated,
    with_changes,
)
from plaudit.training.settings import (
    CrossLoadSettings,
    CrpoSettings,
    ExpertIterationSettings,
    LoopSettings,
    NftSettings,
    PairSettings,
    SftSettings,
)

MODEL_STAGES = ("sft", "expert_iteration", "cross_load", "crpo", "nft")
"""Every stage that leaves a model, in the chain's order."""

SHIPPED_RECIPES = Path(__file__).parent / "recipes"
"""Recipes that come with the package, so that `plaudit run demo` works without a checkout."""


class ModelNames(Settings):
    """The frozen models around the backbone."""

    codec: str = "synthetic"
    text_encoder: str = "synthetic"
    clap: str = "synthetic"
    audio_embedder: str = "statistics"


class VoteSettings(Settings):
    """Votes of simulated listeners on pairs of clips of the synthetic corpus: `pairs` of the training split, and
    `validation_pairs` of the validation and of the test split each."""

    pairs: Count = 8000
    validation_pairs: Count = 2000
    seed: Seed = 0


class RewardSourceSettings(Settings):
    """`train` fits a new head on the run's votes; `load` takes a reward folder or name; `table` takes the corpus's
    rewards as labels and a loaded reward for everything the run generates."""

    kind: Literal["train", "load", "table"] = "train"
    name: str = "synthetic"
    max_epochs: Count = 60
    seed: Seed = 0


class BackboneSettings(Settings):
    """A preset, with any of its sizes replaced by `overrides`; or, with `start_from`, the network and the weights of a
    model by its name or folder, which training then goes on from."""

    preset: str = "synthetic"
    overrides: dict[str, int] = Field(default_factory=dict)
    start_from: str | None = None
    seed: Seed = 0

    @model_validator(mode="after")
    def _has_one_source_of_sizes(self) -> BackboneSettings:
        if self.start_from is not None and self.overrides:
            raise ValueError("backbone.overrides would change the network of backbone.start_from; leave them out")
        return self


class StageSettings(Settings):
    """The stages of the chain. Any but the first may be left out (null); each begins with what the one before left."""

    sft: SftSettings
    expert_iteration: ExpertIterationSettings | None = None
    cross_load: CrossLoadSettings | None = None
    pairs: PairSettings | None = None
    crpo: CrpoSettings | None = None
    nft: NftSettings | None = None

    @model_validator(mode="after")
    def _fit(self) -> StageSettings:
        if self.crpo is not None and self.nft is not None:
            raise ValueError("crpo and nft are two ways to do the same; leave one of them out")
        for name in ("crpo", "nft"):
            if getattr(self, name) is not None and self.pairs is None:
                raise ValueError(f"stage {name} needs pairs before it; add stages.pairs")
        if self.pairs is not None and self.crpo is None and self.nft is None:
            raise ValueError("stages.pairs is for crpo or nft; add one of them or leave pairs out")
        return self

    @property
    def models(self) -> list[str]:
        """The stages that leave a model, in order."""
        return [name for name in MODEL_STAGES if getattr(self, name) is not None]

    def before(self, stage: str) -> str:
        """The stage whose model `stage` (pairs too) begins with."""
        earlier = MODEL_STAGES[: MODEL_STAGES.index("crpo" if stage in ("pairs", "nft") else stage)]
        return [name for name in earlier if getattr(self, name) is not None][-1]


class EvaluateSettings(Settings):
    """Held-out prompts, the clean reference, and the sweep over the score asked for."""

    prompts: Annotated[int, Field(ge=2, le=MOST)] = 64
    reference_clips: Annotated[int, Field(ge=2, le=MOST)] = 512
    seed: Seed = 42
    sweep_scores: tuple[Score, ...] = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
    sweep_prompts: Annotated[int, Field(ge=2, le=MOST)] = 64
    audio_players: Count = 12


class Recipe(Settings):
    """A whole experiment, from corpus to report."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    precision: Precision = "bf16"
    corpus: CorpusSettings = CorpusSettings()
    models: ModelNames = ModelNames()
    votes: VoteSettings = VoteSettings()
    reward: RewardSourceSettings = RewardSourceSettings()
    backbone: BackboneSettings = BackboneSettings()
    stages: StageSettings
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
            raise ValueError("a shard set has no audio to reward, but its own rewards: set reward.kind table")
        if self.reward.kind == "table" and not corpus.has_rewards:
            raise ValueError(
                "reward.kind table needs corpus.kind shards, or folder with corpus.reward_column or corpus.score_table"
            )
        return self

    def to_yaml(self) -> str:
        """Every setting as resolved, as a recipe file that gives this recipe again."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def fingerprint(self) -> str:
        """A short hash of every setting but `training_loop`, which says how and not what."""
        text = json.dumps(self.model_dump(mode="json", exclude={"training_loop"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


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
        known = ", ".join(sorted(p.stem for p in SHIPPED_RECIPES.glob("*.yaml")))
        raise RecipeError(f"no recipe {name_or_path!r}: give a YAML file or one of {known}") from None
    except (yaml.YAMLError, OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else shortened(" ".join(str(error).split()), 300)
        raise RecipeError(f"{path} is not readable as a recipe: {reason}") from None
    if not isinstance(tree, dict):
        raise RecipeError(f"{path} is not a recipe: it must be a mapping of settings")
    return validated(Recipe, with_changes(tree, changes or [], str(path)), str(path))
