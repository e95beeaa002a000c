"""The generator's network: FluxAudio, its sizes and score injections, averaged weights, published checkpoints."""

from plaudit.backbone.config import INJECTIONS, PRESETS, BackboneConfig, Injection
from plaudit.backbone.fluxaudio import CrossLoadReport, FluxAudio, cross_load, initialize

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
