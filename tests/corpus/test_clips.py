"""Where clips lie in their recordings."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.audio import write_wav
from plaudit.corpus.clips import ClipSettings, clip_starts, cut_clips, measure_durations
from plaudit.corpus.manifest import Entry

PLACES = st.sampled_from(["spread", "start", "random"])


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
