"""Implementations of FluxAudio-S's convolutions with kernel 3, in bfloat16 on a CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from plaudit.backbone.fluxaudio import UnfoldedConv
from plaudit.backbone.layers import SequenceConv

FRAMES = 430
SHAPES = ((448, 2560), (1280, 448), (448, 448))
"""Channels in and out: the gated MLP's two layers, and the attention's output."""

Transforms = tuple[list[list[float]], list[list[float]], list[list[float]]]
"""Of the input tile, of the kernel, and of the products."""

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
    """The convolution of x [B, N, in] with `weight` [out, in, 3], whose transform is computed once."""
    to_input, to_kernel, to_output = (torch.tensor(rows) for rows in transforms)
    kernels = torch.einsum("jk,ock->jco", to_kernel, weight).bfloat16().contiguous()
    outputs, inputs = to_output.shape[0], to_input.shape[1]

    def total(row: Tensor, parts: list[Tensor]) -> Tensor:
        pairs = [(factor, part) for factor, part in zip(row.tolist(), parts, strict=True) if factor]
        terms = [part if factor == 1 else factor * part for factor, part in pairs]
        return sum(terms[1:], terms[0])

    def convolve(x: Tensor) -> Tensor:
        batch, length, width = x.shape
        tiles = -(-length // outputs)
        padded = F.pad(x, (0, 0, 1, outputs * tiles - length + 1))
        parts = [padded[:, first : first + outputs * (tiles - 1) + 1 : outputs] for first in range(inputs)]
        transformed = torch.stack([total(row, parts) for row in to_input]).view(inputs, -1, width)
        products = list(torch.bmm(transformed, kernels).view(inputs, batch, tiles, -1))
        out = torch.stack([total(row, products) for row in to_output], dim=2)
        return out.view(batch, outputs * tiles, -1)[:, :length]

    return convolve


def milliseconds(work: Callable[[], object], repeats: int = 15) -> float:
    """The median over `repeats` runs after one to warm up."""
    work()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return 1000 * statistics.median(taken)


@torch.inference_mode()
def main(rows: Annotated[int, typer.Argument(min=1)] = 2) -> None:
    """Time and relative RMS error, against float64, of kernel-3 convolutions over ROWS clips.

    Compared are PyTorch's convolution, one matrix product over unfolded rows (used in sampling), and Winograd's minimal
    filtering with two and four outputs per tile (Lavin and Gray, arXiv 1509.09308).
    """
    for width, out in SHAPES:
        x = torch.randn(rows, FRAMES, width, generator=torch.Generator().manual_seed(0)).bfloat16()
        conv = SequenceConv(width, out, 3, bias=False)
        exact = F.conv1d(x.double().transpose(1, 2), conv.weight.double(), padding=1).transpose(1, 2)
        methods: dict[str, Callable[[Tensor], Tensor]] = {
            "unfolded": UnfoldedConv(conv, torch.bfloat16),
            "conv1d": conv.bfloat16(),
            "winograd 2": winograd(conv.weight.float(), F23),
            "winograd 4": winograd(conv.weight.float(), F43),
        }
        baseline = None
        for name, method in methods.items():
            taken = milliseconds(partial(method, x))
            baseline = baseline or taken
            error = float((method(x).double() - exact).norm() / exact.norm())
            relative = f"{taken:7.1f} ms, {taken / baseline:4.2f} of unfolded"
            print(f"{width:5} to {out:5} {name:11}{relative}, error {error:.4f}")


if __name__ == "__main__":
    typer.run(main)
