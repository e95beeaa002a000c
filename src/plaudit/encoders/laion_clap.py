"""LAION's CLAP: 48 kHz audio and captions in one space (Wu et al., arXiv 2211.06687).

The network is transformers' ClapModel with the weights of LAION's files; the path from waveforms to its spectrograms
follows LAION's code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ClapAudioConfig, ClapConfig, ClapModel, ClapTextConfig
from transformers.audio_utils import mel_filter_bank

from plaudit.devices import reduced_precision
from plaudit.encoders.pretrained import Tokenizer, assembled, check_texts_differ, load_tokenizer, save_tokenizer
from plaudit.encoders.spectrum import checked
from plaudit.errors import ModelError
from plaudit.published import renamed, require, require_sizes, unwrap
from plaudit.storage import load_tensors, read_json, save_tensors, write_json

CLAP_KIND, CLAP_DESCRIPTION = "laion-clap", "LAION's CLAP without fusion"

CLAP_SAMPLE_RATE = 48000
CLAP_SAMPLES = 10 * CLAP_SAMPLE_RATE
"""The audio tower's input."""

N_FFT, HOP = 1024, 480
LOW_HZ, HIGH_HZ = 50.0, 14000.0
CLAP_TOKENS = 77
"""Tokens of RoBERTa per prompt; longer ones are cut."""


