import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from plaudit.audio import resample
from plaudit.errors import AudioError, ModelError
from plaudit.reward.base import Recording, View, centre
from plaudit.reward.features import RewardFeatures, segments
from tests.reward.listeners import SpectrumEmbedder, clip

CLAP, MERT = SpectrumEmbedder("clap", 6, seed=0), SpectrumEmbedder("mert", 4, seed=1)


def test_published_blocks_are_clap_audio_then_listener_then_clap_text() -> None:
    features = RewardFeatures(CLAP, MERT)
    wave = clip(0)
    row = features.with_prompts(features.clip_features([wave], 8000), ["slow piano"])[0]
    assert features.dim == len(row) == 16
    torch.testing.assert_close(row[:6], CLAP.audio(wave[None])[0])
    torch.testing.assert_close(row[6:10], MERT.audio(wave[None])[0])
    torch.testing.assert_close(row[10:], CLAP.text(["slow piano"])[0])


def test_an_empty_prompt_is_a_zero_vector_in_every_block_of_text() -> None:
    features = RewardFeatures(CLAP, MERT, ("clap_text", "clap_match"))
    rows = features.with_prompts(features.clip_features([clip(0), clip(1)], 8000), ["", "piano"])
    assert not rows[0].any() and rows[1].all()


def test_the_match_block_sums_to_the_cosine() -> None:
    features = RewardFeatures(CLAP, MERT, ("clap_match",))
    row = features.with_prompts(features.clip_features([clip(0)], 8000), ["piano"])[0]
    cosine = normalize(CLAP.audio(clip(0)[None]), dim=-1) @ CLAP.text(["piano"])[0]
    assert row.sum().item() == pytest.approx(cosine.item(), abs=1e-5)


@pytest.mark.parametrize("blocks", [("clap_audio",), ("audio",), ("clap_text",), ("audio", "clap_text")])
def test_ablations_have_the_width_of_their_blocks(blocks: tuple[str, ...]) -> None:
    features = RewardFeatures(CLAP, MERT, blocks)
    rows = features.with_prompts(features.clip_features([clip(0), clip(1)], 8000), ["a", "b"])
    assert rows.shape == (2, features.dim)


def test_features_do_not_depend_on_the_batch() -> None:
    features = RewardFeatures(CLAP, MERT)
    waves = [clip(0, 0.5), clip(1, 0.9), clip(2, 0.5), clip(3, 0.7)]
    together = features.clip_features(waves, 8000)
    alone = torch.cat([features.clip_features([wave], 8000) for wave in waves])
    torch.testing.assert_close(together, alone)


def test_clap_gets_the_centre_ten_seconds_and_the_audio_encoder_everything() -> None:
    wave = torch.cat([clip(1, 3.0), clip(2, 10.0), clip(3, 3.0)])
    row = RewardFeatures(CLAP, MERT).clip_features([wave], 8000)[0]
    torch.testing.assert_close(row[:6], CLAP.audio(clip(2, 10.0)[None])[0])
    torch.testing.assert_close(row[6:], MERT.audio(wave[None])[0])
    assert centre(torch.arange(5), 2).tolist() == [1, 2] and centre(torch.arange(3), 4).tolist() == [0, 1, 2]


def test_other_rates_are_resampled() -> None:
    wave = clip(0, 1.0, rate=12000)
    features = RewardFeatures(CLAP, MERT)
    expected = features.clip_features([torch.from_numpy(resample(wave.numpy(), 12000, 8000))], 8000)
    torch.testing.assert_close(features.clip_features([wave], 12000), expected)


