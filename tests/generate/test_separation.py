"""Source separation with small untrained demucs models in demucs's own file formats."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plaudit.audio_format import AudioFormat, decode_audio
from plaudit.errors import ModelError
from plaudit.generate import separation
from plaudit.generate.loudness import integrated_loudness
from plaudit.generate.postprocess import PostProcessor, postprocess
from plaudit.generate.separation import NOT_INSTALLED, Separator, load_separator, split
from plaudit.generate.settings import PostSettings, SeparationSettings

demucs = pytest.importorskip("demucs", reason="needs the extra separate")
pytestmark = pytest.mark.filterwarnings("ignore")

RATE = 8000
STEMS = ["drums", "bass", "other", "vocals"]
CPU = torch.device("cpu")


def hybrid(seed: int = 0, segment: float = 1.0) -> torch.nn.Module:
    """The kind of network in mdx_extra, tiny."""
    from demucs.hdemucs import HDemucs

    torch.manual_seed(seed)
    return HDemucs(sources=STEMS, channels=4, depth=5, nfft=1024, samplerate=RATE, segment=segment).eval()


def save(network: Any, folder: Path, signature: str) -> None:
    """As demucs packages its models, checksum in the name included."""
    from demucs.states import save_with_checksum, serialize_model
    from omegaconf import OmegaConf

    save_with_checksum(serialize_model(network, OmegaConf.create({}), half=False), folder / f"{signature}.th")


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bag")
    for seed, signature in enumerate(("aaaa", "bbbb")):
        save(hybrid(seed), folder, signature)
    weights = "[[1, 1, 1, 0], [1, 0, 1, 1]]"
    (folder / "pair.yaml").write_text(f"models: [aaaa, bbbb]\nweights: {weights}\nsegment: 0.8\n")
    return folder


def music(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    dice = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    return (0.2 * np.sin(2 * np.pi * 220 * time) + 0.05 * dice.standard_normal(len(time))).astype(np.float32)


def loaded(name: Path | str) -> Separator:
    result = load_separator(str(name))
    assert result is not None
    return result


def test_a_bag_in_a_folder_is_what_demucs_makes_of_it(bag: Path) -> None:
    from demucs.apply import apply_model

    separator = loaded(bag)
    wave = torch.from_numpy(np.stack([music(2.1), 0.1 * music(2.1, 1)]))
    kept, removed = split(separator.network, wave, [0, 1, 2], 0.8, 0.25, CPU)
    mean, deviation = wave.mean(1, keepdim=True), wave.std(1, keepdim=True, correction=0) + 1e-8
    mixture = ((wave - mean) / deviation)[:, None].expand(-1, 2, -1)
    stems = apply_model(separator.network, mixture, shifts=0, overlap=0.25).mean(2) * deviation[:, None]
    torch.testing.assert_close(kept, stems[:, :3].sum(1) + mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(removed, stems[:, 3], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(kept + removed, stems.sum(1) + mean, atol=1e-5, rtol=1e-4)


def test_a_clip_within_one_segment_is_one_piece_and_chunks_meet_where_networks_see_little() -> None:
    from demucs.demucs import Demucs

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"channels": 4, "depth": 1, "lstm_layers": 0, "resample": False, "normalize": False}
    near = Demucs(sources=STEMS, samplerate=RATE, dconv_mode=0, norm_starts=9, **sizes).eval()
    clip = torch.from_numpy(music(4.0))[None]
    whole, _ = split(near, clip, [0, 1, 2], 10.0, 0.25, CPU)
    parts, _ = split(near, clip, [0, 1, 2], 0.5, 0.25, CPU)
    assert float((whole - parts).abs().max()) < 5e-3 * float(whole.abs().max())
    again, _ = split(near, clip, [0, 1, 2], 4.0, 0.25, CPU)
    middle = slice(0, int(3.0 * RATE))  # before the second segment of 4 s begins
    torch.testing.assert_close(whole[:, middle], again[:, middle])


def test_stems_of_choice_in_the_clips_own_rate_and_length(bag: Path) -> None:
    separator = loaded(bag / "pair")
    clips = [music(0.9, rate=16000), music(0.5, 1, 16000)[:-3], music(0.9, 2, 16000)]
    parts = [separator(clips, 16000, SeparationSettings(passes=1, keep=(stem,))) for stem in STEMS]
    every = separator(clips, 16000, SeparationSettings(passes=1, keep=tuple(STEMS)))
    for row, clip in enumerate(clips):
        assert every[row].wave.shape == clip.shape and every[row].wave.dtype == np.float32
        # Each stem has the clip's mean added, which a sum has once.
        centred = [part[row].wave - clip.mean() for part in parts]
        assert np.abs(sum(centred) + clip.mean() - every[row].wave).max() < 1e-3
    alone = separator([clips[2]], 16000, SeparationSettings(passes=1, keep=("drums",)))[0].wave
    assert np.abs(alone - parts[0][2].wave).max() < 1e-5
    usual = separator(clips[:1], 16000, SeparationSettings(passes=1))[0].wave
    named = separator(clips[:1], 16000, SeparationSettings(passes=1, keep=("other", "drums", "bass")))[0].wave
    assert np.abs(usual - named).max() < 1e-5


def test_each_pass_goes_over_what_the_one_before_left_and_stops_once_little_is_removed(bag: Path) -> None:
    separator = loaded(bag)
    clip = music(1.2)
    once = separator([clip], RATE, SeparationSettings(passes=1))[0]
    twice = separator([clip], RATE, SeparationSettings(passes=2))[0]
    again = separator([once.wave], RATE, SeparationSettings(passes=1))[0]
    assert np.abs(twice.wave - again.wave).max() < 1e-6
    assert len(twice.removed) == 2 and twice.removed[0] == once.removed[0]
    assert once.removed[0] < -1
    late = SeparationSettings(passes=2, stop_below=once.removed[0] - 0.5)
    assert [len(output.removed) for output in separator([clip, clip * 0], RATE, late)] == [2, 1]
    early = separator([clip], RATE, SeparationSettings(passes=5, stop_below=once.removed[0] + 0.5))[0]
    assert len(early.removed) == 1 and np.array_equal(early.wave, once.wave)


def test_removed_loudness_is_relative_to_the_clip(bag: Path) -> None:
    separator, clip = loaded(bag), music(1.2)
    output = separator([clip], RATE, SeparationSettings(passes=1))[0]
    _, removed = split(separator.network, torch.from_numpy(clip)[None], [0, 1, 2], 0.8, 0.25, CPU)
    expected = integrated_loudness(removed[0].numpy(), RATE) - integrated_loudness(clip, RATE)
    assert output.removed[0] == pytest.approx(expected, abs=1e-3)


def test_a_single_model_and_a_transformer(tmp_path: Path) -> None:
    from demucs.htdemucs import HTDemucs

    save(hybrid(segment=0.5), tmp_path, "cccc")
    assert loaded(tmp_path)([music(1.1)], RATE, SeparationSettings(passes=1))[0].wave.shape == (round(1.1 * RATE),)
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"channels": 8, "depth": 3, "nfft": 512, "t_layers": 1, "t_heads": 2}
    network = HTDemucs(sources=STEMS, samplerate=RATE, segment=1.0, **sizes).eval()
    separator = Separator("transformer", network, CPU)
    output = separator([music(2.5)], RATE, SeparationSettings(passes=1))[0].wave
    assert output.shape == (round(2.5 * RATE),) and np.isfinite(output).all()
    with pytest.raises(ModelError, match="at most 1 s at once"):
        separator([music(2.5)], RATE, SeparationSettings(passes=1, segment=2.0))


def test_wrong_names_are_one_line(bag: Path, tmp_path: Path) -> None:
    separator = loaded(bag)
    with pytest.raises(ModelError, match="no stem piano; it has drums, bass"):
        separator([music(1)], RATE, SeparationSettings(passes=1, keep=("piano",)))
    with pytest.raises(ModelError, match=r"holds no \.yaml or \.th file"):
        load_separator(str(tmp_path))
    with pytest.raises(ModelError, match="no separation model") as error:
        load_separator(str(bag / "nowhere"))
    assert "\n" not in str(error.value)
    (bag / "other.yaml").write_text("models: [aaaa]\n")
    with pytest.raises(ModelError, match=r"several separation models; name one as .*: other, pair"):
        load_separator(str(bag))
    (bag / "other.yaml").unlink()


def test_without_the_extra_it_is_left_out_with_a_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(separation, "find_spec", lambda name: None if name == "demucs" else find(name))
    settings = PostSettings(separate=SeparationSettings(passes=3))
    assert load_separator("mdx_extra") is None
    [(with_notice, measured)] = postprocess([music(1)], RATE, settings, None)
    [(plain, _)] = postprocess([music(1)], RATE, PostSettings())
    assert measured["notice"] == NOT_INSTALLED and np.array_equal(with_notice, plain)


def test_separation_comes_before_loudness(bag: Path) -> None:
    settings = PostSettings(separate=SeparationSettings(passes=2), seconds=1.0)
    separator, clips = loaded(bag), [1e3 * music(1.1), 1e3 * music(1.1, 1)]
    apart = [output.wave for output in separator(clips, RATE, settings.separate)]
    expected = postprocess(apart, RATE, PostSettings(seconds=1.0))
    for (wave, measured), (plain, reference) in zip(
        postprocess(clips, RATE, settings, separator), expected, strict=True
    ):
        assert len(wave) == RATE and np.array_equal(wave, plain) and measured["loudness"] == reference["loudness"]
        assert len(measured["vocals_removed_lu"]) == 2


def test_the_published_passes_are_what_the_papers_script_does(bag: Path) -> None:
    """The clip as it is, one random shift for each model, the mean of the channels, a peak of 0.95 after every pass."""
    import random

    from demucs.apply import apply_model

    separator, wave = loaded(bag), 0.3 * music(1.3)
    random.seed(5)
    before = random.getstate()
    output = separator.as_published(wave, RATE, SeparationSettings(passes=2), seed=7)
    assert random.getstate() == before
    random.seed(7)
    clip = torch.from_numpy(wave)[None]
    for _ in range(2):
        with torch.no_grad():
            sources = apply_model(separator.network, clip.repeat(2, 1)[None])
        clip = sources[0, :3].sum(0).mean(0, keepdim=True)
        clip = clip / (clip.abs().max() + 1e-8) * 0.95
    np.testing.assert_allclose(output, clip[0].numpy(), atol=1e-6)
    assert np.abs(output).max() == pytest.approx(0.95, abs=1e-6)
    assert not np.allclose(output, separator.as_published(wave, RATE, SeparationSettings(passes=2), seed=8), atol=1e-4)


def test_the_published_chain_separates_the_padded_clip_by_its_seed(bag: Path) -> None:
    separator = loaded(bag)
    settings = PostSettings(chain="published", separate=SeparationSettings(passes=1), seconds=1.5)
    processor = PostProcessor(settings, AudioFormat(bits=32), separator)
    tags = [{"prompt": "a", "seed": 1}, {"prompt": "a", "seed": 2}]
    first, again = (processor.encode([music(1.2)] * 2, RATE, tags) for _ in range(2))
    one, other = (decode_audio(clip.content) for clip in first)
    for earlier, later in zip((one, other), (decode_audio(clip.content) for clip in again), strict=True):
        assert np.array_equal(earlier, later)  # the files hold the time of writing, too
    assert len(one) == round(1.5 * RATE) and not np.allclose(one, other, atol=1e-4)
