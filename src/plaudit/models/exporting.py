"""A text-to-music model for others: weights under the released names, or a folder with a model card for the Hub."""

from __future__ import annotations

import shutil
from pathlib import Path

from plaudit import __version__
from plaudit.assets import save_tensors, write_atomically
from plaudit.backbone.published import from_published, to_published
from plaudit.errors import ModelError
from plaudit.generate.model import ModelConfig, read_model_config
from plaudit.hub import load_backbone
from plaudit.models.inspecting import flattened, parameters


def export_released(folder: Path, path: Path) -> None:
    """Write the weights of the model folder to `path`, a .safetensors file, under the names of FluxAudio's releases.

    A score's embedder has no released names and keeps ours. ModelError for another kind of file, and where the
    weights would not be read back, because the network has sizes that no release has.
    """
    if path.suffix != ".safetensors":
        raise ModelError(f"{path}: weights are written as .safetensors only; give the file that ending")
    config = read_model_config(folder)
    state = to_published(load_backbone(folder, config.backbone))
    try:
        from_published(state, config.backbone.injection)
    except ModelError as error:
        raise ModelError(f"{folder} has sizes that no released FluxAudio has: {error}") from None
    save_tensors(path, state, {"format": "pt"})


def export_folder(folder: Path, output: Path) -> None:
    """Write a folder to put on the Hub: the model folder's files and a model card, README.md.

    ModelError where `folder` is no text-to-music model or `output` holds something already.
    """
    config = read_model_config(folder)
    if output.exists() and any(output.iterdir()):
        raise ModelError(f"{output} is not empty; give a new folder")
    output.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "model.safetensors", output / "model.safetensors")
    write_atomically(output / "README.md", model_card(config, parameters(folder / "model.safetensors")))
    shutil.copyfile(folder / "config.json", output / "config.json")


def model_card(config: ModelConfig, size: int) -> str:
    """A Hub model card: front matter, what the model is, what it needs, how it was made, and how it is used."""
    made = "\n".join(f"- {key}: {value}" for key, value in flattened(config.made)) or "- not stated"
    sampling = ", ".join(f"{key} {value}" for key, value in flattened(config.sampling.model_dump(mode="json")))
    return f"""---
library_name: plaudit
pipeline_tag: text-to-audio
license: other
license_name: {_quoted(config.licence)}
tags: [text-to-music, flow-matching]
---

# Text-to-music model

FluxAudio with {size:,} parameters; clips of {config.seconds:g} s. A score conditions it through
`{config.backbone.injection}`.

It needs the codec `{config.codec}` and the text encoder `{config.text_encoder}`; their licences apply beside its own.

## Licence

{config.licence}

## How it was made

{made}

## Use

Put this folder at MODEL, then (Plaudit {__version__}):

    plaudit models verify MODEL
    plaudit generate "slow sad piano" --model MODEL

Sampled with {sampling}.
"""


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
