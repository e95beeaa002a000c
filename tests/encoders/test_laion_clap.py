from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import ClapAudioConfig, ClapConfig, ClapFeatureExtractor, ClapModel, ClapTextConfig

from plaudit.encoders.laion_clap import (
    CLAP_SAMPLES,
    UNUSED,
    LaionCLAP,
    clap_from_published,
    clap_log_mel,
    clap_model_from_published,
    quantized,
    ten_seconds,
)
from plaudit.encoders.pretrained import check_texts_differ
from plaudit.errors import AudioError, ModelError

VOCABULARY = 300


def tokenizer(
    text: list[str], *, padding: str, truncation: bool, max_length: int, return_tensors: str
) -> dict[str, Tensor]:
    """Bytes as tokens, in RoBERTa's frame: 0 begins, 2 ends, 1 pads."""
    assert (padding, truncation, return_tensors) == ("max_length", True, "pt")
    ids = torch.ones(len(text), max_length, dtype=torch.long)
    for row, prompt in enumerate(text):
        inner = [3 + byte for byte in prompt.encode()][: max_length - 2]
        ids[row, : len(inner) + 2] = torch.tensor([0, *inner, 2])
    return {"input_ids": ids, "attention_mask": (ids != 1).long()}


def small_model() -> ClapModel:
    """A CLAP of every part that a released one has, but narrow; its text tower is random enough to tell texts apart."""
    audio = ClapAudioConfig(
        patch_embeds_hidden_size=8, hidden_size=16, depths=[2, 1], num_attention_heads=[2, 4], num_hidden_layers=2
    )
    text = ClapTextConfig(
        vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=96
    )
    torch.manual_seed(0)
    model = ClapModel(ClapConfig(audio_config=audio, text_config=text, projection_dim=512))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                sharper = 4 if ".query." in name or ".key." in name else 1
                parameter.normal_(std=1 if "embeddings" in name else sharper * parameter[0].numel() ** -0.5)
    return model.eval()


def laion_names(model: ClapModel) -> dict[str, Tensor]:
    """The state dict as LAION's code has it: other names, queries, keys and values stacked, and entries of its own."""
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if UNUSED.match(name):
            continue
        name = name.replace("text_model.", "text_branch.").replace("audio_model.audio_encoder.", "audio_branch.")
        name = name.replace("batch_norm", "bn0").replace("linear1", "0").replace("linear2", "2")
        if name.startswith("audio_branch.layers"):
            name = name.replace("layernorm_before", "norm1").replace("layernorm_after", "norm2")
            name = name.replace("attention.output.dense", "attn.proj").replace("attention.self", "attn")
            name = name.replace("intermediate.dense", "mlp.fc1").replace("output.dense", "mlp.fc2")
            for part in ("query", "key", "value"):
                if f".{part}." in name:
                    name = name.replace(part, "qkv")
                    value = torch.cat([state[name], value]) if name in state else value
        state[name] = value.clone()
    state |= {"logit_scale_a": torch.zeros(()), "audio_branch.tscam_conv.weight": torch.zeros(3)}
    state |= {"text_transform.sequential.0.bias": torch.zeros(2), "audio_branch.logmel_extractor.melW": torch.zeros(2)}
    state["audio_branch.layers.0.blocks.1.attn_mask"] = torch.zeros(2)
    state["audio_branch.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(2)
    return state


@pytest.mark.parametrize("prefix", ["", "module."])
def test_laions_names_become_those_of_transformers(prefix: str) -> None:
    model = small_model()
    state = {prefix + name: value for name, value in laion_names(model).items()}
    clap = clap_from_published("clap", {"epoch": 3, "state_dict": state} if prefix else state, tokenizer)
    made = clap.model.state_dict()
    assert all(torch.equal(made[name], value) for name, value in model.state_dict().items())
    assert clap.dim == 512
    assert clap.text(["one", "two", "three"]).norm(dim=1) == pytest.approx(torch.ones(3), abs=1e-5)
    wave = torch.randn(2, 48000, generator=torch.Generator().manual_seed(1)) / 10
    assert clap.audio(wave).shape == (2, 512)


def test_missing_unknown_and_misshapen_tensors_are_all_named() -> None:
    state = laion_names(small_model())
    del state["text_branch.pooler.dense.bias"]
    state |= {"text_branch.embeddings.extra": torch.zeros(4), "audio_branch.norm.bias": torch.zeros(5)}
    with pytest.raises(ModelError) as error:
        clap_model_from_published(state)
    message = str(error.value)
    assert "missing text_branch.pooler.dense.bias (64,)" in message
    assert "unknown text_branch.embeddings.extra (4,)" in message
    assert "audio_branch.norm.bias is (5,), not (16,)" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "name", ["audio_branch.patch_embed.proj.weight", "text_branch.embeddings.word_embeddings.weight"]
)
def test_sizes_that_no_clap_has_are_refused(name: str) -> None:
    state = laion_names(small_model())
    state[name] = torch.zeros(*[size + 13 for size in state[name].shape])
    with pytest.raises(ModelError, match="LAION's CLAP"):
        clap_model_from_published(state)
    with pytest.raises(ModelError, match=r"missing audio_branch\.patch_embed\.proj\.weight.*it holds weight"):
        clap_model_from_published({"weight": torch.zeros(2)})


