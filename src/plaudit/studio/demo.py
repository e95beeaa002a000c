"""`plaudit studio --demo`: a studio of the synthetic world that fills itself while one watches.

A few clips are generated; simulated listeners compare three models in a blind test; a reward is trained on their votes
and a model tuned with it, which the listeners then compare with the model before. All of it are requests to the API,
each with an Idempotency-Key of its own, and ordinary jobs: after a restart the requests are sent again, those that were
carried out get their answers again, and the demo goes on where it was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from plaudit.errors import PlauditError, RunError
from plaudit.studio.app_state import Studio
from plaudit.studio.client import StudioClient

PROMPTS = (
    "122 bpm, electric bass, drawbar organ, anxious, distorted guitar, drum kit, trumpet, funk, instrumental",
    "Bells, electric piano, synth bass and acoustic drums playing a slow-paced dreamy pop track in a major key.",
    "Mournful roots reggae song in A minor. The instruments are grand piano and percussion, very slow.",
    "A tense ambient track featuring lead synthesizer and synth bass, slow-paced.",
    "Chimes, lead synthesizer and string section playing a dreamy atmospheric ambient piece in D# major.",
    "Percussion and upright bass playing a dark folk track in F# minor.",
    "Floating composition in a major key. It features organ, distorted guitar, electric bass, drums and horns at 76 "
    "bpm.",
    "swing jazz, happy, electric guitar, piano, trumpet, acoustic bass, drum kit, rapid, instrumental",
    "Flute, piano, trumpet, bass guitar and percussion playing a peaceful reggae instrumental at 66 bpm.",
    "A slow loving atmospheric ambient tune with electric piano, pad and strings.",
    "A lo-fi hip hop track with a peaceful mood. The lead is a lead synthesizer over grand piano, strings, bass guitar "
    "and programmed beats.",
    "Atmospheric ambient with electric piano and pad, floating mood in C major at 61 bpm.",
)
"""Held-out captions of the synthetic world, whose truth simulated listeners know; not those that tunings list."""

EVERY = 0.3
"""Seconds between two looks at a job."""


@dataclass(frozen=True)
class DemoSize:
    """How much the demo does. votes: in each of both tests. takes: clips of each prompt in the second."""

    clips: int = 3
    prompts: int = 12
    seconds: float = 5.0
    listeners: int = 20
    votes: int = 300
    tuning: str = "small"
    takes: int = 2


class Demo(threading.Thread):
    """The demo of a running studio. say: is given a line at each step."""

    def __init__(self, studio: Studio, say: Callable[[str], None], size: DemoSize | None = None) -> None:
        super().__init__(name="demo", daemon=True)
        self.size = size or DemoSize()
        self.say = say
        self._stopping = threading.Event()
        with studio.database.transaction() as session:
            token = studio.authority.program_token(session, "demo")
        self._client = StudioClient(studio.settings.loopback_address, token)

    def run(self) -> None:
        """Do all of it, or what is left."""
        try:
            with self._client:
                self._generate()
                reward = self._train_reward(self._compare_models())
                self._compare_tuned(self._tune(reward))
                self.say("demo: done")
        except _Stopped:
            pass
        except PlauditError as error:
            self.say(f"demo: {error}")

    def stop(self) -> None:
        """End it; a restart goes on with it."""
        self._stopping.set()
        if self.is_alive():
            self.join(5)

    def _generate(self) -> None:
        self.say("demo: clips are generated; they appear under Create")
        request = {
            "prompts": list(PROMPTS[: self.size.clips]), "model": "synthetic", "count": 2, "seconds": self.size.seconds,
            "seed": 1,
        }  # fmt: skip
        self._done(self._post("generations", request, "generation")["id"])

    def _compare_models(self) -> str:
        """The id of the test of three models, with votes."""
        models: dict[str, dict[str, Any]] = {
            "synthetic": {"model": "synthetic"},
            "synthetic-base": {"model": "synthetic-base"},
            "synthetic-distilled, one step": {"model": "synthetic-distilled", "sampling": {"steps": 1}},
        }
        request = {
            "name": "Demo: three models",
            "systems": [
                {"name": name, "source": {**source, "seconds": self.size.seconds}} for name, source in models.items()
            ],
            "prompts": list(PROMPTS[: self.size.prompts]), **self._listening(3 * self.size.prompts),
        }  # fmt: skip
        self.say("demo: a blind test of three models; simulated listeners vote, see Tests")
        made = self._post("tests", request, "test")
        return self._voted(made, "votes")

    def _train_reward(self, test: str) -> str:
        """The id of the reward that is trained on the test's votes."""
        self.say("demo: a reward is trained on the votes, see Rewards")
        job = self._post("rewards", {"name": "demo", "tests": [test]}, "reward")
        return str(self._done(job["id"])["result"]["reward"])

    def _tune(self, reward: str) -> str:
        """The id of the tuning's job."""
        self.say("demo: a model is tuned with the reward, see Tune")
        request = {"name": "demo", "reward": reward, "model": "synthetic-base", "size": self.size.tuning}
        return str(self._done(self._post("tunings", request, "tuning")["id"])["id"])

    def _compare_tuned(self, tuning: str) -> None:
        self.say("demo: a blind test of the model before and after tuning, see Tests")
        request = {"name": "Demo: before and after tuning", "takes": self.size.takes, "pairs_per_listener": 12}
        made = self._post(f"tunings/{tuning}/test", request, "tuned-test")
        self._voted(made, "tuned-votes")

    def _listening(self, pairs: int) -> dict[str, Any]:
        per_listener = -(-self.size.votes // self.size.listeners)
        return {
            "pairs_per_listener": min(pairs, per_listener), "repeats": 0, "obvious": 0, "practice": 0,
            "minimum_listening": 0,
        }  # fmt: skip

    def _voted(self, made: dict[str, Any], key: str) -> str:
        """Open a test and let simulated listeners vote; its id."""
        test = str(made["test"]["id"])
        self._done(made["job"])
        if self._get(f"tests/{test}")["status"] == "draft":
            self._client.patch(f"tests/{test}", {"status": "open"})
        request = {"test": test, "listeners": self.size.listeners, "votes": self.size.votes}
        self._done(self._post("simulations", request, key)["id"])
        return test

    def _done(self, job_id: str) -> dict[str, Any]:
        """A job once it is done. One that failed or was cancelled may be tried again in the page."""
        reported = ""
        while True:
            job = self._get(f"jobs/{job_id}")
            if job["status"] == "done":
                return job
            if job["status"] in ("failed", "cancelled") and job["status"] != reported:
                reported = job["status"]
                self.say(f"demo: its job {job['kind']} {reported}; the demo goes on when it is retried")
            self._pause()

    def _get(self, path: str) -> dict[str, Any]:
        return self._answered(lambda: self._client.get(path))

    def _post(self, path: str, request: dict[str, Any], key: str) -> dict[str, Any]:
        return self._answered(lambda: self._client.post(path, request, key=f"demo-{key}"))

    def _answered(self, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The answer; the server may not be up yet, or be about to stop."""
        while True:
            try:
                return ask()
            except RunError:
                self._pause()

    def _pause(self) -> None:
        if self._stopping.wait(EVERY):
            raise _Stopped


class _Stopped(Exception):
    """The studio ends."""
