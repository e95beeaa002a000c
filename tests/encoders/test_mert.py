from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from plaudit import loading
from plaudit.encoders.mert import MERT, mert_from_published, save_mert, shortest
from plaudit.errors import AudioError, ModelError
from plaudit.published import read_released
from plaudit.storage import read_json

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8, 8],
    "conv_kernel": [10, 3],
    "conv_stride": [5, 2],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}


def released(folder: Path) -> HubertModel:
    """A folder as MERT-v1-330M is: its own model type, weight norm's older names, a pickle of tensors."""
    torch.manual_seed(0)
    model = HubertModel(HubertConfig(**SIZES)).eval()
    config = model.config.to_dict() | {"model_type": "mert_model", "architectures": ["MERTModel"]}
    config |= {"feature_extractor_cqt": False, "deepnorm": False, "attention_relax": -1.0}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    Wav2Vec2FeatureExtractor(sampling_rate=24000, do_normalize=True).save_pretrained(folder)
    state = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for name, value in model.state_dict().items()
    }
    assert any(name.endswith("weight_g") for name in state)
    torch.save(state, folder / "pytorch_model.bin")
    return model


def imported(folder: Path, **changes: Any) -> MERT:
    config = read_json(folder / "config.json") | changes
    preprocessor = read_json(folder / "preprocessor_config.json")
    return mert_from_published("tiny-mert", read_released(folder / "pytorch_model.bin"), config, preprocessor)


def test_a_released_mert_computes_what_hubert_and_its_feature_extractor_do(tmp_path: Path) -> None:
    model = released(tmp_path)
    mert = imported(tmp_path)
    wave = 0.2 * torch.randn(2, 2400, generator=torch.Generator().manual_seed(1)) + 0.05
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(tmp_path)
    inputs = extractor(list(wave.numpy()), sampling_rate=24000, return_tensors="pt")["input_values"]
    with torch.no_grad():
        expected = model(inputs).last_hidden_state.mean(1)
    assert (mert.sample_rate, mert.dim) == (24000, 16)
    torch.testing.assert_close(mert.audio(wave), expected, atol=1e-5, rtol=1e-4)


def test_a_saved_mert_comes_back_and_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAUDIT_MODELS", str(tmp_path))
    released(tmp_path / "released")
    mert, folder = imported(tmp_path / "released"), tmp_path / "released"
    config, preprocessor = read_json(folder / "config.json"), read_json(folder / "preprocessor_config.json")
    weights = read_released(folder / "pytorch_model.bin")
    save_mert(tmp_path / "mert", "tiny-mert", weights, config, preprocessor, {"licence": "CC-BY-NC-4.0"})
    again = loading.AUDIO_ENCODERS.load("mert")
    wave = torch.randn(1, 1200, generator=torch.Generator().manual_seed(2))
    assert again.name == "tiny-mert" and torch.equal(again.audio(wave), mert.audio(wave))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"feature_extractor_cqt": True}, "constant-Q"),
        ({"deepnorm": True}, "DeepNorm"),
        ({"model_type": "wav2vec2"}, "'wav2vec2', not of an MERT"),
        ({"num_hidden_layers": 3}, r"missing encoder\.layers\.2\."),
        ({"num_hidden_layers": 1}, r"unknown encoder\.layers\.1\."),
    ],
)
def test_another_mert_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    released(tmp_path)
    with pytest.raises(ModelError, match=said):
        imported(tmp_path, **changes)


def test_gradients_reach_the_waveform_and_what_is_too_short_is_refused(tmp_path: Path) -> None:
    released(tmp_path)
    mert = imported(tmp_path)
    least = shortest(mert.model.config)
    assert least == 20
    wave = torch.randn(1, least, generator=torch.Generator().manual_seed(3)).requires_grad_()
    mert.audio(wave)[0, 0].backward()
    assert wave.grad is not None and wave.grad.abs().max() > 0
    with pytest.raises(AudioError):
        mert.audio(torch.randn(1, least - 1))
