"""Generation through the API: clips, their drawings and files; cancelling, and continuing after a kill."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plaudit.audio_format import read_tags
from plaudit.studio import jobs
from plaudit.studio.database import Clip, Job, by_id
from plaudit.studio.jobs import JobContext, claim, load_kinds, requeue_interrupted, run
from plaudit.studio.settings import StudioSettings
from tests.studio.conftest import Opened, done

REQUEST = {
    "prompts": ["slow sad piano in a minor key", "fast drums"],
    "model": "synthetic-distilled",
    "seconds": 1.0,
    "count": 2,
    "seed": 7,
}


def generated(studio: Opened, owner: Any, **changes: Any) -> dict[str, Any]:
    """The finished job of a generation."""
    job = done(owner.post("generations", json={**REQUEST, **changes}), 202)
    assert studio.work() == 1
    job = done(owner.get(f"jobs/{job['id']}"))
    assert job["status"] == "done", job["error"]
    return job


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a studio with four clips of two prompts."""
    folder = tmp_path_factory.mktemp("four") / "studio"
    opened = Opened(StudioSettings(folder=folder, device="cpu"))
    generated(opened, opened.client(opened.token))
    opened.close()
    yield folder


@pytest.fixture
def studio(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Opened]:
    """An empty studio; with four clips where a test takes `clips`."""
    folder = tmp_path / "studio"
    if "clips" in request.fixturenames:
        shutil.copytree(request.getfixturevalue("four"), folder)
    opened = Opened(StudioSettings(folder=folder, device="cpu"))
    yield opened
    opened.close()


@pytest.fixture
def clips(owner: Any) -> list[dict[str, Any]]:
    """The four clips, oldest first."""
    return list(reversed(done(owner.get("clips"))["items"]))


