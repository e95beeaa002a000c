"""Long sequences in chunks, each computed with the context it depends on, so that joins are inaudible.

In a loop the end continues at the beginning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from plaudit.types import Codec

UNKNOWN_CONTEXT = 64
"""Latent frames around the ends of a loop for a codec of unknown receptive field."""


@runtime_checkable
class LongDecoder(Protocol):
    """A codec whose memory for decoding does not grow with the length."""

    def decode_long(self, latents: Tensor, loop: bool = False) -> Tensor:
        """As Codec.decode, [B, N, C] -> [B, N * hop]; in a loop the last sample is followed by the first."""


def decode_piece(codec: Codec, latents: Tensor, loop: bool = False) -> Tensor:
    """Latents [B, N, C] of any length -> wave [B, N * hop], whose end joins its start in a loop.

    A codec that is no LongDecoder decodes all at once, in a loop with 64 frames of the other end around it.
    """
    if isinstance(codec, LongDecoder):
        return codec.decode_long(latents, loop)
    if not loop:
        return codec.decode(latents)
    return next(in_chunks(codec.decode, latents, latents.shape[1], UNKNOWN_CONTEXT, codec.hop, loop=True))


@dataclass(frozen=True)
class FrameRange:
    """Frames `first` to `last` are computed and `start` to `stop` of them kept; in a loop some lie outside."""

    first: int
    start: int
    stop: int
    last: int

    def of(self, x: Tensor) -> Tensor:
        """The computed frames of x [B, N, C]; frames outside are those of the other end."""
        if self.first >= 0 and self.last <= x.shape[1]:
            return x[:, self.first : self.last]
        return x[:, torch.arange(self.first, self.last, device=x.device) % x.shape[1]]


def frame_ranges(count: int, size: int, context: int, loop: bool = False) -> list[FrameRange]:
    """`count` frames in chunks of at most `size`, with `context` frames on either side as far as there are any."""
    return [
        FrameRange(
            start - context if loop else max(0, start - context),
            start,
            min(start + size, count),
            min(start + size, count) + context if loop else min(start + size + context, count),
        )
        for start in range(0, count, size)
    ]


def in_chunks(
    function: Callable[[Tensor], Tensor], x: Tensor, size: int, context: int, ratio: int, loop: bool = False
) -> Iterator[Tensor]:
    """`function` of x [B, N, C] chunk by chunk, with `ratio` outputs to a frame: [B, n * ratio, ...] each.

    Joined, they equal `function` of all of x if an output depends on at most `context` frames on either side.
    """
    for chunk in frame_ranges(x.shape[1], size, context, loop):
        out = function(chunk.of(x))
        yield out[:, (chunk.start - chunk.first) * ratio : (chunk.stop - chunk.first) * ratio]


def cross_faded(
    function: Callable[[Tensor], Tensor], x: Tensor, size: int, context: int, fade: int, ratio: int, loop: bool = False
) -> Tensor:
    """The same, cross-faded, for a function of unlimited context: [B, N * ratio, C'].

    Neighbouring chunks fade into each other over `fade` frames, even, centred on where one would end and the other
    begin; outputs within `context` frames of a chunk's ends are not used.
    """
    count, half = x.shape[1], fade // 2
    total: Tensor | None = None
    for chunk in frame_ranges(count, size, context + half, loop):
        out = function(chunk.of(x))
        if total is None:
            total = out.new_zeros(len(x), count * ratio, out.shape[2])
        at = torch.arange(chunk.first * ratio, chunk.last * ratio)
        # As a difference, the weights of all chunks sum to one even where chunks are shorter than their fades.
        weight = _rise(at, chunk.start * ratio, fade * ratio) if loop or chunk.start > 0 else torch.ones(len(at))
        if loop or chunk.stop < count:
            weight = weight - _rise(at, chunk.stop * ratio, fade * ratio)
        total.index_add_(1, (at % (count * ratio)).to(x.device), out * weight.to(out)[:, None])
    assert total is not None
    return total


def _rise(at: Tensor, centre: int, width: int) -> Tensor:
    """From 0 to 1, a raised cosine over `width` outputs around the boundary before output `centre`."""
    place = ((at + 0.5 - centre) / max(width, 1) + 0.5).clamp(0, 1)
    return (1 - (math.pi * place).cos()) / 2
