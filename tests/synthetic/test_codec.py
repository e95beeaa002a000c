"""The synthetic codec: its contract, and that the shipped one reconstructs better than Griffin-Lim."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import plaudit
from plaudit.errors import AudioError, ModelError
from plaudit.settings import Precision
from plaudit.synthetic.codec import (
    SyntheticCodec,
    SyntheticCodecConfig,
    load_synthetic_codec,
    magnitude,
    save_synthetic_codec,
)
from plaudit.synthetic.corpus import SyntheticCorpus
from tools.synthetic.codec import HELD_OUT_SEED, codec_losses, evaluate_codec
from tools.synthetic.losses import gaussian_divergence

SMALL = SyntheticCodecConfig(
    encoder_width=16, encoder_blocks=1, latent_width=16, latent_blocks=1, decoder_width=16, decoder_blocks=1
)


@pytest.fixture(scope="module")
def codec() -> SyntheticCodec:
    return load_synthetic_codec()


@settings(max_examples=6, deadline=None)
@given(frames=st.integers(1, 40), batch=st.integers(1, 3))
def test_any_multiple_of_the_hop(frames: int, batch: int) -> None:
    small = SyntheticCodec(SMALL)
    wave = 0.1 * torch.randn(batch, frames * small.hop, generator=torch.Generator().manual_seed(frames))
    posterior = small.encode(wave)
    assert posterior.mean.shape == posterior.std.shape == (batch, frames, small.latent_dim)
    assert bool((posterior.std > 0).all())
    assert bool(gaussian_divergence(posterior.mean, posterior.std).isfinite())
    assert small.decode(posterior.mean).shape == wave.shape


@pytest.mark.parametrize("shape", [(1, 1000), (1, 0), (1025,), (1, 1, 1024)])
def test_other_lengths_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(AudioError, match="multiple of 1024"):
        SyntheticCodec(SMALL).encode(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 4, 39), (1, 0, 40), (4, 40)])
def test_other_latents_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="frames, 40"):
        SyntheticCodec(SMALL).decode(torch.zeros(shape))


@torch.inference_mode()
def test_silence_stays_silent(codec: SyntheticCodec) -> None:
    posterior = codec.encode(torch.zeros(1, 16 * codec.hop))
    wave = codec.decode(posterior.mean)
    assert bool(posterior.mean.isfinite().all()) and bool(wave.isfinite().all())
    assert float(wave.square().mean().sqrt()) < 0.003


@torch.inference_mode()
def test_deterministic_and_the_same_in_any_batch(codec: SyntheticCodec) -> None:
    latents = torch.randn(3, 12, codec.latent_dim, generator=torch.Generator().manual_seed(0))
    wave = codec.decode(latents)
    torch.testing.assert_close(codec.decode(latents), wave, rtol=0, atol=0)
    torch.testing.assert_close(codec.decode(latents[1:2])[0], wave[1], rtol=0, atol=1e-3)


@torch.inference_mode()
def test_shipped_codec_reconstructs_better_than_griffin_lim() -> None:
    figures = evaluate_codec(load_synthetic_codec(), clips=8)
    assert figures.codec_distance < figures.griffin_lim_distance


@torch.inference_mode()
def test_shipped_latents_are_of_about_unit_scale(codec: SyntheticCodec) -> None:
    corpus = SyntheticCorpus(8, 2.048, seed=HELD_OUT_SEED)
    wave = torch.stack([torch.from_numpy(corpus.render(clip)) for clip in corpus.clips])
    assert 0.5 < float(codec.encode(wave).mean.std((0, 1)).mean()) < 3


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    small = SyntheticCodec(SMALL).eval()
    save_synthetic_codec(tmp_path, small)
    loaded = load_synthetic_codec(tmp_path)
    assert loaded.config == SMALL and not loaded.training
    wave = 0.1 * torch.randn(1, 4096, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded.encode(wave).mean, small.encode(wave).mean, atol=0.02, rtol=0.02)


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load_synthetic_codec(tmp_path)
    (tmp_path / "config.json").write_text('{"colour": "blue"}')
    with pytest.raises(ModelError, match="does not describe a synthetic codec"):
        load_synthetic_codec(tmp_path)


def test_a_few_steps_of_training_lower_the_loss() -> None:
    torch.manual_seed(0)
    small = SyntheticCodec(SMALL)
    time = torch.arange(8192) / 16000
    wave = torch.stack([0.2 * torch.sin(2 * torch.pi * hz * time) for hz in (220.0, 440.0)])
    optimizer = torch.optim.Adam(small.parameters(), 3e-3)
    seen = []
    for step in range(30):
        values = codec_losses(small, wave, (512,) if step % 2 else (), 1e-2, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        values["loss"].backward()
        optimizer.step()
        seen.append(float(values["distance"].detach()))
    assert sum(seen[-4:]) < 0.8 * sum(seen[:4])


def test_in_bfloat16_it_decodes_the_same_sound(codec: SyntheticCodec) -> None:
    corpus = SyntheticCorpus(3, 2.0, 91)
    waves = torch.stack([torch.from_numpy(corpus.render(clip))[: 31 * codec.hop] for clip in corpus.clips])
    with torch.inference_mode():
        latents = codec.encode(waves).mean
        exact = codec.decode(latents)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = codec.decode(latents)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)

    def log_magnitude(wave: Tensor) -> Tensor:
        return (magnitude(wave, 1024, 256) + 1e-4).log()

    rounding, loss = (
        (log_magnitude(one) - log_magnitude(other)).abs().mean() for one, other in ((rounded, exact), (exact, waves))
    )
    assert rounding < 0.1 * loss


@pytest.mark.parametrize("precision", ["bf16", "no"])
def test_clips_are_decoded_in_the_precision_of_sampling(codec: SyntheticCodec, precision: Precision) -> None:
    model = plaudit.load("synthetic-base", "cpu")
    settings = model.config.sampling.model_copy(update={"steps": 1, "precision": precision})
    settings = settings.model_copy(update={"piece": settings.piece.model_copy(update={"seconds": 1.0})})
    sampler, prompt = model.sampler(settings), "calm piano"
    (wave,) = model.stream([prompt], [3], sampler)
    negative = model.encode_texts([settings.negative_prompt])
    latents = sampler.latents(model.encode_texts([prompt]), negative, [3])
    with torch.inference_mode():
        assert torch.equal(wave, codec.decode(latents)[0]) == (precision == "no")
