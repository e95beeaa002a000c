"""The synthetic CLAP: unit norm, lengths, bad input, and retrieval with the shipped weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from plaudit.errors import AudioError, ModelError
from plaudit.places import SHIPPED_WEIGHTS
from plaudit.storage import load_tensors, save_tensors
from plaudit.synthetic.clap import SyntheticCLAP, load_synthetic_clap
from plaudit.synthetic.corpus import SyntheticCorpus
from tools.synthetic.clap import HELD_OUT_SEED, contrastive, evaluate_clap


@pytest.fixture(scope="module")
def clap() -> SyntheticCLAP:
    return load_synthetic_clap()


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    corpus = SyntheticCorpus(4, 10.0, HELD_OUT_SEED, flawed_fraction=0, miscaptioned_fraction=0)
    return torch.stack([torch.from_numpy(corpus.render(clip)) for clip in corpus.clips])


@pytest.mark.parametrize("seconds", [5.0, 10.0])
def test_a_clip_finds_its_caption(clap: SyntheticCLAP, seconds: float) -> None:
    assert evaluate_clap(clap, batches=2, seconds=seconds).accuracy >= 0.6


@pytest.mark.parametrize("samples", [16000, 16001, 40000, 160000])
def test_any_length_from_a_second(clap: SyntheticCLAP, clips: torch.Tensor, samples: int) -> None:
    embedding = clap.audio(clips[:, :samples])
    assert embedding.shape == (4, clap.dim)
    assert torch.allclose(embedding.norm(dim=1), torch.ones(4), atol=1e-5)


def test_half_a_clip_is_like_the_whole_one(clap: SyntheticCLAP, clips: torch.Tensor) -> None:
    half, whole = clap.audio(clips[:, :80000]), clap.audio(clips)
    similarity = half @ whole.T
    assert torch.equal(similarity.argmax(1), torch.arange(4))


def test_gain_and_batch_do_not_matter(clap: SyntheticCLAP, clips: torch.Tensor) -> None:
    whole = clap.audio(clips)
    assert torch.allclose(clap.audio(clips[1:2]), whole[1:2], atol=1e-4)
    assert torch.allclose(clap.audio(0.2 * clips), whole, atol=5e-3)


def test_silence_is_finite(clap: SyntheticCLAP) -> None:
    assert bool(torch.isfinite(clap.audio(torch.zeros(1, 32000))).all())


def test_gradient_reaches_the_waveform(clap: SyntheticCLAP, clips: torch.Tensor) -> None:
    wave = clips[:1, :32000].clone().requires_grad_()
    (clap.audio(wave) @ clap.text(["sad piano"]).T).sum().backward()
    assert wave.grad is not None and float(wave.grad.abs().max()) > 0
    assert bool(torch.isfinite(wave.grad).all())


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (torch.zeros(0, 32000), "at least one clip"),
        (torch.zeros(32000), "at least one clip"),
        (torch.zeros(1, 8000), "at least 1 s"),
        (torch.full((1, 32000), torch.nan), "NaN"),
        (torch.full((1, 32000), torch.inf), "infinite"),
    ],
)
def test_bad_audio(clap: SyntheticCLAP, wave: torch.Tensor, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        clap.audio(wave)


def test_contrastive_known_answers() -> None:
    vectors = torch.eye(4)
    loss, right = contrastive(vectors, vectors, torch.tensor(3.0))
    expected = torch.log(torch.exp(torch.tensor(20.0855)) + 3) - 20.0855
    assert float(loss) == pytest.approx(float(expected), abs=1e-5)
    assert float(right) == 1.0
    _, wrong = contrastive(vectors, vectors.roll(1, 0), torch.tensor(3.0))
    assert float(wrong) == 0.0


def test_a_shipped_clap_whose_texts_collapsed_is_refused(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED_WEIGHTS / "clap", tmp_path / "clap")
    state = load_tensors(tmp_path / "clap" / "model.safetensors")
    state["text_head.weight"] = torch.zeros_like(state["text_head.weight"])
    state["text_head.bias"] = torch.ones_like(state["text_head.bias"])
    save_tensors(tmp_path / "clap" / "model.safetensors", state)
    with pytest.raises(ModelError, match="hardly tells texts apart"):
        load_synthetic_clap(tmp_path / "clap")
