"""Convolution and attention in the form that the device computes fastest, for training and sampling alike.

A form is chosen from the device and the precision that the operands are computed in, autocast included, and nowhere
else. All forms compute the same up to rounding, can be differentiated in both modes, and compile to one graph.
`python -m benchmarks.convolutions` times them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LONGEST = 1024
"""Keys up to which attention by matrix products is faster on a CPU: it keeps weights for all pairs of positions."""


def compute_dtype(x: Tensor) -> torch.dtype:
    """The precision of a matrix product of `x`: that of autocast where it is on."""
    kind = x.device.type
    autocast = x.dtype != torch.float64 and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if autocast else x.dtype


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution over the sequence that keeps its length: x [B, N, in], weight [out, in, odd kernel] -> [B, N, out].

    In half precision it is a matrix product: matrix units are made for products, and convolutions reach less of their
    peak, most of all backwards. Where no gradient is needed, a GPU has a faster one, in two dimensions. In float32
    PyTorch's convolution is faster.
    """
    if compute_dtype(x) not in (torch.bfloat16, torch.float16):
        return convolve_by_conv1d(x, weight, bias)
    # cuDNN's gradients in bfloat16 came out wrong in whole networks (PyTorch 2.11, H200).
    if x.device.type == "cuda" and not torch.is_grad_enabled():
        return convolve_by_conv2d(x, weight, bias)
    return convolve_by_product(x, weight, bias)


def convolve_by_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """One product with rows that each hold a whole window.

    No weights are copied where `weight` has the type of the product and lies in memory as [out, kernel, in].
    """
    dtype, kernel, length = compute_dtype(x), weight.shape[2], x.shape[1]
    margin = x.new_zeros(x.shape[0], kernel // 2, x.shape[2], dtype=dtype)
    padded = torch.cat((margin, x.to(dtype), margin), dim=1)  # F.pad would first fill all of it with zeros
    windows = torch.cat([padded[:, start : start + length] for start in range(kernel)], dim=-1)  # [B, N, kernel in]
    matrix = weight.permute(0, 2, 1).to(dtype, memory_format=torch.contiguous_format).flatten(1)
    return F.linear(windows, matrix, bias)


def convolve_by_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution of images one row high, which may lie in memory channels last, as the sequence does.

    No weights are copied where they lie so, too, in the type of the product.
    """
    dtype = compute_dtype(x)
    image = x.to(dtype)[:, None].permute(0, 3, 1, 2)  # [B, in, 1, N]
    kernel, bias = weight.to(dtype)[:, :, None], None if bias is None else bias.to(dtype)
    out = F.conv2d(image, kernel, bias, padding=(0, weight.shape[2] // 2))
    return out.permute(0, 2, 3, 1).flatten(1, 2)


def convolve_by_conv1d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """PyTorch's convolution, which has the sequence last."""
    return F.conv1d(x.transpose(1, 2), weight, bias, padding=weight.shape[2] // 2).transpose(1, 2)


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Scaled dot-product attention over heads: three times [B, H, N, d] -> [B, N, H d].

    PyTorch's fused kernel, except in half precision on a CPU, where it is slower than products, most of all backwards.
    The fused kernels have no forward-mode derivative; under `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)` they are
    replaced by operations that have one.
    """
    if (
        queries.device.type == "cpu"
        and compute_dtype(queries) in (torch.bfloat16, torch.float16)
        and keys.shape[-2] <= LONGEST
    ):
        attended = attend_by_products(queries, keys, values)
    else:
        attended = F.scaled_dot_product_attention(queries, keys, values)
    return attended.transpose(1, 2).flatten(2)


def attend_by_products(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Two matrix products and a softmax, all heads: three times [B, H, N, d] -> [B, H, N, d]."""
    weights = (queries * queries.shape[-1] ** -0.5 @ keys.transpose(-1, -2)).softmax(-1)  # [B, H, N, N]
    return weights @ values
