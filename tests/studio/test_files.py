"""Uploads, folders and paths: what is bounded, decoded in the worker, and never outside the studio's folders."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from plaudit.studio import files, middleware
from plaudit.studio.errors import NotFound
from plaudit.studio.files import audio_in, resolve
from tests.studio.conftest import Opened, done

RATE = 16000


def tone(seconds: float = 1.0, gain: float = 0.3, channels: int = 1, format: str = "WAV", **kind: str) -> bytes:
    wave = gain * np.sin(2 * np.pi * 440 * np.arange(int(seconds * RATE)) / RATE)
    content = io.BytesIO()
    soundfile.write(content, np.stack([wave] * channels, axis=1), RATE, format=format, **kind)
    return content.getvalue()


def upload(owner: Any, *parts: tuple[str, bytes], **query: str) -> Any:
    return owner.post("uploads", params=query, files=[("files", part) for part in parts])


def test_an_upload_is_decoded_and_listed(studio: Opened, owner: Any) -> None:
    table = b"file,prompt\nb.wav,drums\n"
    parts = [("a.ogg", tone(channels=2, format="OGG")), ("b.wav", tone()), ("prompts.csv", table)]
    answer = done(upload(owner, *parts, name="mine"), 202)
    assert studio.work() == 1
    job = done(owner.get(f"jobs/{answer['job']['id']}"))
    assert (job["status"], job["result"]["clips"], job["result"]["errors"]) == ("done", 2, [])
    [folder] = done(owner.get("folders"))["items"]
    assert folder == {"path": answer["folder"], "kind": "upload", "name": "mine", "clips": 2}
    drums, other = done(owner.get("clips"))["items"]
    assert (drums["prompt"], drums["duration"], drums["status"], other["prompt"]) == ("drums", 1.0, "kept", "")
    audio = owner.get(f"clips/{other['id']}/audio")
    assert audio.headers["content-type"] == "audio/flac"
    assert soundfile.read(io.BytesIO(audio.content))[0].shape == (RATE, 2)
    assert not list(studio.studio.settings.layout.incoming.iterdir())


def test_files_that_cannot_be_used_are_named(studio: Opened, owner: Any) -> None:
    bad = [("zeros.wav", tone(gain=0)), ("cut.flac", b"fLaC"), ("html.mp3", b"<script>alert(1)</script>" * 99)]
    answer = done(upload(owner, *bad, ("good.wav", tone())), 202)
    studio.work()
    job = done(owner.get(f"jobs/{answer['job']['id']}"))
    assert job["result"]["clips"] == 1
    assert [error["file"] for error in job["result"]["errors"]] == ["zeros.wav", "cut.flac", "html.mp3"]
    assert all(str(studio.studio.settings.layout.root) not in error["error"] for error in job["result"]["errors"])
    answer = done(upload(owner, *bad), 202)
    studio.work()
    job = done(owner.get(f"jobs/{answer['job']['id']}"))
    assert job["status"] == "failed" and "zeros.wav" in job["error"]


def test_a_clip_beyond_full_scale_keeps_its_samples(studio: Opened, owner: Any) -> None:
    done(upload(owner, ("loud.wav", tone(gain=1.5, subtype="FLOAT"))), 202)
    studio.work()
    [clip] = done(owner.get("clips"))["items"]
    samples, _ = soundfile.read(io.BytesIO(owner.get(f"clips/{clip['id']}/audio").content))
    assert np.abs(samples).max() == pytest.approx(1.5, abs=1e-3)


def test_uploads_are_bounded(studio: Opened, owner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_FILE", 10_000)
    assert upload(owner, ("a.wav", tone())).status_code == 413
    monkeypatch.setattr(middleware, "MOST_UPLOAD", 10_000)
    assert upload(owner, ("a.wav", tone())).status_code == 413
    monkeypatch.undo()
    monkeypatch.setattr(files, "MOST_FILES", 2)
    assert upload(owner, *[(f"{n}.wav", tone(0.1)) for n in range(3)]).status_code == 400
    monkeypatch.setattr(files, "MOST_SECONDS", 0.5)
    answer = done(upload(owner, ("a.wav", tone())), 202)
    studio.work()
    assert "the most" in done(owner.get(f"jobs/{answer['job']['id']}"))["error"]
    assert not list(studio.studio.settings.layout.uploads.rglob("*.flac"))
    assert [path.name for path in studio.studio.settings.layout.incoming.iterdir()] == [
        answer["job"]["request"]["upload"]
    ]


def test_bodies_are_bounded(owner: Any) -> None:
    answer = owner.post("generations", content=b'"' + b"a" * middleware.MOST_BODY + b'"')
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")


NAMES = ["../../evil.wav", "..\\evil.wav", "/etc/evil.wav", "C:\\evil.wav", "a\x00.wav", "%2e%2e%2fevil.wav", ".wav"]


def test_names_of_uploads_are_no_paths(studio: Opened, owner: Any) -> None:
    root = studio.studio.settings.layout.root
    before = {path for path in root.parent.rglob("*") if not path.is_relative_to(root)}
    for name in NAMES:
        upload(owner, (name, tone(0.5)))
    studio.work()
    assert {path for path in root.parent.rglob("*") if not path.is_relative_to(root)} == before
    clips = done(owner.get("clips"))["items"]
    assert len(clips) >= 4
    for clip in clips:
        assert owner.get(f"clips/{clip['id']}/audio").status_code == 200
    for path in root.rglob("*.flac"):
        assert path.parent.parent == root / "uploads"


def test_other_files_are_refused(owner: Any) -> None:
    for part in (("a.txt", b"text"), ("prompts.csv", b"file,prompt\n"), ("a.zip", b"PK")):
        assert upload(owner, part).status_code == 422


def test_forms_that_are_none(owner: Any) -> None:
    assert owner.post("uploads", content=b"abc").status_code == 422
    assert owner.post("uploads", content=b"abc", headers={"content-type": "multipart/form-data"}).status_code == 400
    boundary = {"content-type": "multipart/form-data; boundary=x"}
    assert owner.post("uploads", content=b"garbage", headers=boundary).status_code in (400, 422)
    assert owner.post("uploads", data={"files": "text"}, files={"other": b"x"}).status_code == 422


def test_an_upload_needs_an_editor(studio: Opened) -> None:
    assert upload(studio.client(), ("a.wav", tone())).status_code == 401


def test_an_upload_with_a_key_is_one_upload(studio: Opened, owner: Any) -> None:
    headers = {"idempotency-key": "once"}
    answers = [owner.post("uploads", files=[("files", ("a.wav", tone()))], headers=headers) for _ in range(2)]
    assert done(answers[0], 202) == done(answers[1], 202)
    assert len(done(owner.get("jobs"))["items"]) == 1


OUTSIDE = [
    "../secret.key", "..%2fsecret.key", "%2e%2e/secret.key", "....//secret.key", "/etc/passwd", "//etc/passwd",
    "a/../../b",
    "uploads/../secret.key", "uploads/./x", "uploads//x", "uploads/.hidden", "uploads\\..\\secret.key", "clips/..",
    "runs/../../etc", "~/x", "file:///etc/passwd", "uploads/link", "uploads/real/link.wav", "\ud800",
]  # fmt: skip


def test_folders_outside_are_not_there(studio: Opened, owner: Any) -> None:
    layout = studio.studio.settings.layout
    (layout.root.parent / "outside").mkdir()
    (layout.root.parent / "outside" / "a.wav").write_bytes(tone())
    (layout.uploads / "link").symlink_to(layout.root.parent / "outside")
    (layout.uploads / "real").mkdir()
    (layout.uploads / "real" / "link.wav").symlink_to(layout.root.parent / "outside" / "a.wav")
    for path in OUTSIDE:
        body = json.dumps({"folder": path})
        answer = owner.post("scores", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (404, 422), path
    assert audio_in(layout.uploads / "real") == []


REPORTS = [
    "runs/x/report/../../../secret.key", "runs/x/report/..%2f..%2f..%2fsecret.key",
    "runs/..%2f../report/secret.key", "runs/x/report/%2e%2e/recipe.yaml", "runs/x/report/.step",
    "runs/x/report/link.html", "runs/x/report/a%00b", "comparisons/..%2f../secret.key",
    "comparisons/x/..%2f..%2f..%2fsecret.key", "comparisons/%2e%2e/secret.key",
]  # fmt: skip


def test_reports_serve_nothing_but_their_files(studio: Opened, owner: Any) -> None:
    layout = studio.studio.settings.layout
    report = layout.runs / "x" / "report"
    report.mkdir(parents=True)
    (layout.runs / "x" / "run.json").write_text("{}")
    (layout.runs / "x" / "recipe.yaml").write_text("name: private")
    (report / "index.html").write_text("<p>report")
    (report / ".step").write_text("private")
    (report / "link.html").symlink_to(layout.key)
    (layout.comparisons / "x").mkdir()
    answer = owner.get("runs/x/report/index.html")
    assert answer.text == "<p>report" and "script-src" not in answer.headers["content-security-policy"]
    for path in REPORTS:
        refused = owner.get(path)
        assert refused.status_code in (404, 422), path
        assert "private" not in refused.text and layout.key.read_text() not in refused.text


@given(st.text(max_size=60))
def test_no_text_resolves_to_a_place_outside(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    root = tmp_path_factory.getbasetemp()
    try:
        place = resolve(root, text)
    except NotFound:
        return
    assert place.resolve().is_relative_to(root.resolve())


def test_the_key_and_the_database_are_no_files_of_the_api(studio: Opened, owner: Any) -> None:
    key = studio.studio.settings.layout.key
    assert key.stat().st_mode & 0o077 == 0
    for path in ("secret.key", "studio.sqlite", "static/secret.key", "assets/..%2f..%2fapp.py", "..%2fsecret.key"):
        answer = studio.client(studio.token).get(f"http://127.0.0.1:8765/{path}")
        assert key.read_text() not in answer.text and "create_app" not in answer.text


def test_folders_of_generations_and_runs(studio: Opened, owner: Any) -> None:
    layout = studio.studio.settings.layout
    for folder in (layout.runs / "demo" / "clips-sft", layout.clips / "job"):
        folder.mkdir(parents=True)
        (folder / "a.wav").write_bytes(tone())
    (layout.clips / "job" / "candidates").mkdir()
    (layout.clips / "job" / "candidates" / "candidates.json").write_text("{}")
    (layout.clips / "job" / "candidates" / "b.wav").write_bytes(tone())
    found = {folder["path"]: folder["clips"] for folder in done(owner.get("folders"))["items"]}
    assert found == {"runs/demo/clips-sft": 1, "clips/job": 1}


def test_scores_of_a_folder_are_ranked_by_prompt(studio: Opened, owner: Any) -> None:
    table = b"file,prompt\na.wav,tone\nb.wav,tone\nc.wav,other\n"
    names = ("a.wav", "b.wav", "c.wav")
    answer = done(
        upload(owner, *[(name, tone(1.0, 0.1 * n + 0.1)) for n, name in enumerate(names)], ("prompts.csv", table)), 202
    )
    studio.work()
    job = done(owner.post("scores", json={"folder": answer["folder"]}), 202)
    studio.work()
    rows = done(owner.get(f"jobs/{job['id']}"))["result"]["scores"]
    assert [row["prompt"] for row in rows] == ["tone", "tone", "other"]
    assert rows[2]["rank"] == 1
    ordered = sorted(rows[:2], key=lambda row: -row["reward"])
    assert ordered[0]["rank"] == 1 and ordered[1]["rank"] == (2 if ordered[0]["reward"] > ordered[1]["reward"] else 1)
    clips = [clip["id"] for clip in done(owner.get("clips"))["items"]]
    job = done(owner.post("scores", json={"clips": clips}), 202)
    studio.work()
    assert sorted(row["reward"] for row in done(owner.get(f"jobs/{job['id']}"))["result"]["scores"]) == pytest.approx(
        sorted(row["reward"] for row in rows)
    )
    assert all(clip["reward"] is not None for clip in done(owner.get("clips"))["items"])
    assert owner.post("scores", json={"folder": answer["folder"], "clips": clips}).status_code == 422
    assert owner.post("scores", json={}).status_code == 422


def test_a_full_disk_while_uploading(studio: Opened, owner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    answer = upload(owner, ("a.wav", tone()))
    monkeypatch.undo()
    assert (answer.status_code, answer.json()["code"]) == (507, "disk-full")
    assert not list(studio.studio.settings.layout.incoming.iterdir())
