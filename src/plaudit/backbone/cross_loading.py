"""Running weights trained under one score injection in another's forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from plaudit.backbone.config import BackboneConfig
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.backbone.initialization import initialize
from plaudit.errors import ModelError


@dataclass(frozen=True)
class CrossLoadReport:
    """What two injections don't share.

    new: tensors of the target that the weights had nothing for; they are as at initialization.
    unused: tensors of the weights that the target has no place for.
    """

    new: list[str]
    unused: list[str]


def cross_load(state: Mapping[str, Tensor], config: BackboneConfig, seed: int = 0) -> tuple[FluxAudio, CrossLoadReport]:
    """A FluxAudio of `config` with all that it has in common with `state`, a FluxAudio's state dict.

    Only what belongs to a score injection may be new or unused; anything else, or a shape that differs, is a
    ModelError. What is new is drawn from `seed` as in training, so that it adds nothing until trained.
    """
    model = FluxAudio(config)
    initialize(model, seed)
    own = model.state_dict()
    report = CrossLoadReport(new=sorted(own.keys() - state.keys()), unused=sorted(state.keys() - own.keys()))
    foreign = [name for name in report.new + report.unused if not name.startswith("score.")]
    foreign += sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape)
    if foreign:
        raise ModelError(
            f"cannot cross-load: {len(foreign)} tensors outside the score injection differ, {foreign[0]} first; "
            "change nothing but the injection"
        )
    model.load_state_dict({name: state.get(name, own[name]) for name in own})
    return model, report
