"""Cross-loading: the same weights in the forward pass of another injection, without training."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from plaudit.backbone.base import cross_load
from plaudit.generate.model import TextToMusic
from plaudit.stages import InjectionName, Stage, StageSettings
from plaudit.stages.inputs import StageInputs
from plaudit.storage import write_json


class CrossLoadSettings(StageSettings):
    """injection: the one whose forward pass the weights run in from here on."""

    injection: InjectionName = "input_add"


class CrossLoad(Stage):
    """A change of injection; `cross_load.json` says which weights were shared."""

    Settings = CrossLoadSettings
    uses = ()

    def run(self, settings: CrossLoadSettings, inputs: StageInputs, folder: Path) -> TextToMusic:
        """The model with its shared weights, the others as at initialization."""
        model = inputs.model()
        config = replace(model.config.backbone, injection=settings.injection)
        backbone, report = cross_load(model.backbone.state_dict(), config)
        write_json(folder / "cross_load.json", asdict(report))
        return TextToMusic(backbone, model.codec, model.text_encoder, model.config)
