"""The tokenizers of published text encoders, kept beside their weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from transformers import AutoTokenizer

from plaudit.errors import ModelError

FOLDER = "tokenizer"


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    def __call__(
        self, text: list[str], *, padding: str, truncation: bool, max_length: int, return_tensors: str
    ) -> Mapping[str, Tensor]:
        """`input_ids` and `attention_mask`, [B, max_length] each."""

    def save_pretrained(self, save_directory: str) -> Any:
        """Write the files that it is read from."""


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer whose files are in `folder`; nothing is downloaded. ModelError where they are not sound."""
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json")):
        raise ModelError(f"{folder} holds no tokenizer; download the tokenizer's files as well")
    try:
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers and tokenizers have no common base for what damaged files raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"the tokenizer in {folder} cannot be read ({reason}); download it again") from None
    return tokenizer


def save_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Keep a tokenizer in a model folder."""
    tokenizer.save_pretrained(str(folder / FOLDER))


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer kept in a model folder."""
    return read_tokenizer(folder / FOLDER)
