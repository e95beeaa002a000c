"""A listening test of three systems with real, short clips, and listeners who take part through the API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from plaudit.audio import write_wav
from plaudit.studio.database import Listener
from plaudit.studio.listening import screening
from plaudit.studio.settings import StudioSettings
from tests.studio.conftest import Opened, done

SYSTEMS = ("zebrafish", "quokka", "axolotl")
"""Names that occur nowhere by chance, so that a leak is found."""

PROMPTS = ("slow sad piano", "fast electronic dance", "a marching band")
RATE = 16_000


def write_clip(path: Path, prompt: str, seconds: float = 1.0, level: float = 0.05, seed: int = 0) -> None:
    """A clip of noise with the prompt and seed in the JSON file beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = np.random.default_rng(seed).standard_normal(round(seconds * RATE)) * level
    write_wav(path, wave.astype(np.float32), RATE)
    path.with_suffix(".json").write_text(json.dumps({"prompt": prompt, "seed": seed}))


def write_systems(root: Path, systems: tuple[str, ...] = SYSTEMS, prompts: tuple[str, ...] = PROMPTS) -> None:
    """A folder of clips for each system, of other lengths and levels."""
    for i, system in enumerate(systems):
        for j, prompt in enumerate(prompts):
            seconds, level = 1.0 + 0.25 * ((i + j) % 2), 0.02 * (1 + i)
            write_clip(root / "uploads" / system / f"{j:04d}.wav", prompt, seconds, level, seed=10 * i + j)


def test_request(systems: tuple[str, ...] = SYSTEMS, **changes: Any) -> dict[str, Any]:
    """A request for a test of the systems' folders."""
    sources = [{"name": name, "source": {"folder": f"uploads/{name}"}} for name in systems]
    return {
        "name": "which is best", "systems": sources, "pairs_per_listener": 6, "repeats": 1, "obvious": 1, "practice": 1,
        "minimum_listening": 1, **changes,
    }  # fmt: skip


test_request.__test__ = False  # type: ignore[attr-defined]


@dataclass
class Party:
    """A test that is open, and its owner. invitation: the token of a link."""

    studio: Opened
    owner: TestClient
    test: str
    invitation: str

    def join(self) -> Participant:
        """A listener who opened the link."""
        opened = done(self.studio.client().post(f"listen/{self.invitation}"))
        return Participant(self.studio.client(opened["token"]), opened["listener"])

    @property
    def info(self) -> dict[str, Any]:
        """The test as its owner sees it."""
        return dict(done(self.owner.get(f"tests/{self.test}")))


@dataclass
class Participant:
    """A listener's client."""

    client: TestClient
    id: str

    def consent(self) -> Participant:
        """Agree."""
        done(self.client.post("listen/consent"))
        return self

    def next(self) -> dict[str, Any]:
        """The next pair, page or completion."""
        return dict(done(self.client.get("listen/next")))

    def vote(self, assignment: str, choice: str = "left", **changes: Any) -> Any:
        """The answer to a vote."""
        heard = {"listened_left": 2.0, "listened_right": 2.0, "response_ms": 5000}
        return self.client.post("listen/votes", json={"assignment": assignment, "choice": choice, **heard, **changes})

    def finish(self, choose: Callable[[dict[str, Any]], str] = lambda pair: "left") -> str:
        """Answer everything; the completion code."""
        while (item := self.next())["kind"] == "pair":
            done(self.vote(item["assignment"], choose(item)))
        return str(item["completion_code"])


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """One studio for all tests of a module, with the clips of the three systems: each test opens tests of its own."""
    opened = Opened(StudioSettings(folder=tmp_path_factory.mktemp("listening") / "studio", device="cpu"))
    write_systems(opened.studio.settings.layout.root)
    yield opened
    opened.close()


def open_test(studio: Opened, systems: tuple[str, ...] = SYSTEMS, **changes: Any) -> Party:
    """A test of the systems, prepared and open, with a link; keywords change the request."""
    owner = studio.client(studio.token)
    made = done(owner.post("tests", json=test_request(systems, **changes)), 202)
    studio.work()
    test = made["test"]["id"]
    done(owner.patch(f"tests/{test}", json={"status": "open"}))
    invitation = done(owner.post(f"tests/{test}/invitations", json={}), 201)
    return Party(studio, owner, test, invitation["token"])


@pytest.fixture
def party(studio: Opened) -> Callable[..., Party]:
    """Make and open a test of the three systems; keywords change the request."""
    return partial(open_test, studio)


def pass_screening(test: Party, listener: Participant) -> None:
    """Answer an attempt of the headphone screening right."""
    done(listener.client.post("listen/screening", json={"answers": right_answers(test, listener)}))


def right_answers(test: Party, listener: Participant) -> list[int]:
    """The right answers of a listener's present attempt."""
    with test.studio.studio.database.reading() as session:
        row = session.scalar(select(Listener).where(Listener.id == listener.id))
        assert row is not None and row.screening is not None
        seed = screening.trial_seed(row.screening, len(row.screening["attempts"]))
    return [trial.target for trial in screening.trials(row.screening["kind"], seed)]
