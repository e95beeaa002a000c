import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from plaudit.errors import AudioError, CorpusError
from plaudit.reward.features import FeatureStore, RewardFeatures
from tests.reward.listeners import SpectrumEmbedder, clip

IDS = [f"clip-{n}" for n in range(24)]


def make_features(name: str = "mert") -> RewardFeatures:
    return RewardFeatures(SpectrumEmbedder("clap", 6, 0), SpectrumEmbedder(name, 4, 1))


def load(id: str) -> tuple[torch.Tensor, int]:
    number = int(id.removeprefix("clip-"))
    return clip(number, 0.3 + 0.1 * (number % 3)), 8000


def test_each_distinct_clip_is_encoded_once_and_read_in_any_order(tmp_path: Path) -> None:
    encoded: list[str] = []

    def counting(id: str) -> tuple[torch.Tensor, int]:
        encoded.append(id)
        return load(id)

    store = FeatureStore(tmp_path, make_features())
    steps: list[tuple[int, int]] = []
    store.extract(IDS + IDS, counting, 10, 4, lambda done, of: steps.append((done, of)))
    assert encoded == IDS and steps == [(10, 24), (20, 24), (24, 24)]
    store.extract([*IDS, "clip-99"], counting, 10, 4)
    assert encoded == [*IDS, "clip-99"]
    required = ["clip-20", "clip-3", "clip-20", "clip-99"]
    direct = make_features().clip_features([load(id)[0] for id in required], 8000)
    torch.testing.assert_close(store.rows(required), direct)
    torch.testing.assert_close(FeatureStore(tmp_path, make_features()).rows(required), direct)


def test_unusable_clips_are_quarantined_and_tried_again(tmp_path: Path) -> None:
    def broken(id: str) -> tuple[torch.Tensor, int]:
        if id == "clip-1":
            raise AudioError("clip-1.wav is truncated")
        return (torch.zeros(800), 8000) if id == "clip-2" else load(id)

    store = FeatureStore(tmp_path, make_features())
    store.extract(IDS[:5], broken)
    assert len(store) == 3
    assert store.quarantine["clip-1"] == "clip-1.wav is truncated"
    assert store.quarantine["clip-2"].startswith("clip 'clip-2' is silent")
    with pytest.raises(CorpusError, match=r"'clip-1': clip-1\.wav is truncated"):
        store.rows(["clip-0", "clip-1"])
    with pytest.raises(CorpusError, match="'clip-9': not extracted yet"):
        store.rows(["clip-9"])
    again = FeatureStore(tmp_path, make_features())
    again.extract(IDS[:5], load)
    assert len(again) == 5 and not again.quarantine


def test_a_damaged_shard_is_extracted_again(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, make_features())
    store.extract(IDS, load, 8, 4)
    before = store.rows(IDS)
    victim = tmp_path / "features-00001.safetensors"
    victim.write_bytes(victim.read_bytes()[:-7])
    again = FeatureStore(tmp_path, make_features())
    assert len(again) == 16
    again.extract(IDS, load, 8, 4)
    assert torch.equal(again.rows(IDS), before)


def test_a_folder_of_other_encoders_or_a_broken_index_is_refused(tmp_path: Path) -> None:
    FeatureStore(tmp_path, make_features()).extract(IDS[:2], load)
    with pytest.raises(CorpusError, match="use another folder"):
        FeatureStore(tmp_path, make_features("another"))
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(CorpusError, match="is damaged"):
        FeatureStore(tmp_path, make_features())


SLOW_EXTRACTION = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.reward.test_store import IDS, load, make_features
from plaudit.reward.features import FeatureStore

def slow(id):
    time.sleep(0.02)
    return load(id)

FeatureStore(Path(sys.argv[1]), make_features()).extract(IDS, slow, 4, 2)
"""


def test_an_extraction_that_was_killed_ends_with_the_same_files(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    FeatureStore(whole, make_features()).extract(IDS, load, 4, 2)
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", SLOW_EXTRACTION, str(killed)], cwd=root, env={**os.environ})
    deadline = time.monotonic() + 60
    while len(list(killed.glob("features-*.safetensors"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    store = FeatureStore(killed, make_features())
    assert 4 <= len(store) < len(IDS)
    store.extract(IDS, load, 4, 2)
    assert [p.name for p in sorted(killed.glob("[!.]*"))] == [p.name for p in sorted(whole.glob("[!.]*"))]
    for path in whole.iterdir():
        assert (killed / path.name).read_bytes() == path.read_bytes()


def long_clip(id: str) -> tuple[torch.Tensor, int]:
    """One of ten minutes, at a rate that makes it cheap."""
    return clip(int(id.removeprefix("clip-")), 600.0, 100), 100


def test_shards_of_long_tracks_are_written_after_an_hour_of_audio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plaudit.reward.features.PROGRESS_EVERY", 0.0)
    at_once: list[int] = []
    features = make_features()
    whole = features.clip_features
    monkeypatch.setattr(features, "clip_features", lambda waves, rate: at_once.append(len(waves)) or whole(waves, rate))
    steps: list[tuple[int, int]] = []
    store = FeatureStore(tmp_path, features)
    store.extract(IDS[:12], long_clip, progress=lambda done, of: steps.append((done, of)))
    assert set(at_once) == {1} and steps == [(n, 12) for n in range(1, 13)]  # no batch holds an hour of audio
    assert [len(shard["ids"]) for shard in store._index["shards"]] == [5, 5, 2]


def test_unusable_clips_do_not_shift_shards_on_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plaudit.reward.features.SHARD_SECONDS", 30.0)  # five clips of six seconds

    def broken(id: str) -> tuple[torch.Tensor, int]:
        if id in ("clip-4", "clip-5", "clip-9"):
            raise AudioError(f"{id} is truncated")
        return clip(int(id.removeprefix("clip-")), 6.0, 100), 100

    class Killed(BaseException):
        pass

    whole = tmp_path / "whole"
    store = FeatureStore(whole, make_features())
    store.extract(IDS[:14], broken, 12)
    assert len(store._index["shards"]) == 3
    for last in (6, 8, 10):

        def dying(id: str) -> tuple[torch.Tensor, int]:
            if id == f"clip-{last}":  # noqa: B023
                raise Killed
            return broken(id)

        killed = tmp_path / f"killed-{last}"
        with pytest.raises(Killed):
            FeatureStore(killed, make_features()).extract(IDS[:14], dying, 12)
        FeatureStore(killed, make_features()).extract(IDS[:14], broken, 12)
        for path in whole.glob("features-*"):
            assert (killed / path.name).read_bytes() == path.read_bytes()
        assert FeatureStore(killed, make_features()).quarantine.keys() == {"clip-4", "clip-5", "clip-9"}