def test_clips_have_scores_drawings_and_files(
    studio: Opened, owner: Any, clips: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert [(clip["prompt"], clip["seed"]) for clip in clips] == [
        (REQUEST["prompts"][0], "7"), (REQUEST["prompts"][0], "8"), (REQUEST["prompts"][1], "9"),
        (REQUEST["prompts"][1], "10"),
    ]  # fmt: skip
    for clip in clips:
        assert clip["reward"] is not None and clip["clap"] is not None and clip["loudness"] == pytest.approx(-16.5, 0.1)
        assert clip["duration"] == pytest.approx(1.0)
        assert clip["settings"]["model"] == "synthetic-distilled" and clip["settings"]["seed"] == clip["seed"]
    first = clips[0]["id"]
    audio = owner.get(f"clips/{first}/audio")
    assert audio.headers["content-type"] == "audio/wav" and audio.content[:4] == b"RIFF"
    part = owner.get(f"clips/{first}/audio", headers={"range": "bytes=100-199"})
    assert part.status_code == 206 and part.content == audio.content[100:200]
    peaks = done(owner.get(f"clips/{first}/peaks"))
    assert len(peaks["peaks"]) == 1600 and min(peaks["peaks"]) < -0.05 and max(peaks["peaks"]) > 0.05
    assert owner.get(f"clips/{first}/spectrogram.png").content[:8] == b"\x89PNG\r\n\x1a\n"
    download = owner.get(f"clips/{first}/download")
    assert 'filename="slow-sad-piano-in-a-minor-key-7.wav"' in download.headers["content-disposition"]
    (tmp_path / "downloaded.wav").write_bytes(download.content)
    tags = read_tags(tmp_path / "downloaded.wav")
    assert (tags["prompt"], tags["seed"]) == (REQUEST["prompts"][0], 7)


def test_scores_are_those_of_the_library(studio: Opened, owner: Any, clips: list[dict[str, Any]]) -> None:
    import plaudit

    with studio.studio.database.reading() as session:
        path = studio.studio.settings.layout.root / by_id(session, Clip, clips[0]["id"]).path
    [score] = plaudit.score(path, device="cpu", cache=False)
    assert score.reward == pytest.approx(clips[0]["reward"], abs=1e-5)
    evaluation = plaudit.evaluate(path.parent, metrics=("clap",), device="cpu", cache=False)
    rows = evaluation.values.table.to_pylist()
    values = [row["value"] for row in rows if row["metric"] == "clap" and row["value"] is not None]
    assert any(value == pytest.approx(clips[0]["clap"], abs=1e-4) for value in values)


def test_drawings_that_are_gone_are_made_again(studio: Opened, owner: Any, clips: list[dict[str, Any]]) -> None:
    before = owner.get(f"clips/{clips[0]['id']}/peaks").json()
    shutil.rmtree(studio.studio.settings.layout.cache)
    studio.studio.settings.layout.cache.mkdir()
    assert owner.get(f"clips/{clips[0]['id']}/peaks").json() == before


def test_a_clip_whose_file_is_gone(studio: Opened, owner: Any, clips: list[dict[str, Any]]) -> None:
    for path in studio.studio.settings.layout.clips.rglob("*.wav"):
        path.unlink()
    answer = owner.get(f"clips/{clips[0]['id']}/audio")
    assert (answer.status_code, answer.json()["code"]) == (410, "gone")
    assert done(owner.get(f"clips/{clips[0]['id']}"))["prompt"] == REQUEST["prompts"][0]


def test_keep_and_discard(studio: Opened, owner: Any, clips: list[dict[str, Any]]) -> None:
    done(owner.patch(f"clips/{clips[0]['id']}", json={"status": "kept"}))
    done(owner.patch(f"clips/{clips[1]['id']}", json={"status": "discarded"}))
    assert owner.patch(f"clips/{clips[1]['id']}", json={"status": "burnt"}).status_code == 422
    listed = done(owner.get("clips"))["items"]
    assert [clip["id"] for clip in listed] == [clips[3]["id"], clips[2]["id"], clips[0]["id"]]
    assert [clip["id"] for clip in done(owner.get("clips?status=kept"))["items"]] == [clips[0]["id"]]
    assert [clip["id"] for clip in done(owner.get("clips?q=DRUMS"))["items"]] == [clips[3]["id"], clips[2]["id"]]
    assert done(owner.get("clips?q=100%25"))["items"] == []


def test_lists_are_cut_into_parts(studio: Opened, owner: Any, clips: list[dict[str, Any]]) -> None:
    seen, cursor = [], ""
    while cursor is not None:
        part = done(owner.get(f"clips?limit=3{cursor and '&cursor=' + cursor}"))
        seen += [clip["id"] for clip in part["items"]]
        cursor = part["next"]
    assert seen == [clip["id"] for clip in reversed(clips)]
    assert owner.get("clips?cursor=x").status_code == 422


def test_the_best_of_several(studio: Opened, owner: Any) -> None:
    job = generated(studio, owner, prompts=["fast drums"], count=1, best_of=3)
    [best] = done(owner.get(f"clips?job={job['id']}"))["items"]
    others = generated(studio, owner, prompts=["fast drums"], count=3)
    rewards = [clip["reward"] for clip in done(owner.get(f"clips?job={others['id']}"))["items"]]
    assert best["reward"] == pytest.approx(max(rewards), abs=1e-5)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the job's own handling sees it."""


def interrupted(studio: Opened, at: Callable[[int, int | None], bool], error: type[BaseException]) -> None:
    """Run the next job until its progress (clips done, step) is where `at` says."""
    load_kinds()
    row = claim(studio.studio.database, "first", "main")
    assert row is not None
    original = JobContext.progress

    def progress(self: JobContext, done: int, total: int, step: int | None = None, *rest: Any, **named: Any) -> None:
        if at(done, step):
            raise error
        original(self, done, total, step, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JobContext, "progress", progress)
        if error is Killed:
            with pytest.raises(Killed):
                run(studio.studio.database, studio.studio.settings, row)
        else:
            run(studio.studio.database, studio.studio.settings, row)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.wav"))}


def test_a_generation_that_was_killed_continues_with_the_same_clips(studio: Opened, owner: Any) -> None:
    request = {**REQUEST, "count": 3, "prompts": ["fast drums"]}
    whole = done(owner.post("generations", json=request), 202)
    studio.work()
    killed = done(owner.post("generations", json=request), 202)
    interrupted(studio, lambda clips, step: clips == 2 and step == 2, Killed)
    [first, second] = reversed(done(owner.get(f"clips?job={killed['id']}"))["items"])
    assert requeue_interrupted(studio.studio.database) == 1
    assert done(owner.get(f"jobs/{killed['id']}"))["status"] == "queued"
    assert studio.work() == 1
    after = list(reversed(done(owner.get(f"clips?job={killed['id']}"))["items"]))
    assert [clip["id"] for clip in after[:2]] == [first["id"], second["id"]] and len(after) == 3
    layout = studio.studio.settings.layout
    expected = contents(layout.clips / whole["id"])
    assert len(expected) == 3 and contents(layout.clips / killed["id"]) == expected


def test_a_cancelled_generation_stops_within_a_step(studio: Opened, owner: Any) -> None:
    job = done(owner.post("generations", json={**REQUEST, "steps": 4}), 202)
    steps: list[tuple[int, int | None]] = []

    def at(clips: int, step: int | None) -> bool:
        steps.append((clips, step))
        if (clips, step) == (2, 1):
            done(owner.post(f"jobs/{job['id']}/cancel"))
        return False

    interrupted(studio, at, jobs.Cancelled)
    assert steps[-1] == (2, 1), "the step that saw the request is the last"
    assert done(owner.get(f"jobs/{job['id']}"))["status"] == "cancelled"
    assert len(done(owner.get(f"clips?job={job['id']}"))["items"]) == 2
    assert owner.post(f"jobs/{job['id']}/cancel").status_code == 200
    done(owner.post(f"jobs/{job['id']}/retry"))
    studio.work()
    assert len(done(owner.get(f"clips?job={job['id']}"))["items"]) == 4


def test_a_queued_generation_is_cancelled_at_once(studio: Opened, owner: Any) -> None:
    job = done(owner.post("generations", json=REQUEST), 202)
    assert done(owner.post(f"jobs/{job['id']}/cancel"))["status"] == "cancelled"
    assert studio.work() == 0


def test_a_model_that_was_replaced(studio: Opened, owner: Any) -> None:
    from plaudit.places import SHIPPED_MODELS

    model = studio.studio.settings.runs_folder / "mine" / "sft"
    shutil.copytree(SHIPPED_MODELS["synthetic-distilled"], model)
    assert "mine/sft" in [one["name"] for one in done(owner.get("models"))["items"]]
    job = done(owner.post("generations", json={**REQUEST, "model": "mine/sft"}), 202)
    interrupted(studio, lambda clips, step: clips == 2, Killed)
    requeue_interrupted(studio.studio.database)
    config = json.loads((model / "config.json").read_bytes())
    (model / "config.json").write_text(json.dumps({**config, "licence": "another"}))
    studio.work()
    answer = done(owner.get(f"jobs/{job['id']}"))
    assert answer["status"] == "failed" and "was replaced after this job had begun" in answer["error"]
    shutil.rmtree(model)
    assert owner.post("generations", json={**REQUEST, "model": "mine/sft"}).status_code == 404


REFUSED: list[dict[str, Any]] = [
    {"prompts": []}, {"prompts": [" "]}, {"prompts": ["a"] * 101}, {"count": 0}, {"steps": 10**9}, {"seed": -1},
    {"seed": 2**63}, {"best_of": 64, "count": 64}, {"model": "../secret"}, {"reward": "evil.py:Reward"},
    {"reward": "os:system"}, {"model": "/etc"}, {"unknown": 1}, {"guidance": "NaN"}, {"seconds": 1e9},
]  # fmt: skip


def test_requests_that_are_refused(studio: Opened, owner: Any) -> None:
    for change in REFUSED:
        answer = owner.post("generations", json={**REQUEST, **change})
        assert answer.status_code == 422, (change, answer.text)
        assert "\n" not in answer.json()["detail"]


def test_unknown_models_and_rewards_are_refused_before_they_wait(studio: Opened, owner: Any) -> None:
    for change in ({"model": "unknown"}, {"reward": "unknown"}, {"clap": "unknown"}, {"model": "a/b"}):
        assert owner.post("generations", json={**REQUEST, **change}).status_code == 404
    assert done(owner.get("jobs"))["items"] == []


def test_a_seed_is_drawn_and_recorded(studio: Opened, owner: Any) -> None:
    job = done(owner.post("generations", json={**REQUEST, "seed": None}), 202)
    assert isinstance(job["request"]["seed"], int)


def test_a_full_disk_is_one_line(studio: Opened, owner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "clips")

    monkeypatch.setattr(sys.modules["plaudit.generate.clips"], "create_file", full)
    job = done(owner.post("generations", json=REQUEST), 202)
    studio.work()
    answer = done(owner.get(f"jobs/{job['id']}"))
    assert answer["status"] == "failed" and "free" in answer["error"] and "space" in answer["error"]
    monkeypatch.undo()
    done(owner.post(f"jobs/{job['id']}/retry"))
    studio.work()
    assert done(owner.get(f"jobs/{job['id']}"))["status"] == "done"


def test_progress_says_how_long_it_takes(studio: Opened, owner: Any) -> None:
    job = done(owner.post("generations", json=REQUEST), 202)
    with studio.studio.database.reading() as session:
        context = JobContext(studio.studio.database, studio.studio.settings, by_id(session, Job, job["id"]).id)
    clock = iter(np.arange(100, 200, 10.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.time, "monotonic", lambda: next(clock))
        context.progress(2, 10)  # as after a restart: two were there already
        context.progress(4, 10)
    progress = done(owner.get(f"jobs/{job['id']}"))["progress"]
    assert (progress["done"], progress["total"], progress["seconds_left"]) == (4, 10, 30.0)
