"""The generator's network: FluxAudio and others like it, score injections, averaged weights, published checkpoints."""

from plaudit.backbone.base import (
    BACKBONES,
    Backbone,
    Conditions,
    CrossLoadReport,
    build_backbone,
    build_injection,
    cross_load,
    initialize,
)
from plaudit.backbone.config import PRESETS, BackboneConfig, FluxAudioConfig
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.backbone.injections import INJECTIONS, ScoreInjection

__all__ = [
    "BACKBONES",
    "INJECTIONS",
    "PRESETS",
    "Backbone",
    "BackboneConfig",
    "Conditions",
    "CrossLoadReport",
    "FluxAudio",
    "FluxAudioConfig",
    "ScoreInjection",
    "build_backbone",
    "build_injection",
    "cross_load",
    "initialize",
]
