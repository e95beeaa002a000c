"""An untrained audio language model in the files of transformers: Qwen2-Audio with one narrow layer of each kind."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

SPECIAL = ["<unk>", "<pad>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
WORDS = ["yes", "no", "Yes", "No", "Is", "the", "genre", "mood", "of", "music", "rock", "piano", "calm"]


def save_tiny_model(folder: Path, words: list[str] = WORDS, seed: int = 0) -> Path:
    """Processor, configuration and random weights, as `save_pretrained` writes them."""
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="<|im_end|>",
        additional_special_tokens=SPECIAL[2:],
    )  # fmt: skip
    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=2, nb_max_frames=200)
    processor = Qwen2AudioProcessor(extractor, fast)
    processor.chat_template = processor.default_chat_template
    processor.save_pretrained(folder)
    torch.manual_seed(seed)
    audio = {"num_mel_bins": 16, "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2,
             "encoder_ffn_dim": 16, "max_source_positions": 100}  # fmt: skip
    text = {"model_type": "qwen2", "vocab_size": len(vocabulary), "hidden_size": 16, "intermediate_size": 16,
            "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}  # fmt: skip
    config = Qwen2AudioConfig(audio_config=audio, text_config=text, audio_token_index=vocabulary["<|AUDIO|>"])
    network = Qwen2AudioForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4)  # so that answers depend on sound and question
    network.save_pretrained(folder)
    return folder
