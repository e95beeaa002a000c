"""Audio files in every state that people have them in."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.audio import (
    KNOWN_SUFFIXES,
    SUFFIXES,
    fit_length,
    list_audio_files,
    read_audio,
    resample,
    resample_tensor,
    write_wav,
)
from plaudit.errors import AudioError


def tone(seconds: float = 1.0, rate: int = 44100, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def noise(seconds: float, rate: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate))).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "subtype", "error"),
    [
        ("a.wav", "PCM_U8", 1 / 100),
        ("a.wav", "PCM_16", 1e-4),
        ("a.wav", "PCM_24", 1e-6),
        ("a.wav", "FLOAT", 1e-7),
        ("a.wav", "DOUBLE", 1e-7),
        ("a.flac", "PCM_16", 1e-4),
        ("a.ogg", "VORBIS", 0.02),
        ("a.mp3", "MPEG_LAYER_III", 0.02),
    ],
)
def test_formats(tmp_path: Path, name: str, subtype: str, error: float) -> None:
    soundfile.write(tmp_path / name, tone(), 44100, subtype)
    wave, rate = read_audio(tmp_path / name)
    assert rate == 44100 and wave.dtype == np.float32 and wave.shape == (44100,)
    assert np.abs(wave - tone())[1000:-1000].max() < error


@pytest.mark.parametrize("rate", [8000, 16000, 48000, 96000])
def test_any_rate(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(rate=rate), rate, "FLOAT")
    wave, read_rate = read_audio(tmp_path / "a.wav")
    assert read_rate == rate and len(wave) == rate


def test_stereo_is_averaged(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([tone(), 0 * tone()], 1), 44100, "FLOAT")
    assert np.allclose(read_audio(tmp_path / "a.wav")[0], tone() / 2)


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_integers_have_the_values_that_floating_point_decoding_gives(tmp_path: Path, name: str, channels: int) -> None:
    noisy = np.random.default_rng(0).uniform(-1, 1, (300_000, channels))
    noisy[:2] = [[-1.0], [1.0]]
    soundfile.write(tmp_path / name, noisy, 44100, "PCM_16")
    decoded = soundfile.read(tmp_path / name, dtype="float32", always_2d=True)[0]
    summed = decoded[:, 0].copy()
    for channel in range(1, channels):
        summed += decoded[:, channel]
    assert np.array_equal(read_audio(tmp_path / name)[0], summed / np.float32(channels))


def test_a_streamed_wav_has_no_length_but_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(), 44100, "PCM_16")
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(data)
    assert len(read_audio(path)[0]) == 44100


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
@pytest.mark.parametrize("share", [0.97, 0.6, 0.1, 0.002])
def test_truncated(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    soundfile.write(path, tone(4) + noise(4, 44100), 44100)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert_refused(path, "truncated")


def assert_refused(path: Path, reason: str) -> None:
    with pytest.raises(AudioError, match=reason) as caught:
        read_audio(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_what_is_no_audio(tmp_path: Path) -> None:
    assert_refused(tmp_path / "missing.wav", "does not exist")
    assert_refused(tmp_path, "is a folder")
    for name, data, reason in [
        ("empty.wav", b"", "empty"),
        ("text.wav", b"not a sound at all, just words", "not audio"),
        ("headerless.raw", b"\1\2\3\4" * 100, "not audio"),
        ("zeros.flac", bytes(5000), "not audio"),
    ]:
        (tmp_path / name).write_bytes(data)
        assert_refused(tmp_path / name, reason)


def test_what_holds_no_sound(tmp_path: Path) -> None:
    broken = tone()
    broken[17] = np.nan
    endless = tone()
    endless[18] = np.inf
    for name, wave, reason in [
        ("none.wav", tone()[:0], "no samples"),
        ("silent.wav", 0 * tone(), "silent"),
        ("nearly.wav", 1e-6 * tone(), "silent"),
        ("nan.wav", broken, "NaN"),
        ("inf.wav", endless, "infinite"),
    ]:
        soundfile.write(tmp_path / name, wave, 44100, "FLOAT")
        assert_refused(tmp_path / name, reason)


@pytest.mark.parametrize(("source", "target"), [(44100, 16000), (16000, 44100), (8000, 48000), (96000, 16000)])
def test_resampling_keeps_a_tone(source: int, target: int) -> None:
    wave = resample(tone(1, source), source, target)
    assert wave.dtype == np.float32 and abs(len(wave) - target) <= 1
    expected = tone(1, target)[: len(wave)]
    assert np.abs(wave[: len(expected)] - expected)[500:-500].max() < 1e-3


def test_resampling_batches_and_refuses_bad_rates() -> None:
    batch = np.stack([tone(0.2), noise(0.2, 44100)])
    rows = np.stack([resample(row, 44100, 16000) for row in batch])
    assert np.allclose(resample(batch, 44100, 16000), rows, atol=1e-6)
    assert np.array_equal(resample(batch, 44100, 44100), batch)
    with pytest.raises(AudioError, match="positive"):
        resample(batch, 0, 16000)


@given(st.integers(0, 50), st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_fit_length_keeps_the_start(have: int, want: int) -> None:
    wave = np.arange(1, have + 1, dtype=np.float32)
    fitted = fit_length(wave, want)
    assert len(fitted) == want and fitted.dtype == np.float32
    assert np.array_equal(fitted[:have], wave[:want]) and not fitted[have:].any()


def test_written_waves_come_back(tmp_path: Path) -> None:
    write_wav(tmp_path / "deep" / "a.wav", tone(), 44100)
    wave, rate = read_audio(tmp_path / "deep" / "a.wav")
    assert rate == 44100 and np.abs(wave - tone()).max() < 1e-4
    write_wav(tmp_path / "loud.wav", 4 * tone(), 44100)  # clipped, not wrapped around
    loud = read_audio(tmp_path / "loud.wav")[0]
    assert np.abs(loud).max() <= 1 and (loud * tone() >= 0).all()


def test_writing_refuses_nan_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="NaN"):
        write_wav(tmp_path / "a.wav", np.full(100, np.nan, np.float32), 16000)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AudioError, match="cannot be written"):
        write_wav(tmp_path / "file" / "a.wav", tone(), 44100)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("source", "target"), [(16000, 48000), (44100, 16000), (16000, 24000), (44100, 48000), (8, 8)])
def test_resampling_with_gradients_is_resampling(source: int, target: int) -> None:
    at = torch.arange(2 * source) / source
    wave = torch.stack([torch.sin(2 * torch.pi * f * at) for f in (110.0, 1234.5)]) if source > 8 else torch.ones(2, 16)
    wave = wave.double().requires_grad_()
    resampled = resample_tensor(wave, source, target)
    expected = torch.from_numpy(resample(wave.detach().numpy(), source, target))
    assert resampled.shape == (2, 2 * target)
    inner = slice(target // 20, -target // 20)
    torch.testing.assert_close(resampled.detach().float()[:, inner], expected[:, inner], atol=2e-3, rtol=0)
    resampled.sum().backward()
    assert wave.grad is not None and torch.isfinite(wave.grad).all()


@pytest.mark.parametrize(
    ("factor", "peak", "advice"),
    [
        (127, r"\+36 dBFS", "if they are 8-bit integers, divide them by 128"),
        (32767, r"\+84 dBFS", "if they are 16-bit integers, divide them by 32768"),
        (2.0**23, r"\+132 dBFS", "if they are 24-bit integers, divide them by 8388608"),
        (1e29, r"\+5\d\d dBFS", "make it again"),
    ],
)
def test_samples_in_another_range(tmp_path: Path, factor: float, peak: str, advice: str) -> None:
    soundfile.write(tmp_path / "a.wav", tone() * factor, 44100, "FLOAT")
    assert_refused(tmp_path / "a.wav", advice)
    assert_refused(tmp_path / "a.wav", peak)


def test_one_wild_sample_and_loud_mixes(tmp_path: Path) -> None:
    for name, value, usable in (("wild", 1e29, False), ("spike", 50.0, False), ("hot", 4.0, True)):
        wave = tone()
        wave[20000] = value
        soundfile.write(tmp_path / f"{name}.wav", wave, 44100, "FLOAT")
        if usable:
            assert read_audio(tmp_path / f"{name}.wav")[0].max() == value
        else:
            assert_refused(tmp_path / f"{name}.wav", "dBFS")
    soundfile.write(tmp_path / "double.wav", tone().astype(float) * 1e300, 44100, "DOUBLE")
    assert_refused(tmp_path / "double.wav", "infinite")


def test_constant_files_and_channels_that_cancel_are_silent(tmp_path: Path) -> None:
    for name, wave, reason in (
        ("zeros", 0 * tone(), "silent"),
        ("offset", 0 * tone() + 0.25, r"all samples are 0\.25"),
        ("cancelled", np.stack([tone(), -tone()], 1), "channels cancel"),
    ):
        soundfile.write(tmp_path / f"{name}.wav", wave, 44100, "FLOAT")
        assert_refused(tmp_path / f"{name}.wav", reason)
    soundfile.write(tmp_path / "biased.wav", tone() + 0.25, 44100, "FLOAT")
    assert len(read_audio(tmp_path / "biased.wav")[0]) == 44100


def test_folders_are_searched_for_all_that_can_be_read(tmp_path: Path) -> None:
    names = "a.wav b.WAV c.flac d.mp3 e.ogg f.oga g.opus h.aiff i.aif j.au k.caf l.w64".split()
    (tmp_path / "music" / "deep").mkdir(parents=True)
    for name in [*names, "notes.txt", "._a.wav", "cover.jpg", "weights.mat", "noise.raw"]:
        (tmp_path / "music" / "deep" / name).touch()
    (tmp_path / "music" / "@eaDir").mkdir()
    (tmp_path / "music" / "@eaDir" / "thumb.wav").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "z.wav").touch()
    (tmp_path / "music" / "linked").symlink_to(tmp_path / "elsewhere")
    for loop in ("one", "two"):
        (tmp_path / "music" / loop).symlink_to(tmp_path / "music")
    listed = [path.name for path in list_audio_files([tmp_path / "music"])]
    assert sorted(listed) == sorted([*names, "z.wav"])
    assert list_audio_files([tmp_path / "music" / "deep" / "noise.raw"]) == [tmp_path / "music" / "deep" / "noise.raw"]


@pytest.mark.parametrize("kind", ["AIFF", "AU", "CAF", "W64", "RF64", "OGG", "VOC", "FLAC", "WAV"])
def test_what_folders_are_searched_for_is_read(tmp_path: Path, kind: str) -> None:
    for suffix in KNOWN_SUFFIXES[kind]:
        subtype = "OPUS" if suffix == ".opus" else None
        rate = 48000 if suffix == ".opus" else 44100
        soundfile.write(tmp_path / f"a{suffix}", tone(rate=rate), rate, subtype, format=kind)
        assert suffix in SUFFIXES and len(read_audio(tmp_path / f"a{suffix}")[0]) == rate
