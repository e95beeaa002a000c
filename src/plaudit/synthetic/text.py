"""The synthetic world's text encoder: tokens from a small transformer, the pooled vector from its CLAP."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from plaudit.devices import device_of
from plaudit.encoders.truncation import quoted, truncated_end
from plaudit.encoders.words import LENGTH, WordBatch, batch_words, words
from plaudit.errors import PromptError
from plaudit.places import SHIPPED_WEIGHTS
from plaudit.storage import load_module, read_json
from plaudit.synthetic.clap import SyntheticCLAP, WordTransformer, load_synthetic_clap
from plaudit.types import TextFeatures


class SyntheticText(nn.Module):
    """Prompts -> one layer-normed vector per word; the synthetic world's T5 (ours).

    It is trained to predict from a caption the facts that it states (tools.synthetic.text), so its vectors encode
    genre, mood, instruments, tempo and key rather than spelling.
    """

    def __init__(self, width: int = 128, depth: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.width = width
        self.config = {"width": width, "depth": depth, "heads": heads}
        self.reader = WordTransformer(width, depth, heads)

    def forward(self, batch: WordBatch) -> Tensor:
        """-> [B, LENGTH, width], zero at padding."""
        return self.reader(batch)


class SyntheticTextEncoder:
    """A plaudit.types.TextEncoder, in the place of T5 and CLAP in the published system."""

    name = "synthetic"
    length = LENGTH

    def __init__(self, text: SyntheticText, clap: SyntheticCLAP) -> None:
        self.text, self.clap = text, clap
        self.token_dim, self.pooled_dim = text.width, clap.dim

    def to(self, device: torch.device) -> SyntheticTextEncoder:
        """Both transformers on `device`."""
        self.text.to(device)
        self.clap.to(device)
        return self

    @torch.inference_mode()
    def encode(self, prompts: list[str]) -> TextFeatures:
        """tokens [B, 32, 128] and pooled [B, 128]; each distinct prompt is encoded once."""
        if not prompts:
            raise PromptError("no prompts were given; pass at least one (an empty string is allowed)")
        distinct = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        tokens = self.text(batch_words([words(prompt) for prompt in distinct]).to(device_of(self.text)))
        features = TextFeatures(tokens, self.clap.text(list(distinct)))
        return features.rows(torch.tensor([distinct[prompt] for prompt in prompts]))

    def truncation(self, prompt: str) -> str:
        """The part of a prompt without effect: words beyond the 31st, and letters other than a to z."""
        most = LENGTH - 1  # the start mark is a word, too
        if prompt.strip() and not words(prompt):
            return "no word is read: the text encoder knows the letters a to z and digits alone"
        if cut := truncated_end(prompt, lambda text: len(words(text)) <= most):
            return f"only the first {most} words are read, not {quoted(cut)}"
        foreign = [word for word in prompt.split() if any(c.isalpha() and not words(c) for c in word)]
        return f"letters other than a to z are not read, as in {quoted(' '.join(foreign))}" if foreign else ""


def load_synthetic_text(folder: Path = SHIPPED_WEIGHTS / "text") -> SyntheticText:
    """The shipped text transformer (evaluation mode, float32)."""
    text = SyntheticText(**read_json(folder / "config.json"))
    load_module(folder, text)
    return text.eval().requires_grad_(False)


def load_synthetic_text_encoder() -> SyntheticTextEncoder:
    """The shipped text encoder, ready to use."""
    return SyntheticTextEncoder(load_synthetic_text(), load_synthetic_clap())
