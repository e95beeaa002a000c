"""Models for others: files under the released names, or a folder with a model card, and that folder on the Hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from huggingface_hub import HfApi, get_token
from torch import Tensor

from plaudit.assets import load_tensors, read_json, save_checkpoint, save_tensors, write_atomically, write_json
from plaudit.backbone.published import from_published, to_published
from plaudit.codec.mel_codec_folder import KIND as MEL_CODEC
from plaudit.codec.mel_codec_folder import read_mel_codec
from plaudit.codec.published import published_config
from plaudit.errors import ModelError
from plaudit.generate.model import read_model_config
from plaudit.hub import load_backbone
from plaudit.models.card import model_card
from plaudit.models.fetch import hub_answers, offline
from plaudit.models.inspecting import TEXT_TO_MUSIC, inspect_folder
from plaudit.reward.published import head_to_published
from plaudit.reward.scorer import KIND as TUNEJURY
from plaudit.reward.scorer import read_head
from plaudit.writing import copy_file, copy_folder

TOKENIZER = "tokenizer"


def export_released(folder: Path, output: Path) -> None:
    """Write the files of the model folder to `output` as its kind is released: tensors under the published names.

    `plaudit models import --unverified` reads them back. ModelError for a kind that nobody releases, where the weights
    have no released form, or where `output` holds something already.
    """
    kind = inspect_folder(folder)["kind"]
    if kind not in EXPORTERS:
        raise ModelError(f"{folder} is of kind {kind!r}, which has no released form; known are {', '.join(EXPORTERS)}")
    _require_new(output)
    EXPORTERS[kind](folder, output)


def export_folder(folder: Path, output: Path, report: Path | None = None) -> None:
    """Write a folder to put on the Hub: the model folder's files and a model card, README.md.

    report: the report.json whose figures the card shows; without one, that of the run the model lies in, if any.
    ModelError where `folder` is no model or `output` holds something already.
    """
    card = model_card(folder, report)
    _require_new(output)
    for name in ("model.safetensors", TOKENIZER):
        if (folder / name).is_dir():
            copy_folder(folder / name, output / name)
        elif (folder / name).exists():
            copy_file(folder / name, output / name)
    write_atomically(output / "README.md", card)
    copy_file(folder / "config.json", output / "config.json")


def push_folder(folder: Path, repo: str, private: bool = False) -> str:
    """Put an exported folder on the Hub, in a repository that is made where it is new; the address of what was put.

    ModelError, in one line, where the folder was not exported, nobody is logged in, or the Hub refuses.
    """
    for name in ("README.md", "config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} has no {name}; write the folder with plaudit models export first")
    if offline():
        raise ModelError("offline mode is on (HF_HUB_OFFLINE); unset it to push")
    if get_token() is None:
        raise ModelError("nobody is logged in to the Hub; run hf auth login, or set HF_TOKEN")
    api = HfApi()
    with hub_answers(repo, repo, repo, doing="pushed"):
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Model folder of Plaudit")
    return str(done.commit_url)


def _require_new(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ModelError(f"{output} is not empty; give a new folder")
    output.mkdir(parents=True, exist_ok=True)


def _backbone(folder: Path, output: Path) -> None:
    """FluxAudio. What conditions it on a score has no released names and keeps ours; without it, nothing is ours."""
    config = read_model_config(folder)
    state = to_published(load_backbone(folder, config.backbone))
    if config.backbone.injection == "none":
        state = {name: value for name, value in state.items() if not name.startswith("score")}
    try:
        from_published(state, config.backbone.injection)
    except ModelError as error:
        raise ModelError(f"{folder} has sizes that no released FluxAudio has: {error}") from None
    _save(output / "weights.pth", state)


def _codec(folder: Path, output: Path) -> None:
    codec = read_mel_codec(folder)
    _save(output / "vae.pth", codec.vae_state)
    _save(output / "vocoder.pt", codec.vocoder_state, under="generator")
    write_json(output / "vocoder.json", published_config(codec.mel, codec.vocoder))


def _codec_16k(folder: Path, output: Path) -> None:
    codec = read_mel_codec(folder)
    _save(output / "vae-16k.pth", codec.vae_state)
    _save(output / "vocoder-16k.pt", codec.vocoder_state, under="generator")


def _either_codec(folder: Path, output: Path) -> None:
    """Of the 16 kHz codec no configuration is released, since its spectrogram has another logarithm."""
    natural = read_mel_codec(folder).mel.log == "natural"
    (_codec if natural else _codec_16k)(folder, output)


def _clap(folder: Path, output: Path) -> None:
    _save(output / "weights.pt", load_tensors(folder / "model.safetensors"))
    copy_folder(folder / TOKENIZER, output)
    write_json(output / "config.json", {"model_type": "roberta"})  # from which transformers tells the tokenizer


def _mert(folder: Path, output: Path) -> None:
    config = read_json(folder / "config.json")
    _save(output / "pytorch_model.bin", load_tensors(folder / "model.safetensors"))
    write_json(output / "config.json", config["mert"])
    write_json(output / "preprocessor_config.json", config["preprocessor"])


def _text(folder: Path, output: Path) -> None:
    save_tensors(output / "model.safetensors", load_tensors(folder / "model.safetensors"), {"format": "pt"})
    copy_folder(folder / TOKENIZER, output)
    write_json(output / "config.json", read_json(folder / "config.json")["t5"])


def _reward(folder: Path, output: Path) -> None:
    head, blocks = read_head(folder)
    _save(output / "weights.pt", head_to_published(head, blocks))


def _save(path: Path, state: Mapping[str, Tensor], under: str = "") -> None:
    """A pickle of tensors alone, as releases are."""
    plain = {name: value.detach().clone().contiguous() for name, value in state.items()}
    save_checkpoint(path, {under: plain} if under else dict(plain))


EXPORTERS: dict[str, Callable[[Path, Path], None]] = {
    TEXT_TO_MUSIC: _backbone,
    MEL_CODEC: _either_codec,
    "laion-clap": _clap,
    "mert": _mert,
    "t5-clap": _text,
    TUNEJURY: _reward,
}
"""What writes the released files of each kind of model folder."""
