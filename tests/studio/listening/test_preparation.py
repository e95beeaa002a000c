"""Tests that are made and prepared: what is refused, what is fixed, and preparations that are interrupted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient
from sqlalchemy import select

from plaudit.studio.database import Clip
from tests.studio.conftest import Opened, done
from tests.studio.listening.conftest import PROMPTS, SYSTEMS, Party, test_request, write_systems

Open = Callable[..., Party]


def test_settings_are_fixed_when_a_test_is_opened(studio: Opened, owner: TestClient) -> None:
    test = done(owner.post("tests", json=test_request()), 202)["test"]
    early = owner.patch(f"tests/{test['id']}", json={"status": "open"})
    assert (early.status_code, early.json()["detail"][:28]) == (409, "the test is not prepared yet")
    studio.work()
    place = f"tests/{test['id']}"
    changed = done(owner.patch(place, json={"exclusion_rules": {"min_obvious": 1}, "question": "Which is nicer?"}))
    assert changed["settings"]["exclusion_rules"]["min_obvious"] == 1
    registered = done(owner.patch(place, json={"status": "open"}))["registered"]
    assert len(registered["digest"]) == 64
    for change in ({"exclusion_rules": {}}, {"question": "Which?"}, {"margin": 0.2}):
        refused = owner.patch(place, json=change)
        assert (refused.status_code, "is fixed, since the test was opened" in refused.text) == (409, True)
    done(owner.patch(place, json={"status": "closed"}))
    assert done(owner.patch(place, json={"name": "new", "status": "open"}))["registered"] == registered


def test_a_test_that_cannot_be_prepared_says_why(studio: Opened, owner: TestClient) -> None:
    root = studio.studio.settings.layout.root
    silent = Path(root / "uploads" / SYSTEMS[1] / "0001.wav")
    soundfile.write(silent, np.zeros(16_000 * 2), 16_000)
    test = done(owner.post("tests", json=test_request()), 202)["test"]["id"]
    studio.work()
    shown = done(owner.get(f"tests/{test}"))
    assert (shown["status"], shown["prepared"]) == ("draft", False)
    assert "0001.wav" in shown["problem"]
    assert "silent" in shown["problem"]
    write_systems(root)
    done(owner.post(f"jobs/{shown['job']}/retry"))
    studio.work()
    shown = done(owner.get(f"tests/{test}"))
    assert (shown["prepared"], shown["problem"], shown["pairs"]) == (True, None, 9)
    assert "were cut to the shortest" in " ".join(shown["notes"])


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("uploads/nothing", "there is nothing at 'nothing' in the studio"),
        ("uploads/../../outside", "there is nothing at '../../outside' in the studio"),
        ("../outside", "there is no folder '../outside'"),
        ("/etc", "there is no folder '/etc'"),
    ],
)
def test_a_folder_outside_the_studio_is_refused(studio: Opened, owner: TestClient, folder: str, message: str) -> None:
    request = test_request()
    request["systems"][0]["source"]["folder"] = folder
    test = done(owner.post("tests", json=request), 202)["test"]["id"]
    studio.work()
    assert done(owner.get(f"tests/{test}"))["problem"].startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"systems": [{"name": "x", "source": {"folder": "a"}}]}, "a preference test compares at least two systems"),
        ({"systems": [{"name": "x", "source": {"folder": "a"}}] * 2}, "two systems have one name"),
        ({"systems": [{"name": "x", "source": {}}, {"name": "y", "source": {"folder": "a"}}]}, "give one of run"),
        ({"systems": [{"name": n, "source": {"model": "m"}} for n in "xy"]}, "models need prompts"),
        ({"reference": "nobody", "kind": "rating"}, "the reference 'nobody' is none of the systems"),
        ({"margin": 0.7}, "margin"),
        ({"kind": "rating", "takes": 2}, "a rating page has one clip of each system"),
    ],
)
def test_a_request_that_makes_no_test_is_refused(owner: TestClient, change: dict[str, object], message: str) -> None:
    answer = owner.post("tests", json={**test_request(), **change})
    assert answer.status_code == 422
    assert message in answer.json()["detail"]


def test_a_killed_preparation_begins_anew(studio: Opened, owner: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from plaudit.studio import jobs
    from plaudit.studio.listening import preparation

    root = studio.studio.settings.layout.root
    test = done(owner.post("tests", json=test_request()), 202)["test"]["id"]

    class Killed(BaseException):
        pass

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(preparation, "_add_rows", lambda *a: (_ for _ in ()).throw(Killed()))
        studio.work()
    left = set((root / "tests" / test).glob("*.wav"))
    assert left
    jobs.requeue_interrupted(studio.studio.database)
    studio.work()
    now = set((root / "tests" / test).glob("*.wav"))
    with studio.studio.database.reading() as session:
        assert {root / path for path in session.scalars(select(Clip.path).where(Clip.test_id == test))} == now
    assert not left & now


def test_a_model_that_is_replaced_while_its_test_is_prepared(
    studio: Opened, owner: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clips of one system would be of two models."""
    from plaudit.places import SHIPPED_MODELS
    from plaudit.studio import jobs
    from plaudit.studio.listening import preparation

    model = studio.studio.settings.runs_folder / "mine" / "sft"
    shutil.copytree(SHIPPED_MODELS["synthetic-distilled"], model)
    systems = [
        {"name": "tuned", "source": {"model": "mine/sft", "seconds": 1}},
        {"name": SYSTEMS[0], "source": {"folder": f"uploads/{SYSTEMS[0]}"}},
    ]
    test = done(owner.post("tests", json={**test_request(prompts=[PROMPTS[0]]), "systems": systems}), 202)["test"]["id"]

    class Killed(BaseException):
        pass

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(preparation, "common_groups", lambda *a, **k: (_ for _ in ()).throw(Killed()))
        studio.work()
    jobs.requeue_interrupted(studio.studio.database)
    config = json.loads((model / "config.json").read_bytes())
    (model / "config.json").write_text(json.dumps({**config, "licence": "another"}))
    studio.work()
    shown = done(owner.get(f"tests/{test}"))
    assert (shown["status"], shown["prepared"]) == ("draft", False)
    assert "model mine/sft was replaced after this job had begun" in shown["problem"]
