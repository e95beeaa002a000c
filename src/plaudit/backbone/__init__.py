"""The generator's network: FluxAudio, its sizes and score injections, averaged weights, published checkpoints."""

from plaudit.backbone.config import INJECTIONS, PRESETS, BackboneConfig, Injection
from plaudit.backbone.cross_loading import CrossLoadReport, cross_load
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.backbone.initialization import initialize

__all__ = [
    "INJECTIONS",
    "PRESETS",
    "BackboneConfig",
    "CrossLoadReport",
    "FluxAudio",
    "Injection",
    "cross_load",
    "initialize",
]
