"""CLAP against what LAION's own code computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from plaudit.encoders.laion_clap import LaionCLAP, clap_model_from_published
from tests.parity.folder import assert_equal, fixtures_of, load, tensors


@pytest.mark.parametrize("name", fixtures_of("clap"))
def test_both_towers_compute_what_the_published_ones_do(name: str) -> None:
    fixture = load(name)
    tokens = {key: fixture.inputs[key] for key in ("input_ids", "attention_mask")}

    def tokenizer(text: list[str], **_: Any) -> dict[str, torch.Tensor]:
        return tokens

    clap = LaionCLAP("clap", clap_model_from_published(tensors(fixture.state_dict())), tokenizer)
    waves = {key: wave for key, wave in fixture.inputs.items() if key.startswith("wav_int16_")}
    assert waves
    with torch.inference_mode():
        assert_equal(clap.text(["the tokens above"]), fixture.outputs["text_embed"], 1e-4)
        for key, wave in waves.items():
            output = clap.embed_quantized(wave[None].float() / 32767)
            assert_equal(output, fixture.outputs[key.replace("wav_int16", "audio_embed")], 1e-4)
