"""The published text encoder: T5's tokens and CLAP's pooled text, as FluxAudio was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel

from plaudit.encoders.laion_clap import LaionCLAP, load_clap
from plaudit.encoders.pretrained import Tokenizer, assembled, load_tokenizer, quiet, read_tokenizer, save_tokenizer
from plaudit.encoders.truncation import quoted, truncated_end
from plaudit.errors import ModelError
from plaudit.places import is_model_folder, user_model
from plaudit.storage import load_tensors, read_json, save_tensors, write_json
from plaudit.types import TextFeatures

T5_CLAP_KIND = "t5-clap"
T5_TOKENS = 77
"""Tokens of T5 per prompt; longer prompts are cut."""

TIED = "encoder.embed_tokens.weight"
"""In T5 the same tensor as `shared.weight`; stored once."""


class T5CLAPText(nn.Module):
    """A plaudit.types.TextEncoder. T5 does not attend to padding, but returns features of it."""

    length = T5_TOKENS

    def __init__(self, name: str, t5: T5EncoderModel, tokenizer: Tokenizer, clap: LaionCLAP) -> None:
        super().__init__()
        self.name, self.tokenizer = name, tokenizer
        self.t5, self.clap = t5.eval().requires_grad_(False), clap
        self.token_dim: int = t5.config.d_model
        self.pooled_dim: int = clap.dim

    def encode(self, prompts: list[str]) -> TextFeatures:
        """tokens [B, 77, token_dim], pooled [B, pooled_dim] of unit norm."""
        read = self.tokenizer(prompts, padding="max_length", truncation=True, max_length=T5_TOKENS, return_tensors="pt")
        device = self.t5.device
        tokens: Tensor = self.t5(
            input_ids=read["input_ids"].to(device), attention_mask=read["attention_mask"].to(device)
        ).last_hidden_state
        return TextFeatures(tokens, self.clap.text(prompts))

    def truncation(self, prompt: str) -> str:
        """The end of a prompt that has no effect on the tokens, because it is beyond the last of them."""

        def fits(text: str) -> bool:
            read = self.tokenizer(
                [text], padding="longest", truncation=True, max_length=T5_TOKENS + 1, return_tensors="pt"
            )
            return read["input_ids"].shape[1] <= T5_TOKENS

        cut = truncated_end(prompt, fits)
        return f"only the first {T5_TOKENS} tokens are read, not {quoted(cut)}" if cut else ""


def t5_from_folder(folder: Path) -> tuple[T5EncoderModel, Tokenizer]:
    """T5's encoder and tokenizer from a folder as transformers writes it; a decoder in it is left out.

    ModelError where a file is missing or damaged, or the weights are not a T5's.
    """
    if read_json(folder / "config.json").get("model_type") != "t5":
        raise ModelError(f"{folder} holds no T5; give the folder that google/flan-t5-large was downloaded to")
    try:
        with quiet():
            loaded: Any = T5EncoderModel.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except Exception as error:  # transformers and its readers have no common base for what damaged files raise
        raise ModelError(f"{folder} cannot be read as a T5 ({type(error).__name__}); download it again") from None
    t5, info = loaded
    if missing := sorted(set(info["missing_keys"]) - {TIED}):
        raise ModelError(f"{folder} does not fit T5: missing {', '.join(missing)}")
    return t5.float(), read_tokenizer(folder)


def save_t5_clap(
    folder: Path, name: str, t5: T5EncoderModel, tokenizer: Tokenizer, clap: str, facts: Mapping[str, Any]
) -> None:
    """Write the encoder's folder: T5 and its tokenizer; of CLAP only its name, or its path inside the folder.

    `facts` (licence, origin) are kept in config.json.
    """
    state = {name: value for name, value in t5.state_dict().items() if name != TIED}
    save_tensors(folder / "model.safetensors", state)
    save_tokenizer(folder, tokenizer)
    config = {"kind": T5_CLAP_KIND, "name": name, "clap": clap, "t5": t5.config.to_diff_dict()}
    write_json(folder / "config.json", {**config, **facts})


def load_t5_clap(folder: Path) -> T5CLAPText:
    """The text encoder in a folder, ready to use; its CLAP is inside it or among the user's models.

    ModelError where a file is damaged or of something else, or there is no such CLAP.
    """
    config = read_json(folder / "config.json")
    try:
        sizes, clap = T5Config.from_dict(config["t5"]), config["clap"]
        place = folder / clap if is_model_folder(folder / clap) else user_model(clap)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder / 'config.json'} does not describe a T5 text encoder ({error})") from None
    if place is None:
        raise ModelError(f"{folder} needs the CLAP {clap!r}, which is not here; import it first")
    t5 = assembled(T5EncoderModel, sizes, load_tensors(folder / "model.safetensors"))
    return T5CLAPText(config["name"], t5, load_tokenizer(folder), load_clap(place))