class LaionCLAP(nn.Module):
    """A plaudit.types.Embedder. Audio up to 10 s is taken whole, of longer audio the centre.

    `name` is of the weights: embeddings under the same name are taken to be comparable.
    """

    sample_rate = CLAP_SAMPLE_RATE
    sample_bytes = 128

    def __init__(self, name: str, model: ClapModel, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.name = name
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        self.dim: int = model.config.projection_dim
        self.bands: int = model.audio_model.config.num_mel_bins

    def audio(self, wave: Tensor) -> Tensor:
        """wave [B, T] at 48 kHz in -1..1 -> [B, dim], unit norm; differentiable. AudioError if short or not finite."""
        return self.embed_quantized(quantized(checked(wave, CLAP_SAMPLE_RATE, seconds=N_FFT / CLAP_SAMPLE_RATE)))

    def embed_quantized(self, wave: Tensor) -> Tensor:
        """wave [B, T] of 16-bit samples divided by 32767 -> [B, dim], unit norm."""
        with reduced_precision(wave.device, enabled=False):
            features = clap_log_mel(ten_seconds(wave), self.bands)[:, None]  # [B, 1, 1001, bands]
        embedding: Tensor = self.model.get_audio_features(input_features=features).pooler_output
        return embedding

    def text(self, prompts: list[str]) -> Tensor:
        """Prompts -> [B, dim], unit norm."""
        tokens = self.tokenizer(
            prompts, padding="max_length", truncation=True, max_length=CLAP_TOKENS, return_tensors="pt"
        )
        device = self.model.device
        embedding: Tensor = self.model.get_text_features(
            input_ids=tokens["input_ids"].to(device), attention_mask=tokens["attention_mask"].to(device)
        ).pooler_output
        return embedding


def quantized(wave: Tensor) -> Tensor:
    """wave [B, T] as 16-bit samples, cut at +-1 and rounded towards zero; gradients pass as if it were not done."""
    samples = (wave.clamp(-1, 1) * 32767).trunc() / 32767
    return wave + (samples - wave).detach() if wave.requires_grad else samples


def ten_seconds(wave: Tensor) -> Tensor:
    """wave [B, T] -> [B, 480000]: the centre of a longer one; a shorter one repeated whole, then zeros."""
    length = wave.shape[1]
    start = max(0, (length - CLAP_SAMPLES) // 2)
    repeated = wave[:, start : start + CLAP_SAMPLES].repeat(1, max(1, CLAP_SAMPLES // length))
    return F.pad(repeated, (0, CLAP_SAMPLES - repeated.shape[1]))


def clap_log_mel(wave: Tensor, bands: int) -> Tensor:
    """wave [B, T] -> power in Slaney's mel bands in dB: [B, T // 480 + 1, bands], not below -100."""
    window = torch.hann_window(N_FFT, device=wave.device)
    power = torch.stft(wave, N_FFT, HOP, window=window, return_complex=True).abs().square()  # [B, bins, N]
    return 10 * (power.transpose(1, 2) @ _filters(bands, wave.device).to(wave.dtype).T).clamp(min=1e-10).log10()


@lru_cache(maxsize=4)
def _filters(bands: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # training may use what evaluation has cached
        filters = mel_filter_bank(N_FFT // 2 + 1, bands, LOW_HZ, HIGH_HZ, CLAP_SAMPLE_RATE, "slaney", "slaney")
        return torch.from_numpy(filters.T).float().to(device)


TO_PUBLISHED = (
    (r"^text_model\.", "text_branch."),
    (r"^audio_model\.audio_encoder\.", "audio_branch."),
    (r"\.batch_norm\.", ".bn0."),
    (r"(blocks\.\d+)\.layernorm_before\.", r"\1.norm1."),
    (r"(blocks\.\d+)\.layernorm_after\.", r"\1.norm2."),
    (r"(blocks\.\d+)\.intermediate\.dense\.", r"\1.mlp.fc1."),
    (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"(blocks\.\d+)\.attention\.output\.dense\.", r"\1.attn.proj."),
    (r"(blocks\.\d+)\.attention\.self\.(?:query|key|value)\.", r"\1.attn.qkv."),
    (r"(blocks\.\d+)\.attention\.self\.", r"\1.attn."),
    (r"_projection\.linear1\.", "_projection.0."),
    (r"_projection\.linear2\.", "_projection.2."),
)
"""Transformers' names to LAION's, applied in order; queries, keys and values lie stacked in one tensor."""

UNUSED = re.compile(
    r"logit_scale_[at]$|(text|audio)_transform\.|audio_branch\.(tscam_conv|head|spectrogram_extractor|logmel_extractor)\."
    r"|.*\.(attn_mask|relative_position_index|position_ids|token_type_ids|num_batches_tracked)$"
)
"""Entries, in either naming, that embeddings do not need or that are built, not learnt."""


def clap_from_published(name: str, checkpoint: Mapping[str, Any], tokenizer: Tokenizer) -> LaionCLAP:
    """CLAP called `name` from the content of one of LAION's files and RoBERTa's tokenizer, ready to use.

    ModelError if the weights do not fit, or if unrelated texts have nearly the same embedding.
    """
    clap = LaionCLAP(name, clap_model_from_published(checkpoint), tokenizer)
    check_texts_differ(clap)
    return clap


def clap_model_from_published(checkpoint: Mapping[str, Any]) -> ClapModel:
    """The two towers in the content of one of LAION's files; their sizes are read from the weights.

    ModelError lists, with shapes, what is missing, unknown or does not fit.
    """
    state = {name: value for name, value in unwrap(checkpoint).items() if not UNUSED.match(name)}
    try:
        config = _clap_config(state)
        with torch.device("meta"):
            expected = ClapModel(config).state_dict()
    except (ValueError, ZeroDivisionError) as error:
        raise ModelError(
            f"the checkpoint does not fit {CLAP_DESCRIPTION}: its sizes contradict each other ({error})"
        ) from None
    expected = {name: value for name, value in expected.items() if not UNUSED.match(name)}
    require(
        state,
        CLAP_DESCRIPTION,
        {renamed(name, TO_PUBLISHED): _published_shape(name, value) for name, value in expected.items()},
    )
    converted = {name: _part(name, state[renamed(name, TO_PUBLISHED)]).float() for name in expected}
    return assembled(ClapModel, config, converted, built=UNUSED)


def _clap_config(state: Mapping[str, Tensor]) -> ClapConfig:
    patches, words = "audio_branch.patch_embed.proj.weight", "text_branch.embeddings.word_embeddings.weight"
    positions, widening = (
        "text_branch.embeddings.position_embeddings.weight",
        "text_branch.encoder.layer.0.intermediate.dense.weight",
    )
    bands, projection = "audio_branch.bn0.weight", "text_projection.0.weight"
    bias_table = "audio_branch.layers.{}.blocks.0.attn.relative_position_bias_table"
    stages = max(1, _count(state, r"audio_branch\.layers\.(\d+)\."))
    ranks = {patches: 4, words: 2, positions: 2, widening: 2, bands: 1, projection: 2}
    require_sizes(state, CLAP_DESCRIPTION, ranks | {bias_table.format(stage): 2 for stage in range(stages)})
    width, text_width = state[patches].shape[0], state[words].shape[1]
    audio = ClapAudioConfig(
        patch_embeds_hidden_size=width,
        hidden_size=width << (stages - 1),
        depths=[_count(state, rf"audio_branch\.layers\.{stage}\.blocks\.(\d+)\.") for stage in range(stages)],
        num_attention_heads=[state[bias_table.format(stage)].shape[1] for stage in range(stages)],
        num_hidden_layers=stages,
        num_mel_bins=state[bands].shape[0],
        projection_dim=state[projection].shape[0],
    )
    text = ClapTextConfig(
        vocab_size=state[words].shape[0],
        hidden_size=text_width,
        num_hidden_layers=_count(state, r"text_branch\.encoder\.layer\.(\d+)\."),
        num_attention_heads=text_width // 64,  # RoBERTa's heads, whatever its size
        intermediate_size=state[widening].shape[0],
        max_position_embeddings=state[positions].shape[0],
        layer_norm_eps=1e-5,
        projection_dim=state[projection].shape[0],
    )
    return ClapConfig(audio_config=audio, text_config=text, projection_dim=state[projection].shape[0])


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """The number of distinct values of the group in `pattern`."""
    return len({match[1] for name in state if (match := re.match(pattern, name))})


def _published_shape(name: str, value: Tensor) -> tuple[int, ...]:
    stacked = ".attn.qkv." in renamed(name, TO_PUBLISHED)
    return (3 * value.shape[0], *value.shape[1:]) if stacked else tuple(value.shape)


def _part(name: str, published: Tensor) -> Tensor:
    """The rows of a published tensor that are the one called `name` in transformers."""
    if ".attn.qkv." not in renamed(name, TO_PUBLISHED):
        return published
    query, key, value = published.chunk(3)
    return query if ".query." in name else key if ".key." in name else value


def save_clap(
    folder: Path, name: str, checkpoint: Mapping[str, Any], tokenizer: Tokenizer, facts: Mapping[str, Any]
) -> None:
    """Write the folder of the CLAP in the content of one of LAION's files, after loading it as a check.

    `facts` (licence, origin) are kept in config.json.
    """
    state = unwrap(checkpoint)
    clap_from_published(name, state, tokenizer)
    save_tokenizer(folder, tokenizer)
    save_tensors(folder / "model.safetensors", state)
    write_json(folder / "config.json", {"kind": CLAP_KIND, "name": name, **facts})


def load_clap(folder: Path) -> LaionCLAP:
    """CLAP from its folder, ready to use; ModelError if a file is damaged or its text embeddings have collapsed."""
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or not isinstance(config.get("name"), str):
        raise ModelError(f"{folder / 'config.json'} does not describe a CLAP; check the folder name")
    return clap_from_published(config["name"], load_tensors(folder / "model.safetensors"), load_tokenizer(folder))
