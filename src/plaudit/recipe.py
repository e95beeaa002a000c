"""The typed experiment: one YAML file, validated, with any value settable from the command line."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Annotated, Literal

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, model_validator

from plaudit.corpus.embedded.hearing import SHORTEST
from plaudit.corpus.score_table import ID_COLUMN
from plaudit.errors import RecipeError
from plaudit.generate.settings import PostSettings, SamplingSettings
from plaudit.settings import Count, Settings, Share, validated, with_changes
from plaudit.stages.settings import CrossLoadSettings, CrpoSettings, ExpertSettings, LoopSettings, SftSettings

SHIPPED = Path(__file__).parent / "recipes"
"""Recipes that come with the package, so that `plaudit run demo` works without a checkout."""


class CorpusSettings(Settings):
    """Where clips come from. `embedded` renders `size` synthetic clips; `folder` reads `table` (CSV) beside audio.

    Rewards stand in `reward_column` of `table`, or, by track, in a CSV of scores, `score_table`.
    """

    kind: Literal["embedded", "folder"] = "embedded"
    seconds: Annotated[float, Field(ge=1, le=300)] = 10.0
    size: Count = 2000
    seed: int = 0
    flawed_share: Share = 0.5
    miscaptioned_share: Share = 0.1
    folder: Path | None = None
    table: Path | None = None
    file_column: str = "file"
    caption_column: str = "caption"
    reward_column: str | None = None
    score_table: Path | None = None
    score_id_column: str = ID_COLUMN
    validation_share: Share = 0.05
    test_share: Share = 0.05
    shard_size: Count = 512

    @property
    def has_rewards(self) -> bool:
        """Whether the clips' rewards come with them."""
        return self.reward_column is not None or self.score_table is not None

    @model_validator(mode="after")
    def _clips_can_be_had(self) -> CorpusSettings:
        if self.kind == "folder" and (self.folder is None or self.table is None):
            raise ValueError("corpus.kind folder needs corpus.folder and corpus.table (a CSV of files and captions)")
        if self.kind == "embedded" and self.seconds < SHORTEST:
            raise ValueError(f"listeners of the embedded corpus need {SHORTEST} seconds; raise corpus.seconds")
        return self


class ModelNames(Settings):
    """The frozen models around the backbone."""

    codec: str = "embedded"
    text_encoder: str = "embedded"
    clap: str = "embedded"
    audio_embedder: str = "statistics"


class VoteSettings(Settings):
    """Votes of simulated listeners on pairs of clips of the embedded corpus: `pairs` of the training split, and
    `held_out` of the validation and of the test split each."""

    pairs: Count = 8000
    held_out: Count = 2000
    seed: int = 0


class RewardChoice(Settings):
    """`train` fits a new head on the run's votes; `load` takes a reward folder or name; `table` takes the corpus's
    rewards as labels and a loaded reward for everything the run generates."""

    kind: Literal["train", "load", "table"] = "train"
    name: str = "embedded"
    max_epochs: Count = 60
    seed: int = 0


class BackboneSettings(Settings):
    """A preset, with any of its sizes replaced by `overrides`."""

    preset: str = "embedded"
    overrides: dict[str, int] = Field(default_factory=dict)
    seed: int = 0


class StageSettings(Settings):
    """The stages of the chain. Leave one out (null) to end the chain before it; later ones must then be null too."""

    sft: SftSettings
    expert_iteration: ExpertSettings | None = None
    cross_load: CrossLoadSettings | None = None
    crpo: CrpoSettings | None = None

    @model_validator(mode="after")
    def _in_order(self) -> StageSettings:
        names = ("expert_iteration", "cross_load", "crpo")
        for earlier, later in itertools.pairwise(names):
            if getattr(self, later) is not None and getattr(self, earlier) is None:
                raise ValueError(f"stage {later} is out of order: it needs {earlier} before it")
        return self


class EvaluateSettings(Settings):
    """Held-out prompts, the clean reference, and the sweep over the score asked for."""

    prompts: Annotated[int, Field(ge=2)] = 64
    reference: Annotated[int, Field(ge=2)] = 512
    seed: int = 42
    sweep_scores: tuple[float, ...] = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
    sweep_prompts: Annotated[int, Field(ge=2)] = 64
    players: Count = 12


class Recipe(Settings):
    """A whole experiment, from corpus to report."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    precision: Literal["bf16", "no"] = "bf16"
    corpus: CorpusSettings = CorpusSettings()
    models: ModelNames = ModelNames()
    votes: VoteSettings = VoteSettings()
    reward: RewardChoice = RewardChoice()
    backbone: BackboneSettings = BackboneSettings()
    stages: StageSettings
    loop: LoopSettings = LoopSettings()
    sampling: SamplingSettings = SamplingSettings()
    generation_batch: Count = 32
    evaluate: EvaluateSettings = EvaluateSettings()
    post: PostSettings = PostSettings()

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        if self.corpus.kind == "folder" and self.reward.kind == "train":
            raise ValueError("reward.kind train needs votes, which only the embedded corpus has; use load or table")
        if self.reward.kind == "table" and (self.corpus.kind != "folder" or not self.corpus.has_rewards):
            raise ValueError(
                "reward.kind table needs corpus.kind folder, with corpus.reward_column or corpus.score_table"
            )
        return self

    def to_yaml(self) -> str:
        """Every setting as resolved, as a recipe file that gives this recipe again."""
        return OmegaConf.to_yaml(OmegaConf.create(self.model_dump(mode="json")))

    def fingerprint(self) -> str:
        """A short hash of every setting but `loop`, which says how and not what."""
        text = json.dumps(self.model_dump(mode="json", exclude={"loop"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def load_recipe(name_or_path: str, changes: list[str] | None = None) -> Recipe:
    """Read a recipe file, or a shipped one by name, apply `key.path=value` changes, and validate.

    Raises RecipeError, in one line, for a file that is missing or not YAML, an unknown key (naming the nearest known
    one), or a value that doesn't fit.
    """
    path = Path(name_or_path)
    if not path.exists() and (SHIPPED / f"{name_or_path}.yaml").exists():
        path = SHIPPED / f"{name_or_path}.yaml"
    try:
        tree = OmegaConf.load(path)
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.yaml")))
        raise RecipeError(f"no recipe {name_or_path!r}: give a YAML file or one of {known}") from None
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, IsADirectoryError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"{path} is not readable as a recipe: {reason}") from None
    if not isinstance(tree, DictConfig):
        raise RecipeError(f"{path} is not a recipe: it must be a mapping of settings")
    return validated(Recipe, with_changes(tree, changes or [], str(path)), str(path))
