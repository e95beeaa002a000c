"""Formats that clips are given away in: what comes back, dither, tags, and clear refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from pydantic import ValidationError

from plaudit.audio import read_audio
from plaudit.audio_format import AudioFormat, decode_audio, encode_audio, read_tags
from plaudit.errors import AudioError

RATE = 16000
TAGS = {"prompt": "slow “sad” 日本 piano", "seed": 7, "model": {"stage": "crpo"}, "sampling": {"steps": 25}}


def tone(level: float = 0.5, seconds: float = 1.0) -> np.ndarray:
    return (level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


@pytest.mark.parametrize(
    ("container", "bits", "subtype", "error"),
    [
        ("wav", 16, "PCM_16", 2 / 2**15),
        ("wav", 24, "PCM_24", 2 / 2**23),
        ("wav", 32, "FLOAT", 0),
        ("flac", 16, "PCM_16", 2 / 2**15),
        ("flac", 24, "PCM_24", 2 / 2**23),
        ("mp3", 16, "MPEG_LAYER_III", 0.02),
        ("ogg", 16, "VORBIS", 0.05),
    ],
)
def test_sound_and_tags_come_back(tmp_path: Path, container: str, bits: int, subtype: str, error: float) -> None:
    file = AudioFormat.model_validate({"container": container, "bits": bits})
    path = tmp_path / f"a{file.suffix}"
    path.write_bytes(encode_audio(tone(), RATE, file, 1, TAGS))
    facts = soundfile.info(path)
    assert (facts.subtype, facts.samplerate, facts.channels, facts.frames) == (subtype, RATE, 1, RATE)
    wave = read_audio(path)[0]
    assert np.abs(wave - tone()).max() <= error and np.allclose(wave, decode_audio(path.read_bytes()), atol=1e-6)
    assert read_tags(path) == TAGS
    with soundfile.SoundFile(path) as file:
        assert "plaudit" in file.software or container == "mp3"  # whose encoder puts its own name there
        if container != "mp3":
            assert file.title == TAGS["prompt"]


@pytest.mark.parametrize("container", ["wav", "flac", "ogg", "mp3"])
def test_tags_that_are_too_long_lose_their_end(tmp_path: Path, container: str) -> None:
    path = tmp_path / "a"
    file = AudioFormat.model_validate({"container": container})
    path.write_bytes(encode_audio(tone(), RATE, file, 1, {"prompt": "x", "seed": 1, "settings": "y" * 3000}))
    assert read_tags(path) == {"prompt": "x", "seed": 1}
    path.write_bytes(encode_audio(tone(), RATE, file, 1, {"prompt": "日" * 3000, "seed": 1}))
    tags = read_tags(path)
    assert len(tags["prompt"]) > 100 and set(tags["prompt"]) == {"日"}
    path.write_bytes(encode_audio(tone(), RATE, file))
    assert read_tags(path) == {}


def test_dither_follows_its_seed_and_takes_the_error_off_the_music() -> None:
    quiet, file = tone(0.6 / 2**15, 4.0), AudioFormat()
    assert encode_audio(quiet, RATE, file, 3) == encode_audio(quiet, RATE, file, 3)
    assert encode_audio(quiet, RATE, file, 3) != encode_audio(quiet, RATE, file, 4)
    hard = decode_audio(encode_audio(quiet, RATE, AudioFormat(dither=False)))
    soft = decode_audio(encode_audio(quiet, RATE, file, 3))

    def third(wave: np.ndarray) -> float:
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
        return float(spectrum[4 * 1320] / spectrum[4 * 440])

    assert third(hard) > 0.1 > 2 * third(soft)
    error = (soft - quiet) * 2**15
    assert error.var() == pytest.approx(0.25, rel=0.05)  # 1/12 of rounding and 2/12 of triangular noise, in steps
    assert not decode_audio(encode_audio(0 * quiet, RATE, file, 3)).any()


def test_integers_are_exact_and_clipped_at_full_scale() -> None:
    steps = np.arange(-(2**15), 2**15, 7)
    wave = (steps / 2**15).astype(np.float32)
    assert np.array_equal(decode_audio(encode_audio(wave, RATE, AudioFormat(dither=False))) * 2**15, steps)
    loud = decode_audio(encode_audio(4 * tone(), RATE, AudioFormat(bits=24)))
    assert loud.max() <= 1 and loud.min() == -1 and (loud * tone() >= -1e-9).all()


def test_quality_is_heard_in_the_size() -> None:
    noise = np.random.default_rng(0).standard_normal(5 * RATE).astype(np.float32) * 0.1
    for container in ("mp3", "ogg"):
        sizes = [
            len(encode_audio(noise, RATE, AudioFormat.model_validate({"container": container, "quality": quality})))
            for quality in (0.01, 0.5, 1.0)
        ]
        assert sizes[0] < sizes[1] < sizes[2]


def test_what_cannot_be_written_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match="flac has 16 or 24 bits"):
        AudioFormat(container="flac", bits=32)
    with pytest.raises(AudioError, match="mp3 at 96000 Hz cannot be written"):
        encode_audio(tone(), 96000, AudioFormat(container="mp3"))
    with pytest.raises(AudioError, match="NaN"):
        encode_audio(np.full(9, np.nan), RATE, AudioFormat())
    monkeypatch.setattr(soundfile, "check_format", lambda *_: False)
    with pytest.raises(AudioError, match=r"writes no ogg; take wav or flac"):
        AudioFormat(container="ogg").check_writable()
