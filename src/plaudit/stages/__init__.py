"""Training stages: their interface, and the registry that finds them by name, entry point or file.

A stage is one file: its settings, its loss, and a step from `StageInputs` to a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import AfterValidator, Field

from plaudit.backbone.base import BACKBONES
from plaudit.backbone.injections import INJECTIONS
from plaudit.errors import ModelError, RecipeError
from plaudit.generate.model import TextToMusic
from plaudit.generate.settings import Guidance, SamplingSettings
from plaudit.registry import Registry, absolute_name
from plaudit.settings import Settings
from plaudit.storage import file_digest
from plaudit.training.settings import TrainSettings


def _existing(registry: Registry[Any], name: str) -> str:
    try:
        registry.load(name)
    except ModelError as error:
        raise ValueError(str(error)) from None
    return absolute_name(name)


InjectionName = Annotated[str, AfterValidator(partial(_existing, INJECTIONS))]
"""A name in INJECTIONS, or `path/to/file.py:Class`."""

BackboneName = Annotated[str, AfterValidator(partial(_existing, BACKBONES))]
"""A name in BACKBONES, or `path/to/file.py:Class`."""

Use = Literal["corpus", "candidates", "pairs", "sampling", "training"]


class StageSettings(Settings):
    """Base of every stage's settings.

    kind: a stage's name, or `path/to/file.py:Class`, relative to the recipe. name: of its step and folder; by default
    its kind, numbered from the second one on. start_from: the stage whose model it starts from, by default the one
    before.
    """

    kind: str = ""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")] = ""
    start_from: str | None = None


@dataclass(frozen=True)
class StepCost:
    """The work of a step. training, sampling: floating-point operations. to_encode, to_decode, to_embed: clips that
    pass the codec, and reward and CLAP. unknown: why it cannot be estimated. memory: bytes on the device without
    activations; clips: how many clips' activations are held at once."""

    what: str
    training: float = 0.0
    sampling: float = 0.0
    to_encode: int = 0
    to_decode: int = 0
    to_embed: int = 0
    memory: int = 0
    clips: int = 0
    unknown: str = ""


class Costs(Protocol):
    """Unit costs from which a stage's cost is computed."""

    def training(self, settings: TrainSettings, sides: int = 1, frozen: int = 0) -> StepCost:
        """A training pass. sides: clips in one sample; frozen: forward passes of a frozen network for each clip."""

    def sampling(self, clips: int, guidance: Guidance | None = None) -> float:
        """Floating-point operations of sampling so many clips, by default under the recipe's guidance."""


class Stage:
    """One kind of stage; STAGES finds subclasses by name.

    uses: "corpus" (the training clips with their rewards), "candidates" (clips sampled and scored), "pairs" (the folder
    of the last pairs stage), "sampling" (the sampling settings, if they change its model), "training" (then all
    processes run the stage together). What a stage doesn't name here, its inputs refuse. makes: "model", or "pairs" for
    a stage that leaves preference pairs instead.
    """

    Settings: ClassVar[type[StageSettings]]
    uses: ClassVar[tuple[Use, ...]] = ("training",)
    makes: ClassVar[Literal["model", "pairs"]] = "model"

    def run(self, settings: Any, inputs: Any, folder: Path) -> TextToMusic | None:
        """Fill `folder` and return the model that the stage leaves; None for a stage that makes pairs.

        settings: an instance of `Settings`. inputs: plaudit.stages.inputs.StageInputs. Called again after a kill, it
        must continue from what `folder` holds.
        """
        raise NotImplementedError

    def cost(self, settings: Any, costs: Costs) -> StepCost:
        """The work of the stage; by default the training pass in `settings.train`, if there is one."""
        train = getattr(settings, "train", None)
        return StepCost("") if train is None else costs.training(train)

    def sampling(self, settings: Any, before: SamplingSettings) -> SamplingSettings:
        """How clips of the stage's model are sampled, where those of the model it starts from are sampled as `before`
        says."""
        return before

    def files(self, settings: Any) -> dict[str, Callable[[], str]]:
        """Of each setting that names a file: what computes the digest of its content, "none" where it is missing."""
        fields = {name: getattr(settings, name) for name in type(settings).model_fields}
        return {name: partial(path_digest, value) for name, value in fields.items() if isinstance(value, Path)}


def path_digest(path: Path) -> str:
    """SHA-256 of a file; "none" where there is no file."""
    return file_digest(path) if path.is_file() else "none"


STAGES: Registry[type[Stage]] = Registry(
    "stage",
    "plaudit.stages",
    {
        "sft": "plaudit.stages.sft:SFT",
        "expert_iteration": "plaudit.stages.expert_iteration:ExpertIteration",
        "cross_load": "plaudit.stages.cross_load:CrossLoad",
        "pairs": "plaudit.stages.pairs:Pairs",
        "crpo": "plaudit.stages.crpo:CRPO",
        "nft": "plaudit.stages.nft:NFT",
        "distill": "plaudit.stages.distill:Distill",
    },
    requires=("Settings", "uses", "makes", "run", "cost", "sampling", "files"),
    error=RecipeError,
)