@pytest.mark.parametrize("spoil", [0.0, float("nan")])
def test_a_text_tower_that_hardly_tells_texts_apart_is_refused(spoil: float) -> None:
    state = laion_names(small_model())
    state["text_projection.2.weight"] *= spoil
    state["text_projection.2.bias"] += 1
    with pytest.raises(ModelError, match=r"hardly tells texts apart.*cosine of (1\.00|nan)"):
        clap_from_published("clap", state, tokenizer)


def test_a_text_tower_that_ignores_all_but_the_frame_is_refused() -> None:
    def deaf(text: list[str], **options: Any) -> dict[str, Tensor]:
        return tokenizer([""] * len(text), **options)

    with pytest.raises(ModelError, match="hardly tells texts apart"):
        check_texts_differ(LaionCLAP("clap", small_model(), deaf))


def test_spectrograms_equal_those_of_transformers() -> None:
    extractor = ClapFeatureExtractor(frequency_min=50, truncation="rand_trunc", padding="repeatpad")
    generator = torch.Generator().manual_seed(2)
    for seconds in (3, 7, 10):
        wave = torch.rand(1, seconds * 48000, generator=generator) - 0.5
        expected = extractor(wave[0].numpy(), sampling_rate=48000, return_tensors="pt")["input_features"][0]
        torch.testing.assert_close(clap_log_mel(ten_seconds(wave), 64), expected, atol=1e-2, rtol=0)


def test_short_clips_are_repeated_and_long_ones_cropped_to_the_centre() -> None:
    ramp = torch.arange(200_000.0)[None]
    made = ten_seconds(ramp)
    assert made.shape == (1, CLAP_SAMPLES)
    assert torch.equal(made[:, :400_000], ramp.repeat(1, 2)) and not made[:, 400_000:].any()
    long = torch.arange(CLAP_SAMPLES + 11.0)[None]
    assert torch.equal(ten_seconds(long), long[:, 5 : 5 + CLAP_SAMPLES])
    assert torch.equal(ten_seconds(long[:, :CLAP_SAMPLES]), long[:, :CLAP_SAMPLES])


def test_samples_are_quantized_towards_zero_and_let_gradients_pass() -> None:
    wave = torch.tensor([[0.5, -0.5, 1.9 / 32767, -1.9 / 32767, 2.0]], requires_grad=True)
    made = quantized(wave)
    made.sum().backward()
    torch.testing.assert_close(made.detach() * 32767, torch.tensor([[16383.0, -16383.0, 1.0, -1.0, 32767.0]]))
    assert wave.grad is not None and torch.equal(wave.grad, torch.ones(1, 5))


def test_gradients_reach_the_waveform_and_bad_audio_is_refused() -> None:
    clap = LaionCLAP("clap", small_model(), tokenizer)
    wave = (torch.randn(1, 48000, generator=torch.Generator().manual_seed(3)) / 10).requires_grad_()
    clap.audio(wave)[0, 0].backward()
    assert wave.grad is not None and wave.grad.abs().max() > 0 and torch.isfinite(wave.grad).all()
    for bad in (torch.zeros(48000), torch.zeros(1, 100), torch.full((1, 48000), float("nan"))):
        with pytest.raises(AudioError):
            clap.audio(bad)
