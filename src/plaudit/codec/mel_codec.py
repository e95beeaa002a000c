"""The published codec: log-mel spectrogram, MMAudio's mel VAE, and BigVGAN back to the waveform; and its folder.

The released weights are of networks in training: the VAE's are normalized for use, the vocoder's have weight norm. They
are stored unchanged, so that they can be exported under their released names bit by bit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from plaudit.codec.bigvgan import BigVGAN, BigVGANConfig
from plaudit.codec.chunks import cross_faded, in_chunks
from plaudit.codec.mel import MelSettings, log_mel
from plaudit.codec.mel_vae import CONTEXT, EPSILON, MEL_STRIDE, MelVAE, MelVAEConfig
from plaudit.errors import AudioError, ModelError
from plaudit.published import fold_weight_norm, renamed, require, require_sizes, unwrap
from plaudit.storage import load_tensors, read_json, save_tensors, write_json
from plaudit.types import Posterior

PART_SECONDS = 10.0
"""Seconds decoded at once of a long piece: what the published VAEs' attention was trained on."""

FADE = 32
"""Latents over which the mels of one part cross-fade into those of the next: 0.7 s at 44.1 kHz."""


class MelCodec(nn.Module):
    """Waveform <-> latents through a mel spectrogram; satisfies plaudit.types.Codec.

    `name` is of the weights: latents of codecs of the same name are comparable. ModelError where the three parts
    are not of the same spectrogram.
    """

    sample_bytes = 128

    def __init__(self, name: str, mel: MelSettings, vae: MelVAE, vocoder: BigVGAN) -> None:
        super().__init__()
        of_mel, of_vae, of_vocoder = mel.bands, vae.config.bands, vocoder.config.bands
        if len({of_mel, of_vae, of_vocoder}) > 1 or mel.hop != vocoder.config.hop:
            raise ModelError(
                f"the parts of codec {name!r} do not fit: the spectrogram has {of_mel} bands at {mel.hop} samples, "
                f"the VAE {of_vae} bands, the vocoder {of_vocoder} bands at {vocoder.config.hop} samples"
            )
        self.name, self.mel = name, mel
        self.sample_rate, self.hop, self.latent_dim = mel.sample_rate, MEL_STRIDE * mel.hop, vae.config.latent_dim
        self.vae, self.vocoder = vae, vocoder

    def encode(self, wave: Tensor) -> Posterior:
        """wave [B, T] in -1..1, T a multiple of `hop` -> posterior over [B, T / hop, latent_dim].

        AudioError for other T, or where the samples are too few to mirror at the edges of the spectrogram.
        """
        least = max(self.hop, (self.mel.n_fft - self.mel.hop) // 2 + 1)
        if wave.ndim != 2 or wave.shape[1] < least or wave.shape[1] % self.hop:
            raise AudioError(
                f"codec {self.name!r} takes [batch, samples] with a multiple of {self.hop} samples, at least {least}, "
                f"got {list(wave.shape)}; pad or cut the audio"
            )
        return self.vae.encode(log_mel(wave, self.mel))

    def decode(self, latents: Tensor) -> Tensor:
        """latents [B, N, latent_dim] -> wave [B, N * hop] in -1..1; ModelError for another shape."""
        wave: Tensor = self.vocoder(self.vae.decode(latents))
        return wave

    def decode_long(self, latents: Tensor, loop: bool = False) -> Tensor:
        """The same in chunks of ten seconds; in a loop the end continues at the start.

        The VAE's attention spans its whole input, so a part alone differs a little: it decodes overlapping parts of the
        length it was trained on, and their mels are cross-faded. The vocoder has limited context: its parts are exact.
        """
        part = max(1, int(PART_SECONDS * self.sample_rate / self.hop))
        if latents.shape[1] <= part and not loop:
            return self.decode(latents)

        def mel(some: Tensor) -> Tensor:
            return self.vae.decode(some).transpose(1, 2)

        def wave(some: Tensor) -> Tensor:
            out: Tensor = self.vocoder(some.transpose(1, 2))
            return out

        # With its context, a part is no longer than what the attention was trained on.
        size = max(part - 2 * CONTEXT - FADE, FADE)
        mels = cross_faded(mel, latents, size, CONTEXT, FADE, MEL_STRIDE, loop)  # [B, 2N, bands]
        parts = in_chunks(wave, mels, MEL_STRIDE * part, self.vocoder.config.context, self.mel.hop, loop)
        return torch.cat(list(parts), 1)


BIGVGAN, MEL_VAE = "BigVGAN", "MMAudio's mel VAE"

MEL_VAE_NAMES = (
    (r"^mel_(mean|std)$", r"data_\1"),
    (r"^(encoder|decoder)\.middle\.before\.", r"\1.mid.block_1."),
    (r"^(encoder|decoder)\.middle\.after\.", r"\1.mid.block_2."),
    (r"^(encoder|decoder)\.middle\.attention\.out\.", r"\1.mid.attn_1.proj_out."),
    (r"^(encoder|decoder)\.middle\.attention\.", r"\1.mid.attn_1."),
    (r"^encoder\.levels\.(\d)\.", r"encoder.down.\1.block."),
    (r"^decoder\.levels\.(\d)\.", r"decoder.up.\1.block."),
    (r"^encoder\.downsample\.", "encoder.down.0.downsample."),
    (r"^decoder\.upsample\.", "decoder.up.1.upsample."),
    (r"\.shortcut\.", ".nin_shortcut."),
)
"""Our names to the published ones, applied in order."""

GAINS = ("encoder.learnable_gain", "decoder.learnable_gain")
"""Scalars that the published network adds to 1 and multiplies its last convolutions by."""

BIGVGAN_NAMES = (
    (r"^conv_in\.", "conv_pre."),
    (r"^conv_out\.", "conv_post."),
    (r"^activation\.", "activation_post."),
    (r"^stages\.(\d+)\.upsample\.", r"ups.\1.0."),
    (r"\.log_(alpha|beta)$", r".act.\1"),
)
"""Our names to the published ones, but for those of the residual blocks."""


def mel_vae_from_published(checkpoint: Mapping[str, Any]) -> MelVAE:
    """MMAudio's mel VAE from the content of its file; its sizes are read from the weights.

    Weights are normalized here, once. ModelError lists, with shapes, what is missing, unknown or does not fit.
    """
    state = unwrap(checkpoint)
    with torch.device("meta"):
        vae = MelVAE(_mel_vae_config(state))
    sizes = vae.state_dict()
    names = {ours: renamed(ours, MEL_VAE_NAMES) for ours in sizes}
    expected = {published: tuple(sizes[ours].shape) for ours, published in names.items()}
    expected |= dict.fromkeys(GAINS, ()) | dict.fromkeys(("data_mean", "data_std"), (1, vae.config.bands, 1))
    require(state, MEL_VAE, expected)
    converted = {ours: _folded(published, state) for ours, published in names.items()}
    vae.load_state_dict(converted, assign=True)
    return vae.eval().requires_grad_(False)


def mel_settings(published: Mapping[str, Any]) -> MelSettings:
    """The spectrogram that the `config.json` of a BigVGAN release describes; ModelError where it is of another kind.

    Supported is the one whose window is as long as its transform and whose bands reach from 0 Hz to half the rate.
    """
    try:
        rate, n_fft = published["sampling_rate"], published["n_fft"]
        window, low, high = published["win_size"], published["fmin"], published["fmax"]
        settings = MelSettings(rate, n_fft, published["hop_size"], published["num_mels"], "natural")
    except KeyError as error:
        raise ModelError(f"the configuration of BigVGAN has no {error}; take the config.json of its release") from None
    if window != n_fft or low != 0 or high not in (None, rate / 2):
        raise ModelError(
            f"this BigVGAN's spectrogram is not supported: window {window} for {n_fft} points, {low} to {high} Hz"
        )
    return settings


def bigvgan_config(published: Mapping[str, Any]) -> BigVGANConfig:
    """Our sizes from the `config.json` of a release; ModelError where a key is missing or means another network."""
    fixed = {"resblock": "1", "activation": "snakebeta", "snake_logscale": True}
    actual = {key: published.get(key) for key in fixed}
    different = [f"{key} {actual[key]!r}, not {fixed[key]!r}" for key in fixed if actual[key] != fixed[key]]
    if different:
        raise ModelError(f"this BigVGAN is not supported: {', '.join(different)}")
    try:
        return BigVGANConfig(
            bands=published["num_mels"],
            channels=published["upsample_initial_channel"],
            upsample_rates=tuple(published["upsample_rates"]),
            upsample_kernels=tuple(published["upsample_kernel_sizes"]),
            block_kernels=tuple(published["resblock_kernel_sizes"]),
            block_dilations=tuple(tuple(dilations) for dilations in published["resblock_dilation_sizes"]),
            # The first version's configurations do not have these two keys.
            final_bias=published.get("use_bias_at_final", True),
            final_tanh=published.get("use_tanh_at_final", True),
        )
    except KeyError as error:
        raise ModelError(f"the configuration of BigVGAN has no {error}; take the config.json of its release") from None


def published_config(mel: MelSettings, vocoder: BigVGANConfig) -> dict[str, Any]:
    """The `config.json` of a BigVGAN release for this spectrogram and vocoder."""
    return {
        "resblock": "1",
        "upsample_rates": list(vocoder.upsample_rates),
        "upsample_kernel_sizes": list(vocoder.upsample_kernels),
        "upsample_initial_channel": vocoder.channels,
        "resblock_kernel_sizes": list(vocoder.block_kernels),
        "resblock_dilation_sizes": [list(dilations) for dilations in vocoder.block_dilations],
        "use_tanh_at_final": vocoder.final_tanh,
        "use_bias_at_final": vocoder.final_bias,
        "activation": "snakebeta",
        "snake_logscale": True,
        "num_mels": mel.bands,
        "hop_size": mel.hop,
        "sampling_rate": mel.sample_rate,
        "n_fft": mel.n_fft,
        "win_size": mel.n_fft,
        "fmin": 0,
        "fmax": None,
    }


def bigvgan_from_published(checkpoint: Mapping[str, Any], config: BigVGANConfig) -> BigVGAN:
    """The vocoder in the content of a released file, with or without weight norm.

    The released low-pass filters are ignored; ours are the same. ModelError lists, with shapes, what is missing,
    unknown or does not fit.
    """
    folded = fold_weight_norm(unwrap(checkpoint))
    state = {name: value for name, value in folded.items() if not name.endswith(".filter")}
    with torch.device("meta"):
        vocoder = BigVGAN(config)
    sizes = vocoder.state_dict()
    names = {ours: _bigvgan_name(ours, len(config.block_kernels)) for ours in sizes}
    require(state, BIGVGAN, {published: tuple(sizes[ours].shape) for ours, published in names.items()})
    vocoder.load_state_dict({ours: state[published].float() for ours, published in names.items()}, assign=True)
    return vocoder.eval().requires_grad_(False)


def _mel_vae_config(state: Mapping[str, Tensor]) -> MelVAEConfig:
    require_sizes(state, MEL_VAE, {"encoder.conv_in.weight": 3, "decoder.conv_in.weight": 3})
    hidden, bands, _ = state["encoder.conv_in.weight"].shape
    return MelVAEConfig(bands, state["decoder.conv_in.weight"].shape[1], hidden)


def _folded(name: str, state: Mapping[str, Tensor]) -> Tensor:
    """The published tensor `name` as the network uses it."""
    value = state[name].float()
    if name.startswith("data_"):
        return value.flatten()
    rms = value.flatten(1).norm(dim=1) / value[0].numel() ** 0.5
    value = value / (EPSILON + rms[:, None, None]) / value[0].numel() ** 0.5
    if name.endswith(".qkv.weight"):  # rows (channel, 3) -> (3, channel)
        return value.unflatten(0, (-1, 3)).transpose(0, 1).flatten(0, 1)
    if name.endswith("coder.conv_out.weight"):
        return value * (1 + state[name.replace("conv_out.weight", "learnable_gain")].float())
    return value


def _bigvgan_name(ours: str, blocks_per_stage: int) -> str:
    """The published name of one of our tensors: blocks and activations are numbered across stages."""
    name = renamed(ours, BIGVGAN_NAMES)
    if match := re.match(r"stages\.(\d+)\.blocks\.(\d+)\.layers\.(\d+)\.(\w+)([12])\.(.*)", name):
        stage, block, layer, kind, which, rest = match.groups()
        index = int(stage) * blocks_per_stage + int(block)
        part = f"convs{which}.{layer}" if kind == "conv" else f"activations.{2 * int(layer) + int(which) - 1}"
        return f"resblocks.{index}.{part}.{rest}"
    return name


MEL_CODEC_KIND = "mel-codec"


@dataclass(frozen=True)
class ReleasedCodec:
    """The parts of a published codec: its spectrogram, the vocoder's sizes, and the tensors of both files."""

    name: str
    mel: MelSettings
    vocoder: BigVGANConfig
    vae_state: Mapping[str, Tensor]
    vocoder_state: Mapping[str, Tensor]

    def build(self) -> MelCodec:
        """The codec; ModelError names the tensors that are missing, unknown or misshapen, or that parts don't fit."""
        vae, vocoder = mel_vae_from_published(self.vae_state), bigvgan_from_published(self.vocoder_state, self.vocoder)
        return MelCodec(self.name, self.mel, vae, vocoder).eval()


def released_codec(
    name: str, vae: Mapping[str, Any], vocoder: Mapping[str, Any], vocoder_config: Mapping[str, Any]
) -> ReleasedCodec:
    """The codec called `name` from the contents of a mel VAE's and a BigVGAN's files and the latter's config.json.

    The spectrogram is the one that BigVGAN was trained on. ModelError where the configuration is of another network.
    """
    sizes = bigvgan_config(vocoder_config)
    return ReleasedCodec(name, mel_settings(vocoder_config), sizes, unwrap(vae), unwrap(vocoder))


def save_mel_codec(folder: Path, codec: ReleasedCodec, facts: Mapping[str, Any]) -> None:
    """Write the codec's folder, after building it as a check; `facts` (licence, origin) go to config.json."""
    codec.build()
    tensors = {f"vae.{name}": value for name, value in codec.vae_state.items()}
    save_tensors(folder / "model.safetensors", tensors | {f"vocoder.{n}": v for n, v in codec.vocoder_state.items()})
    sizes = {"mel": asdict(codec.mel), "vocoder": asdict(codec.vocoder)}
    write_json(folder / "config.json", {"kind": MEL_CODEC_KIND, "name": codec.name, **sizes, **facts})


def load_mel_codec(folder: Path) -> MelCodec:
    """The codec in a folder, ready to use; ModelError where its files are damaged or of another kind."""
    return read_mel_codec(folder).build()


def read_mel_codec(folder: Path) -> ReleasedCodec:
    """The parts of the codec in a folder; ModelError where its files are damaged or of another kind."""
    config = read_json(folder / "config.json")
    try:
        sizes = dict(config["vocoder"])
        sizes["block_dilations"] = tuple(tuple(dilations) for dilations in sizes["block_dilations"])
        for name in ("upsample_rates", "upsample_kernels", "block_kernels"):
            sizes[name] = tuple(sizes[name])
        name, mel, vocoder = config["name"], MelSettings(**config["mel"]), BigVGANConfig(**sizes)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / 'config.json'} does not describe a mel codec ({error})") from None
    tensors = load_tensors(folder / "model.safetensors")
    vae_state, vocoder_state = (_under(tensors, prefix) for prefix in ("vae.", "vocoder."))
    return ReleasedCodec(name, mel, vocoder, vae_state, vocoder_state)


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
