"""The folder of a published codec: the released weights as they are, made ready to use each time they are loaded.

The released weights are of networks in training: the VAE's are normalized for use, the vocoder's have weight norm. Kept
as they are, they can be given on under their released names without a bit of difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from plaudit.assets import load_tensors, read_json, save_tensors, write_json
from plaudit.codec.bigvgan import BigVGANConfig
from plaudit.codec.mel import MelSettings
from plaudit.codec.mel_codec import MelCodec
from plaudit.codec.published import bigvgan_config, bigvgan_from_published, mel_settings, mel_vae_from_published
from plaudit.errors import ModelError
from plaudit.released import unwrap

KIND = "mel-codec"


@dataclass(frozen=True)
class ReleasedCodec:
    """What a published codec is made of: its spectrogram, the vocoder's sizes, and the tensors of both files."""

    name: str
    mel: MelSettings
    vocoder: BigVGANConfig
    vae_state: Mapping[str, Tensor]
    vocoder_state: Mapping[str, Tensor]

    def ready(self) -> MelCodec:
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
    """Write the codec's folder, once it is seen to be sound; `facts` (licence, how it was made) go to config.json."""
    codec.ready()
    tensors = {f"vae.{name}": value for name, value in codec.vae_state.items()}
    save_tensors(folder / "model.safetensors", tensors | {f"vocoder.{n}": v for n, v in codec.vocoder_state.items()})
    sizes = {"mel": asdict(codec.mel), "vocoder": asdict(codec.vocoder)}
    write_json(folder / "config.json", {"kind": KIND, "name": codec.name, **sizes, **facts})


def load_mel_codec(folder: Path) -> MelCodec:
    """The codec in a folder, ready to use; ModelError where its files are damaged or of something else."""
    return read_mel_codec(folder).ready()


def read_mel_codec(folder: Path) -> ReleasedCodec:
    """What the codec in a folder is made of; ModelError where its files are damaged or of something else."""
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
