"""Yes-or-no questions on audio, put to an audio language model of the transformers package."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, AutoProcessor

from plaudit.encoders.pretrained import quiet
from plaudit.errors import EvaluationError
from plaudit.storage import digest_of

YES, NO = (("yes", "Yes", " yes", " Yes"), ("no", "No", " no", " No"))
"""Spellings of the answers, of which those that are one token count (ours)."""


class AudioLanguageModel:
    """A model of transformers that takes audio and text in a chat, such as Qwen2-Audio, Qwen2.5-Omni or Qwen3-Omni.

    Of a model that also speaks, the part that writes text (its thinker) is used. The logit of an answer is the highest
    of its spellings at the first position after the question.
    """

    def __init__(self, name: str, processor: Any, network: Any, revision: str) -> None:
        self.name, self.processor, self.network = name, processor, network
        self.identity = digest_of("audio language model", name, revision)[:16]
        self.sample_rate = int(processor.feature_extractor.sampling_rate)
        self._yes, self._no = (_tokens(processor.tokenizer, spellings, name) for spellings in (YES, NO))

    @torch.inference_mode()
    def margins(self, wave: Tensor, questions: Sequence[str]) -> list[float]:
        """See plaudit.evaluate.concepts.detectors.QuestionAnswerer; one question at a time, to save memory."""
        return [self._margin(wave.float().cpu().numpy(), question) for question in questions]

    def _margin(self, wave: Any, question: str) -> float:
        content = [{"type": "audio", "audio": wave}, {"type": "text", "text": question}]
        inputs = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
            processor_kwargs={"audio_kwargs": {"sampling_rate": self.sample_rate}},
        )  # fmt: skip
        inputs = {name: self._placed(value) for name, value in inputs.items()}
        logits = self.network(**inputs).logits[0, -1].float()
        return float(logits[self._yes].max() - logits[self._no].max())

    def _placed(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(self.network.device, self.network.dtype if value.is_floating_point() else None)


def load_audio_language_model(name: str, device: torch.device) -> AudioLanguageModel:
    """The model in a folder, or of that name on the Hub, as NAME or NAME@REVISION; in the precision of its file.

    Code of the repository is never run, and weights are read from safetensors alone. EvaluationError, in one line,
    where there is no such model, or none that takes audio.
    """
    repository, _, revision = name.partition("@")
    options: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": False}
    try:
        with quiet():
            config = AutoConfig.from_pretrained(repository, **options)
            kind = getattr(transformers, (config.architectures or [""])[0], None)
            if kind is None:
                raise ValueError(f"transformers {transformers.__version__} has no class {config.architectures}")
            processor = AutoProcessor.from_pretrained(repository, **options)
            network = kind.from_pretrained(repository, use_safetensors=True, dtype="auto", **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = re.sub(r"\s+", " ", str(error))[:200]
        raise EvaluationError(
            f"audio language model {name!r} cannot be loaded ({reason}); give a folder or a name on the Hub"
        ) from None
    if not all(hasattr(processor, part) for part in ("feature_extractor", "tokenizer", "apply_chat_template")):
        raise EvaluationError(f"{name} takes no audio in a chat; name one such as Qwen2-Audio-Instruct or Qwen3-Omni")
    network = getattr(network, "thinker", network).eval().requires_grad_(False).to(device)
    commit = getattr(config, "_commit_hash", None) or revision
    return AudioLanguageModel(name, processor, network, str(commit))


def _tokens(tokenizer: Any, spellings: Sequence[str], name: str) -> list[int]:
    encoded = (tokenizer.encode(text, add_special_tokens=False) for text in spellings)
    tokens = sorted({ids[0] for ids in encoded if len(ids) == 1 and ids[0] != tokenizer.unk_token_id})
    if not tokens:
        raise EvaluationError(f"{name}: none of {', '.join(map(repr, spellings))} is one token; name another model")
    return tokens
