from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import T5Config, T5EncoderModel, T5ForConditionalGeneration

from plaudit import loading
from plaudit.encoders.laion_clap import clap_from_published, load_clap, save_clap
from plaudit.encoders.t5_clap import T5_TOKENS, T5CLAPText, load_t5_clap, save_t5_clap, t5_from_folder
from plaudit.errors import ModelError
from plaudit.storage import save_tensors
from tests.encoders.test_laion_clap import laion_names, small_model
from tests.encoders.words_tokenizer import byte_tokenizer

PROMPTS = ["slow sad piano", "", "drums " * 40]


def released_t5(folder: Path) -> Path:
    """A folder as google/flan-t5-large is: encoder and decoder, tokenizer, transformers' files."""
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    T5ForConditionalGeneration(T5Config(vocab_size=300, pad_token_id=1, **sizes)).save_pretrained(folder)
    byte_tokenizer().save_pretrained(str(folder))
    return folder


def tiny_encoder(folder: Path) -> T5CLAPText:
    t5, tokenizer = t5_from_folder(released_t5(folder))
    clap = clap_from_published("tiny-clap", laion_names(small_model()), byte_tokenizer())
    return T5CLAPText("tiny-text", t5, tokenizer, clap)


def test_t5_sees_its_mask_and_every_prompt_has_77_tokens(tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path)
    features = encoder.encode(PROMPTS)
    assert (encoder.length, encoder.token_dim, encoder.pooled_dim) == (77, 16, 512)
    assert features.tokens.shape == (3, T5_TOKENS, 16) and features.pooled.shape == (3, 512)
    torch.testing.assert_close(features.pooled, encoder.clap.text(PROMPTS))
    # With its mask, T5 says of the prompt's own tokens what it says of the prompt without padding.
    t5 = T5EncoderModel.from_pretrained(tmp_path)
    ids = byte_tokenizer()([PROMPTS[0]], return_tensors="pt")["input_ids"]
    alone = t5(input_ids=ids).last_hidden_state[0]
    torch.testing.assert_close(features.tokens[0, : len(alone)], alone, atol=1e-5, rtol=1e-4)
    assert features.tokens[0, len(alone) :].abs().max() > 0  # the features of padding are handed on


def test_a_saved_text_encoder_comes_back_and_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAUDIT_MODELS", str(tmp_path / "models"))
    encoder = tiny_encoder(tmp_path / "released")
    facts = {"licence": "Apache-2.0"}
    save_t5_clap(tmp_path / "models" / "text", "tiny-text", encoder.t5, encoder.tokenizer, "clap", facts)
    with pytest.raises(ModelError, match="needs the CLAP 'clap', which is not here"):
        load_t5_clap(tmp_path / "models" / "text")
    save_clap(tmp_path / "models" / "clap", "clap", laion_names(small_model()), byte_tokenizer(), {"licence": "CC0"})
    again, expected = loading.TEXT_ENCODERS.load("text").encode(PROMPTS), encoder.encode(PROMPTS)
    assert torch.equal(again.tokens, expected.tokens) and torch.equal(again.pooled, expected.pooled)
    wave = 0.1 * torch.randn(1, 48000, generator=torch.Generator().manual_seed(0))
    # Mapped weights may lie in memory at another alignment, which changes the order of sums.
    torch.testing.assert_close(
        loading.CLAPS.load("clap").audio(wave), encoder.clap.audio(wave), atol=1e-6, rtol=0
    )


def test_a_collapsed_clap_is_refused_at_every_load(tmp_path: Path) -> None:
    state = laion_names(small_model())
    save_clap(tmp_path, "flat", state, byte_tokenizer(), {})
    load_clap(tmp_path)
    state["text_projection.2.weight"].zero_()
    state["text_projection.2.bias"].fill_(1)
    with pytest.raises(ModelError, match="hardly tells texts apart"):
        save_clap(tmp_path, "flat", state, byte_tokenizer(), {})
    save_tensors(tmp_path / "model.safetensors", state)
    with pytest.raises(ModelError, match="hardly tells texts apart"):
        load_clap(tmp_path)


def test_damaged_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    folder = released_t5(tmp_path / "t5")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot be read as a T5"):
        t5_from_folder(folder)
    weights.write_bytes(whole)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="holds no tokenizer"):
        t5_from_folder(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match="holds no T5"):
        t5_from_folder(folder)
    for load in (load_t5_clap, load_clap):
        with pytest.raises(ModelError, match="does not describe"):
            load(folder)
