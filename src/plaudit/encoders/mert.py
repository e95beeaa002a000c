"""MERT: 24 kHz audio -> one vector, by a network trained on music alone (Li et al., arXiv 2306.00107).

The released 330M model is a plain HuBERT, so the network is transformers' HubertModel. What other MERTs have beside
that (a constant-Q input, DeepNorm) is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel

from plaudit.encoders.pretrained import assembled
from plaudit.encoders.spectrum import checked
from plaudit.errors import ModelError
from plaudit.published import renamed, require, unwrap
from plaudit.storage import load_tensors, read_json, save_tensors, write_json

MERT_KIND, MERT_DESCRIPTION = "mert", "MERT (a HuBERT)"
MERT_SAMPLE_RATE = 24000


class MERT(nn.Module):
    """A plaudit.types.AudioEmbedder: the last layer, averaged over time.

    normalize: whether each clip is brought to zero mean and unit variance first, as its feature extractor says.
    """

    sample_rate = MERT_SAMPLE_RATE
    sample_bytes = 1024

    def __init__(self, name: str, model: HubertModel, normalize: bool) -> None:
        super().__init__()
        self.name, self.normalize = name, normalize
        self.model = model.eval().requires_grad_(False)
        self.dim: int = model.config.hidden_size

    def audio(self, wave: Tensor) -> Tensor:
        """wave [B, T] at 24 kHz -> [B, dim]; differentiable. AudioError if the audio is too short or not finite."""
        wave = checked(wave, MERT_SAMPLE_RATE, seconds=shortest(self.model.config) / MERT_SAMPLE_RATE)
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


MERT_WEIGHT_NORM = (
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
)
"""The older spelling of weight norm to the newer, which HubertModel has."""

MASK = "masked_spec_embed"
"""The vector of masked frames in training, which inference does not need."""


def mert_from_published(
    name: str, checkpoint: Mapping[str, Any], config: Mapping[str, Any], preprocessor: Mapping[str, Any]
) -> MERT:
    """MERT called `name` from the content of its weights file, its config.json and its preprocessor_config.json.

    ModelError for an MERT that is more than a HuBERT, or one that lists, with shapes, the weights that are missing,
    unknown or do not fit.
    """
    if config.get("model_type") not in ("mert_model", "hubert"):
        raise ModelError(f"this configuration is of {config.get('model_type')!r}, not of an MERT")
    for key, what in (("feature_extractor_cqt", "a constant-Q input"), ("deepnorm", "DeepNorm")):
        if config.get(key):
            raise ModelError(f"this MERT has {what} ({key}), which is not supported; take MERT-v1-330M")
    if (rate := preprocessor.get("sampling_rate")) != MERT_SAMPLE_RATE:
        raise ModelError(f"this MERT takes {rate} Hz, not {MERT_SAMPLE_RATE}; take its preprocessor_config.json")
    config_keys = HubertConfig().to_dict().keys() - {"model_type", "architectures", "transformers_version"}
    sizes = HubertConfig.from_dict({key: config[key] for key in config.keys() & config_keys})
    with torch.device("meta"):
        expected = HubertModel(sizes).state_dict()
    state = {renamed(n, MERT_WEIGHT_NORM): value.float() for n, value in unwrap(checkpoint).items()}
    if MASK in expected:
        state.setdefault(MASK, torch.zeros(expected[MASK].shape))
    else:
        state.pop(MASK, None)
    require(state, MERT_DESCRIPTION, {n: tuple(value.shape) for n, value in expected.items()})
    return MERT(name, assembled(HubertModel, sizes, state), bool(preprocessor.get("do_normalize", True)))


def save_mert(
    folder: Path,
    name: str,
    checkpoint: Mapping[str, Any],
    config: Mapping[str, Any],
    preprocessor: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Write the folder of the MERT in the contents of its three files, after loading it as a check."""
    mert_from_published(name, checkpoint, config, preprocessor)
    save_tensors(folder / "model.safetensors", unwrap(checkpoint))
    configs = {"mert": dict(config), "preprocessor": dict(preprocessor)}
    write_json(folder / "config.json", {"kind": MERT_KIND, "name": name, **configs, **facts})


def load_mert(folder: Path) -> MERT:
    """MERT from its folder, ready to use; ModelError where its files are damaged or of another kind."""
    config = read_json(folder / "config.json")
    try:
        name, model_config, preprocessor = config["name"], config["mert"], config["preprocessor"]
    except (KeyError, TypeError) as error:
        raise ModelError(f"{folder / 'config.json'} does not describe a MERT ({error})") from None
    return mert_from_published(name, load_tensors(folder / "model.safetensors"), model_config, preprocessor)
