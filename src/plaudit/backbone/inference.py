"""A network laid out for sampling: the same function, with weights in the form that its products take them in.

Autocast casts every weight to bfloat16 in every step; here that is done once. In bfloat16 on a CPU a convolution over
channels-last rows is written as the matrix product that it is, which processors with matrix units do much faster, and
attention as two products and a softmax, which those without do faster than PyTorch's fused kernel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plaudit.backbone.blocks import FusedBlock, JointBlock, attend
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.backbone.layers import SequenceConv


class UnfoldedConv(nn.Module):
    """A SequenceConv as one matrix product over rows that each hold a whole window: [B, N, in] -> [B, N, out]."""

    def __init__(self, conv: SequenceConv, dtype: torch.dtype) -> None:
        super().__init__()
        self.kernel = conv.kernel_size[0]
        matrix = conv.weight.detach().to(dtype).permute(0, 2, 1).flatten(1)  # [out, kernel in]
        self.register_buffer("matrix", matrix)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().to(dtype))

    matrix: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        margin = self.kernel // 2
        padded = F.pad(x.to(self.matrix.dtype), (0, 0, margin, margin))
        # In memory a window of rows is one longer row, so that copying it is all that unfolding takes.
        windows = padded.as_strided(
            (batch, length, self.kernel * width), ((length + 2 * margin) * width, width, 1)
        ).contiguous()
        return F.linear(windows, self.matrix, self.bias)


LONGEST = 2048
"""Keys up to which attention writes its weights out: their memory grows with the square of the length."""


def attend_by_products(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """What `attend` computes, by two matrix products where they are not too long."""
    if keys.shape[-2] > LONGEST:
        return attend(queries, keys, values)
    weights = (queries * queries.shape[-1] ** -0.5 @ keys.transpose(-1, -2)).softmax(-1)  # [B, H, N, N]
    return (weights @ values).transpose(1, 2).flatten(2)


def for_inference(model: FluxAudio, dtype: torch.dtype) -> FluxAudio:
    """A copy of `model` for sampling under autocast to `dtype`; it cannot be trained and follows no later change.

    Matrices are held in `dtype`, all else is shared with the model. It computes what the model does under autocast, up
    to the order of sums.
    """
    with torch.device("meta"):
        copied = FluxAudio(model.config)
    copied.load_state_dict(model.state_dict(), assign=True)
    copied.requires_grad_(False).eval()
    if dtype == torch.float32:
        return copied  # in float32 convolutions run at the speed of products
    for name, module in list(copied.named_modules()):
        if isinstance(module, SequenceConv):
            copied.set_submodule(name, UnfoldedConv(module, dtype))
        elif isinstance(module, nn.Linear):
            for part, value in list(module.named_parameters()):
                setattr(module, part, nn.Parameter(value.to(dtype), requires_grad=False))
        elif isinstance(module, FusedBlock | JointBlock) and model.latent_mean.device.type == "cpu":
            module.attention = attend_by_products
    return copied
