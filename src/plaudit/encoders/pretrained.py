"""Networks and tokenizers of transformers from files on disk, and a check for collapsed text embeddings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from plaudit.errors import ModelError
from plaudit.types import Embedder

Pretrained = TypeVar("Pretrained", bound=PreTrainedModel)


def assembled(
    kind: type[Pretrained], config: PretrainedConfig, state: Mapping[str, Tensor], built: re.Pattern[str] | None = None
) -> Pretrained:
    """The network with the tensors of `state` themselves as weights, in evaluation mode and without gradients.

    Nothing is drawn at random first, which takes longer than reading the file. built: entries that may be missing,
    because they are unused or built by the network itself. ModelError where another is missing, unknown or
    misshapen.
    """
    with quiet():
        loaded: Any = kind.from_pretrained(None, config=config, state_dict=dict(state), output_loading_info=True)
    network, info = loaded
    if built is not None:
        info["missing_keys"] = {name for name in info["missing_keys"] if not built.match(name)}
    wrong = [f"{what.replace('_keys', '')} {key}" for what in sorted(info) for key in sorted(map(str, info[what]))]
    if wrong:
        raise ModelError(f"the weights do not fit {kind.__name__}: {'; '.join(wrong)}")
    ready: Pretrained = network.eval().requires_grad_(False)
    return ready


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no warnings of transformers while it loads."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


TOKENIZER_FOLDER = "tokenizer"


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used."""

    def __call__(
        self, text: list[str], *, padding: str, truncation: bool, max_length: int, return_tensors: str
    ) -> Mapping[str, Tensor]:
        """`input_ids` and `attention_mask`, [B, max_length] each."""

    def save_pretrained(self, save_directory: str) -> Any:
        """Write the files that it is read from."""


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer whose files are in `folder`, not downloaded. ModelError where they are missing or damaged."""
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
    tokenizer.save_pretrained(str(folder / TOKENIZER_FOLDER))


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer kept in a model folder."""
    return read_tokenizer(folder / TOKENIZER_FOLDER)


UNRELATED = (
    "a solo piano plays a slow and sad melody",
    "aggressive death metal with distorted guitars and screaming",
    "rain falls on a tin roof while a dog barks",
    "an upbeat salsa band with trumpets and congas",
)
COLLAPSED = 0.9
"""Cosine of unrelated texts at which a text tower is refused (ours); intact ones stay far below."""


def check_texts_differ(clap: Embedder) -> None:
    """ModelError where embeddings of unrelated texts are nearly the same."""
    with torch.inference_mode():
        embeddings = clap.text(list(UNRELATED))
    cosines = (embeddings @ embeddings.T)[~torch.eye(len(UNRELATED), dtype=torch.bool)]
    closest = cosines.max().item()
    if not closest < COLLAPSED:  # NaN is refused as well
        raise ModelError(
            f"this CLAP hardly tells texts apart: unrelated ones have a cosine of {closest:.2f}; "
            "its text weights are damaged or badly converted, take the original file"
        )
