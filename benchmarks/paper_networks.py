"""The frozen networks of the paper's recipe at their true sizes, with random weights: nothing has to be downloaded.

Both CLAPs' shape (HTSAT and RoBERTa-base), Flan-T5-large's encoder, MERT-330M, and the 44.1 kHz codec (MMAudio's mel
VAE and BigVGAN v2). `TINY` has the same networks at sizes that a test runs in a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    ClapAudioConfig,
    ClapConfig,
    ClapModel,
    ClapTextConfig,
    HubertConfig,
    HubertModel,
    T5Config,
    T5EncoderModel,
)

from plaudit.codec.bigvgan import BigVGAN, BigVGANConfig
from plaudit.codec.mel import MEL_44K
from plaudit.codec.mel_codec import MelCodec
from plaudit.codec.mel_vae import MelVAE, MelVAEConfig
from plaudit.encoders.laion_clap import LaionCLAP
from plaudit.encoders.mert import MERT
from plaudit.encoders.t5_clap import T5CLAPText
from tests.encoders.words_tokenizer import byte_tokenizer


@dataclass(frozen=True)
class Sizes:
    """The sizes of all networks; `clap_audio`, `clap_text`, `t5` and `hubert` are arguments of transformers configs."""

    latent_dim: int
    clap_audio: dict[str, Any]
    clap_text: dict[str, Any]
    clap_dim: int
    t5: dict[str, Any]
    hubert: dict[str, Any]
    vae_hidden: int
    vocoder_channels: int


PAPER = Sizes(
    latent_dim=40,
    clap_audio={
        "patch_embeds_hidden_size": 128,
        "hidden_size": 1024,
        "depths": [2, 2, 12, 2],
        "num_attention_heads": [4, 8, 16, 32],
    },
    clap_text={"vocab_size": 50265, "max_position_embeddings": 514},
    clap_dim=512,
    t5={"d_model": 1024, "d_kv": 64, "d_ff": 2816, "num_layers": 24, "num_heads": 16, "vocab_size": 32128},
    hubert={"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    vae_hidden=512,
    vocoder_channels=1536,
)

TINY = Sizes(
    latent_dim=40,
    clap_audio={
        "patch_embeds_hidden_size": 8,
        "hidden_size": 64,
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 2, 4, 8],
    },
    clap_text={
        "vocab_size": 300,
        "max_position_embeddings": 80,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    },
    clap_dim=16,
    t5={"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 300},
    hubert={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    | {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2},
    vae_hidden=16,
    vocoder_channels=64,
)


def clap(sizes: Sizes = PAPER) -> LaionCLAP:
    """LAION's CLAP; one stands for both of the paper's, which have one shape."""
    audio, text = ClapAudioConfig(**sizes.clap_audio), ClapTextConfig(**sizes.clap_text)
    model = ClapModel(ClapConfig(audio_config=audio, text_config=text, projection_dim=sizes.clap_dim))
    return LaionCLAP("clap-music", model, byte_tokenizer())


def text_encoder(clap: LaionCLAP, sizes: Sizes = PAPER) -> T5CLAPText:
    """The encoder of Flan-T5-large with CLAP's text."""
    t5 = T5EncoderModel(T5Config(feed_forward_proj="gated-gelu", pad_token_id=1, **sizes.t5))
    return T5CLAPText("text-t5-clap", t5, byte_tokenizer(), clap)


def mert(sizes: Sizes = PAPER) -> MERT:
    """MERT-v1-330M, a HuBERT of the large size."""
    model = HubertModel(HubertConfig(feat_extract_norm="layer", do_stable_layer_norm=True, **sizes.hubert))
    return MERT("mert-330m", model, True)


def codec(sizes: Sizes = PAPER) -> MelCodec:
    """The 44.1 kHz mel codec, its vocoder loud enough not to be taken for silence."""
    vae = MelVAE(MelVAEConfig(MEL_44K.bands, sizes.latent_dim, sizes.vae_hidden)).eval()
    vocoder = BigVGAN(
        BigVGANConfig(
            bands=MEL_44K.bands,
            channels=sizes.vocoder_channels,
            upsample_rates=(8, 4, 2, 2, 2, 2),
            upsample_kernels=(16, 8, 4, 4, 4, 4),
            block_kernels=(3, 7, 11),
            block_dilations=((1, 3, 5), (1, 3, 5), (1, 3, 5)),
            final_bias=False,
            final_tanh=False,
        )
    ).eval()
    with torch.inference_mode():
        peak = vocoder(torch.randn(1, MEL_44K.bands, 16)).abs().max()
    with torch.no_grad():
        vocoder.conv_out.weight.mul_(0.1 / peak)
    return MelCodec("codec-44k", MEL_44K, vae, vocoder).requires_grad_(False)


def parameters(module: nn.Module) -> str:
    """How many it has, in millions."""
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.0f} M"
