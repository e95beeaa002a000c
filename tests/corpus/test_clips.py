"""Where clips lie in their recordings."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from plaudit.audio import write_wav
from plaudit.corpus.clips import ClipSettings, clip_starts, cut_clips, measure_durations
from plaudit.corpus.duplicates import deduplicate
from plaudit.corpus.manifest import SPLITS, Entry, load_clips

PLACES = st.sampled_from(["spread", "start", "random", "published"])


@given(st.floats(0, 4000), st.floats(0.5, 30), st.integers(0, 20), PLACES, st.text(max_size=5))
def test_clips_lie_inside_and_never_overlap(
    duration: float, seconds: float, per_track: int, place: str, key: str
) -> None:
    cutting = ClipSettings(seconds=seconds, per_track=per_track, place=place)
    starts = clip_starts(duration, cutting, key)
    assert starts == clip_starts(duration, cutting, key) and starts[0] >= 0
    fitting = int(duration / seconds + 1e-6)
    assert len(starts) == max(1, min(fitting, per_track or fitting))
    assert all(b - a >= seconds - 0.0101 for a, b in itertools.pairwise(starts))
    if fitting:
        assert starts[-1] + seconds <= duration + 1e-3
    assert len({f"{start:.2f}" for start in starts}) == len(starts)


def test_start_times() -> None:
    assert clip_starts(40.0, ClipSettings(per_track=2)) == [5.0, 25.0]
    assert clip_starts(40.0, ClipSettings(per_track=3, place="start")) == [0.0, 10.0, 20.0]
    assert clip_starts(40.0, ClipSettings(per_track=0)) == [0.0, 10.0, 20.0, 30.0]
    assert clip_starts(19.9, ClipSettings()) == clip_starts(3.0, ClipSettings()) == [0.0]
    random = ClipSettings(per_track=3, place="random")
    assert len({tuple(clip_starts(300.0, random, key)) for key in "abcdef"}) == 6


@pytest.mark.parametrize("seconds", [10, 10.5, 19.999, 20, 25, 29.7, 30, 60.123, 99.99, 100, 101, 213.37, 600, 3600])
def test_published_starts(seconds: float) -> None:
    rate = 44100
    total, length = round(seconds * rate), 10 * rate
    count = min(10, max(1, total // length))
    starts = [round(start * rate, 6) for start in clip_starts(seconds, ClipSettings(place="published"))]
    assert starts == [i * (total - length) // (count - 1) if count > 1 else 0 for i in range(count)]
    assert starts[0] == 0 and (count == 1 or starts[-1] == total - length)
    assert all(0 <= (b - a) - (starts[1] - starts[0]) <= 1 for a, b in itertools.pairwise(starts))


def test_published_starts_by_hand() -> None:
    published = ClipSettings(place="published")
    assert clip_starts(30.0, published) == [0.0, 10.0, 20.0]
    assert clip_starts(190.0, published) == [20.0 * i for i in range(10)]
    assert clip_starts(5.0, published) == clip_starts(19.99, published) == [0.0]
    assert clip_starts(25.0, published) == [0.0, 15.0]
    assert clip_starts(40.0, ClipSettings(place="published", per_track=2)) == [0.0, 30.0]
    assert len(clip_starts(3600.0, ClipSettings(place="published", per_track=0))) == 360


def test_a_recording_is_scaled_as_a_whole_before_it_is_cut(tmp_path: Path) -> None:
    rate = 8000
    wave = 0.02 * np.sin(np.arange(30 * rate) * 0.3).astype(np.float32)
    wave[25 * rate] = -0.5  # the peak is in the last clip
    stereo = np.stack([wave, wave], axis=1)
    soundfile.write(tmp_path / "quiet.wav", stereo, rate, subtype="FLOAT")
    soundfile.write(tmp_path / "loud.wav", 4 * stereo, rate, subtype="FLOAT")
    entries = [Entry(n, "x", "train", "s", None, tmp_path / f"{n}.wav") for n in ("quiet", "loud")]
    for name, entry in (("quiet", entries[0]), ("loud", entries[1])):
        clips = cut_clips([entry], measure_durations([entry]), ClipSettings(place="published", peak=0.95))
        waves, _ = load_clips(clips, 10.0)
        scale = 0.95 / np.abs((4 if name == "loud" else 1) * wave).max()
        assert [clip.peak for clip in clips] == [0.95] * 3
        np.testing.assert_allclose(waves[0], (4 if name == "loud" else 1) * wave[: 10 * rate] * scale, rtol=1e-5)
        assert max(np.abs(wave).max() for wave in waves) == pytest.approx(0.95)
        assert np.abs(waves[0]).max() == pytest.approx(0.038, abs=1e-3)  # not scaled by itself
    plain = cut_clips(entries[:1], measure_durations(entries), ClipSettings(place="published"))
    assert np.abs(load_clips(plain, 10.0)[0][0]).max() == pytest.approx(0.02, abs=1e-3)
    with pytest.raises(ValueError, match="peak"):
        ClipSettings(peak=1.5)


def test_files_with_the_same_content_stay_together_or_are_dropped(tmp_path: Path) -> None:
    contents = {"a": 1, "b": 2, "c": 1, "d": 3, "e": 1, "f": 2}
    entries = []
    for place, (name, content) in enumerate(contents.items()):
        write_wav(tmp_path / f"{name}.wav", np.full(16000, 0.1 * content, np.float32), 8000)
        caption = "" if name == "b" else f"caption {name}"
        entries.append(Entry(name, caption, SPLITS[place % 3], "s", None, tmp_path / f"{name}.wav"))
    entries.append(Entry("gone", "x", "test", "s", None, tmp_path / "gone.wav"))

    together = deduplicate(entries, "together")
    assert {e.id: e.split for e in together.entries} == {
        "a": "train", "b": "test", "c": "train", "d": "train", "e": "train", "f": "test", "gone": "test",
    }  # fmt: skip
    assert together.copies == 3 and "3 files are copies of others by content, each is in the split" in together.notes[0]
    dropped = deduplicate(entries, "drop")
    assert [e.id for e in dropped.entries] == ["a", "d", "f", "gone"]  # f, because b has no caption
    separate = deduplicate(entries, "separate")
    assert separate.entries == entries and separate.copies == 3 and "may be in another split" in separate.notes[0]
    assert deduplicate(entries[:2], "drop").notes == []


def test_recordings_become_clips_of_one_split(tmp_path: Path) -> None:
    for name, seconds in (("long", 35), ("short", 4)):
        write_wav(tmp_path / f"{name}.wav", np.full(seconds * 8000, 0.1, np.float32), 8000)
    (tmp_path / "empty.wav").touch()
    entries = [
        Entry("a", "x", "train", "s", 1.5, tmp_path / "long.wav"),
        Entry("b", "y", "test", "s", None, tmp_path / "long.wav"),
        *(Entry(n, "z", "test", "s", None, tmp_path / f"{n}.wav") for n in ("short", "empty", "none")),
    ]
    steps: list[tuple[int, int]] = []
    clips = cut_clips(
        entries, measure_durations(entries, lambda done, total: steps.append((done, total))), ClipSettings(per_track=2)
    )
    assert [clip.id for clip in clips] == ["a@3.75", "a@21.25", "b@3.75", "b@21.25", "short", "empty", "none"]
    assert [clip.split for clip in clips] == ["train"] * 4 + ["test"] * 3
    assert [clip.start for clip in clips[:2]] == [3.75, 21.25] and clips[0].reward == 1.5
    assert [bool(clip.problem) for clip in clips] == [False] * 4 + [True] * 3
    for clip, reason in zip(clips[4:], ("too short: 4.00 s", "is empty", "does not exist"), strict=True):
        assert reason in clip.problem and "\n" not in clip.problem
    assert steps[-1] == (4, 4)


def test_wrong_settings() -> None:
    with pytest.raises(ValueError, match="place"):
        ClipSettings(place="middle")
