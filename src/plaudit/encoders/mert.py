"""MERT: 24 kHz audio -> one vector, by a network trained on music alone (Li et al., arXiv 2306.00107).

The released 330M model is a plain HuBERT, so the network is transformers' HubertModel; weights come in through
plaudit.encoders.published. What an MERT could have beside that (a constant-Q input, DeepNorm) is refused there.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import HubertConfig, HubertModel

from plaudit.encoders.spectrum import checked

SAMPLE_RATE = 24000


class MERT(nn.Module):
    """A plaudit.types.AudioEmbedder: the last layer, averaged over time.

    normalize: whether each clip is brought to zero mean and unit variance first, as its feature extractor says.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, name: str, model: HubertModel, normalize: bool) -> None:
        super().__init__()
        self.name, self.normalize = name, normalize
        self.model = model.eval().requires_grad_(False)
        self.dim: int = model.config.hidden_size

    def audio(self, wave: Tensor) -> Tensor:
        """wave [B, T] at 24 kHz -> [B, dim]; differentiable. AudioError where it can't be heard."""
        wave = checked(wave, SAMPLE_RATE, seconds=shortest(self.model.config) / SAMPLE_RATE)
        if self.normalize:
            variance = wave.var(1, keepdim=True, correction=0)
            wave = (wave - wave.mean(1, keepdim=True)) / (variance + 1e-7).sqrt()
        hidden: Tensor = self.model(wave).last_hidden_state  # [B, N, dim]
        return hidden.mean(1)


def shortest(config: HubertConfig) -> int:
    """Samples that the convolutions before the transformer need for one frame."""
    samples = 1
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples
