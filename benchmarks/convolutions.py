"""Forms of FluxAudio's convolutions and attention: which are fastest on this device, forward and backward."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from plaudit.backbone import forms
from plaudit.loading import resolve_device
from plaudit.machine import seconds_of

# rows, frames, channels in and out, kernel
SYNTHETIC = ((32, 78, 128, 768, 3), (32, 78, 384, 128, 3), (32, 78, 128, 128, 3), (32, 78, 128, 768, 7))
FLUXAUDIO_S = ((2, 430, 448, 2560, 3), (2, 430, 1280, 448, 3), (2, 430, 448, 448, 3))
# rows, heads, positions, channels of a head
ATTENTION = ((32, 2, 110, 64), (32, 5, 110, 32), (2, 7, 507, 64), (1, 7, 1500, 64))


def shifted_products(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """One product of each row with the kernel's matrices side by side, then a sum of shifted parts."""
    kernel, length, outputs = weight.shape[2], x.shape[1], weight.shape[0]
    products = F.linear(x, weight.permute(2, 0, 1).flatten(0, 1))
    padded = F.pad(products, (0, 0, kernel // 2, kernel // 2)).unflatten(2, (kernel, outputs))
    total = sum(padded[:, start : start + length, start] for start in range(1, kernel)) + padded[:, :length, 0]
    return total if bias is None else total + bias


def sdpa(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """PyTorch's fused attention."""
    return F.scaled_dot_product_attention(queries, keys, values)


CONVOLUTIONS: dict[str, Callable[..., Tensor]] = {
    "product": forms.convolve_by_product,
    "conv1d": forms.convolve_by_conv1d,
    "conv2d": forms.convolve_by_conv2d,
    "shifted products": shifted_products,
}
ATTENTIONS = {"products": forms.attend_by_products, "fused": sdpa}


def normal(*shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Standard normal numbers that are the same each time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(device, dtype)


def timed(ways: Mapping[str, Callable[..., Tensor]], operands: list[Tensor], repeats: int) -> dict[str, list[float]]:
    """For each way, the median milliseconds of a forward pass and of one with its backward, in turns."""
    gradient = next(iter(ways.values()))(*operands).detach()
    leaves = [operand.detach().requires_grad_() for operand in operands]

    def forward(way: Callable[..., Tensor]) -> None:
        with torch.inference_mode():
            way(*operands)

    def both(way: Callable[..., Tensor]) -> None:
        torch.autograd.grad(way(*leaves), leaves, gradient)

    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            for kind, work in enumerate((forward, both)):
                seconds = seconds_of(lambda work=work, way=way: work(way))  # type: ignore[misc]
                if repeat:
                    taken[name][kind].append(1000 * seconds)
    return {name: [statistics.median(times) for times in both] for name, both in taken.items()}


def main(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="bf16 or float32.")] = "bf16",
    repeats: Annotated[int, typer.Option(min=1)] = 9,
    tiny: Annotated[bool, typer.Option(help="Small sizes, to see that it runs.")] = False,
) -> None:
    """Milliseconds of each form of convolution and attention, forward / forward and backward.

    Sizes are those of the synthetic model's training and FluxAudio-S's sampling. `plaudit.backbone.forms` chooses
    among the forms.
    """
    where, dtype = resolve_device(device), {"bf16": torch.bfloat16, "float32": torch.float32}[precision]
    began = time.perf_counter()
    for rows, frames, inputs, outputs, kernel in [(1, 8, 4, 6, 3)] if tiny else SYNTHETIC + FLUXAUDIO_S:
        x = normal(rows, frames, inputs, dtype=dtype, device=where)
        weight = normal(outputs, inputs, kernel, dtype=dtype, device=where)

        ways = {name: partial(form, bias=None) for name, form in CONVOLUTIONS.items()}
        show(
            f"convolution {inputs} to {outputs}, kernel {kernel}, {rows} x {frames}", timed(ways, [x, weight], repeats)
        )
    for rows, heads, positions, width in [(1, 2, 8, 4)] if tiny else ATTENTION:
        # In memory as the network has them: heads after positions.
        operands = [normal(rows, positions, heads, width, dtype=dtype, device=where).transpose(1, 2) for _ in range(3)]
        show(f"attention {heads} heads of {width}, {rows} x {positions}", timed(ATTENTIONS, operands, repeats))
    print(f"{time.perf_counter() - began:.0f} s on {where.type} in {precision}, {torch.get_num_threads()} threads")


def show(title: str, results: Mapping[str, list[float]]) -> None:
    """Print one line."""
    print(f"{title}: " + "; ".join(f"{name} {one:.2f} / {both:.2f}" for name, (one, both) in results.items()))


if __name__ == "__main__":
    typer.run(main)