def test_clap_audio_goes_through_the_published_rate() -> None:
    wave, plain = clip(0, 1.0, rate=12000), RewardFeatures(CLAP, MERT)
    through = RewardFeatures(CLAP, MERT, clap_through=2000)
    narrow = resample(resample(wave.numpy(), 12000, 2000), 2000, 8000)
    row = through.clip_features([wave], 12000)[0]
    torch.testing.assert_close(row[:6], CLAP.audio(torch.from_numpy(narrow)[None])[0])
    torch.testing.assert_close(row[6:], plain.clip_features([wave], 12000)[0, 6:])  # the other encoder's is as before
    assert through.clip_identity["clap_audio"] == "clap, 6, through 2000 Hz"
    with pytest.raises(ModelError, match="use another features folder"):
        plain.columns_of(through)
    sounding = Recording(wave, 12000, "x").view(View(48000, through=16000)).numpy()
    spectrum = np.abs(np.fft.rfft(sounding))
    above = np.fft.rfftfreq(len(sounding), 1 / 48000) > 8000
    assert spectrum[above].max() < 1e-2 * spectrum.max()


def test_gradients_reach_the_waveform() -> None:
    wave = clip(0).requires_grad_()
    features = RewardFeatures(CLAP, MERT)
    features.with_prompts(features.clip_features([wave], 8000), ["piano"]).square().sum().backward()
    assert wave.grad is not None and wave.grad.any()


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (torch.zeros(0), "clip 1 is empty"),
        (torch.zeros(800), "clip 1 is silent"),
        (torch.from_numpy(np.array([0.1, np.nan], np.float32)), "clip 1 holds NaN"),
        (torch.ones(2, 100), "clip 1 has shape"),
    ],
)
def test_clips_that_cannot_be_scored_are_named(wave: torch.Tensor, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        RewardFeatures(CLAP, MERT).clip_features([clip(0), wave], 8000)


@pytest.mark.parametrize("blocks", [(), ("mert",), ("audio", "audio")])
def test_blocks_that_make_no_sense_are_refused(blocks: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match="one or more distinct of"):
        RewardFeatures(CLAP, MERT, blocks)


class LengthListener:
    """Hears how long a wave is, in seconds, and its mean."""

    name, sample_rate, dim = "length", 10, 2

    def audio(self, wave: torch.Tensor) -> torch.Tensor:
        seconds = torch.full((len(wave),), wave.shape[1] / 10)
        return torch.stack([seconds, wave.mean(1)], 1)


@pytest.mark.parametrize(
    ("samples", "cut"),
    [(1, [1]), (2999, [2999]), (3000, [3000]), (3009, [3009]), (3010, [3000, 10]), (7000, [3000, 3000, 1000]),
     (6005, [3000, 3005])],
)  # fmt: skip
def test_tracks_are_cut_into_segments_of_300_seconds(samples: int, cut: list[int]) -> None:
    assert segments(samples, 10) == cut and sum(cut) == samples


def test_a_long_track_is_the_mean_of_its_segments_weighted_by_length() -> None:
    wave = torch.cat([torch.full((3000,), 1.0), torch.full((3000,), 2.0), torch.full((1000,), 5.0)])
    short = torch.full((50,), 3.0)
    rows = RewardFeatures(CLAP, LengthListener(), ("audio",)).clip_features([wave, short], 10)
    # Lengths 300, 300 and 100 s: (300 * 300 + 300 * 300 + 100 * 100) / 700, and the mean of the whole track.
    torch.testing.assert_close(rows, torch.tensor([[190_000 / 700, 2.0], [5.0, 3.0]]))


def test_any_subset_of_blocks_is_columns_of_one_extraction() -> None:
    everything = RewardFeatures(CLAP, MERT)
    encoded = everything.clip_features([clip(0), clip(1)], 8000)
    for blocks in (("clap_audio",), ("audio",), ("clap_text",), ("audio", "clap_match"), ("clap_text", "audio")):
        some = RewardFeatures(CLAP, MERT, blocks)
        torch.testing.assert_close(
            encoded[:, some.columns_of(everything)], some.clip_features([clip(0), clip(1)], 8000)
        )
    with pytest.raises(ModelError, match="were extracted"):
        everything.columns_of(RewardFeatures(CLAP, MERT, ("audio",)))
    with pytest.raises(ModelError, match="were extracted"):
        everything.columns_of(RewardFeatures(CLAP, SpectrumEmbedder("other", 4, seed=1)))
