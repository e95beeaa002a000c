"""Ways to take FluxAudio-S's kernel-3 convolutions in bfloat16 on a CPU: `python benchmarks/convolutions.py [rows]`.

PyTorch's convolution, one matrix product over unfolded rows (what sampling uses), and Winograd's minimal filtering with
two and four outputs a tile (Lavin and Gray, arXiv 1509.09308), which multiplies 1.5 and 2 times less often, adds more.
Prints the time of each, and its relative RMS error against float64.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from plaudit.backbone.fluxaudio import UnfoldedConv
from plaudit.backbone.layers import SequenceConv

FRAMES = 430
SHAPES = ((448, 2560), (1280, 448), (448, 448))
"""Channels in and out: the gated MLP's two layers, and the attention's output."""

Transforms = tuple[list[list[float]], list[list[float]], list[list[float]]]
"""Of the input tile, the kernel, and the products."""

F23: Transforms = (
    [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
    [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]],
    [[1, 1, 1, 0], [0, 1, -1, -1]],
)
F43: Transforms = (
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
)


def winograd(weight: Tensor, transforms: Transforms) -> Callable[[Tensor], Tensor]:
    """The convolution with `weight` [out, in, 3] of x [B, N, in], its kernel transformed once."""
    of_input, of_kernel, of_products = (torch.tensor(rows) for rows in transforms)
    kernels = torch.einsum("jk,ock->jco", of_kernel, weight).bfloat16().contiguous()
    made, seen = of_products.shape[0], of_input.shape[1]

    def total(row: Tensor, parts: list[Tensor]) -> Tensor:
        pairs = [(factor, part) for factor, part in zip(row.tolist(), parts, strict=True) if factor]
        terms = [part if factor == 1 else factor * part for factor, part in pairs]
        return sum(terms[1:], terms[0])

    def convolve(x: Tensor) -> Tensor:
        batch, length, width = x.shape
        tiles = -(-length // made)
        padded = F.pad(x, (0, 0, 1, made * tiles - length + 1))
        parts = [padded[:, first : first + made * (tiles - 1) + 1 : made] for first in range(seen)]
        turned = torch.stack([total(row, parts) for row in of_input]).view(seen, -1, width)
        products = list(torch.bmm(turned, kernels).view(seen, batch, tiles, -1))
        out = torch.stack([total(row, products) for row in of_products], dim=2)
        return out.view(batch, made * tiles, -1)[:, :length]

    return convolve


def milliseconds(work: Callable[[], object], repeats: int = 15) -> float:
    """The median."""
    work()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return 1000 * statistics.median(taken)


@torch.inference_mode()
def main(rows: int) -> None:
    """Prints a line a shape and way."""
    for width, out in SHAPES:
        x = torch.randn(rows, FRAMES, width, generator=torch.Generator().manual_seed(0)).bfloat16()
        conv = SequenceConv(width, out, 3, bias=False)
        exact = F.conv1d(x.double().transpose(1, 2), conv.weight.double(), padding=1).transpose(1, 2)
        ways: dict[str, Callable[[Tensor], Tensor]] = {
            "unfolded": UnfoldedConv(conv, torch.bfloat16),
            "conv1d": conv.bfloat16(),
            "winograd 2": winograd(conv.weight.float(), F23),
            "winograd 4": winograd(conv.weight.float(), F43),
        }
        usual = None
        for name, way in ways.items():
            taken = milliseconds(partial(way, x))
            usual = usual or taken
            error = float((way(x).double() - exact).norm() / exact.norm())
            print(f"{width:5} to {out:5} {name:11}{taken:7.1f} ms, {taken / usual:4.2f} of unfolded, error {error:.4f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
