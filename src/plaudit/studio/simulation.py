"""Simulated listeners of the synthetic world, who take part in a listening test through the API as people do.

They open an invitation, agree, load both clips of each pair, and vote by their true utility, which is measured on the
audio that they were given, with the noise, ties and contrarians of `plaudit.synthetic`. `simulate` works with any
HTTP client: of a server on loopback, or of an application in process.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
import numpy as np

from plaudit.errors import EvaluationError
from plaudit.studio.auth import Authority
from plaudit.studio.database import Invitation, Test, by_id
from plaudit.studio.errors import Conflict
from plaudit.studio.jobs import JobContext, job

PROMPTS = 1024
"""Held-out captions of the synthetic world that the listeners know the truth of."""

TIE_BAND = 0.15
CONTRARIAN_FRACTION = 0.05
"""As of `plaudit.synthetic.listeners.ListenerPopulation`."""


class Client(Protocol):
    """What is needed of httpx.Client, which a test client is too; paths are relative to /api/v1/."""

    def get(self, url: str, *, headers: Mapping[str, str]) -> httpx.Response:
        """GET."""

    def post(self, url: str, *, json: Any = None, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """POST."""


@dataclass
class SimulatedTaste:
    """The utility of audio for a prompt. Each clip is measured once."""

    known: dict[tuple[str, str], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from plaudit.corpus.sources import synthetic_source

        source = synthetic_source(5.0)
        held_out, utility = source.held_out(PROMPTS), source.true_utility()
        assert held_out.truths is not None and utility is not None  # of the synthetic corpus
        self._truths, self._utility = dict(zip(held_out.prompts, held_out.truths, strict=True)), utility

    def utility(self, audio: bytes, prompt: str) -> float:
        """The true utility of a wav file; EvaluationError for a prompt that is not the synthetic world's."""
        import torch

        from plaudit.audio import resample

        if prompt not in self._truths:
            raise EvaluationError(
                f"simulated listeners know the held-out prompts of the synthetic world only, not {prompt[:60]!r}"
            )
        key = hashlib.sha256(audio).hexdigest(), prompt
        if key not in self.known:
            import soundfile

            wave, rate = soundfile.read(io.BytesIO(audio), dtype="float32")
            at_probes = torch.from_numpy(np.ascontiguousarray(resample(wave, rate, 16_000)))
            with torch.inference_mode():
                self.known[key] = float(self._utility([at_probes], [self._truths[prompt]])[0])
        return self.known[key]


def simulate(
    client: Client,
    invitation: str,
    listeners: int,
    votes: int | None = None,
    seed: int = 0,
    taste: SimulatedTaste | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Send listeners through a test until each is done, or `votes` are given; how many votes were given."""
    taste, given = taste or SimulatedTaste(), 0
    contrarians = set(
        np.random.default_rng([seed, 2]).permutation(listeners)[: round(CONTRARIAN_FRACTION * listeners)].tolist()
    )
    for listener in range(listeners):
        random = np.random.default_rng([seed, 3, listener])
        sign = -1.0 if listener in contrarians else 1.0
        # Cookies would make all of them one browser's listener.
        getattr(client, "cookies", httpx.Cookies()).clear()
        token = _json(client.post(f"listen/{invitation}"))["token"]
        headers = {"authorization": f"Bearer {token}"}
        getattr(client, "cookies", httpx.Cookies()).clear()
        state = _json(client.post("listen/consent", json={}, headers=headers))
        if state["kind"] != "preference" or state["state"] not in ("listening", "completed"):
            raise Conflict("simulated listeners take part in tests of preferences without a headphone screening")
        while votes is None or given < votes:
            item = _json(client.get("listen/next", headers=headers))
            if item["kind"] != "pair":
                break
            if item["prompt"] is None:
                raise Conflict("simulated listeners need the prompt; set show_prompt")
            left, right = (_audio(client, item[side], headers) for side in ("left", "right"))
            gap = taste.utility(left, item["prompt"]) - taste.utility(right, item["prompt"])
            perceived = sign * gap + random.logistic()
            choice = "tie" if abs(perceived) <= TIE_BAND and state["ties"] else "left" if perceived > 0 else "right"
            listened = max(float(item["minimum_listening"]), float(item["seconds"]))
            answer = {
                "assignment": item["assignment"], "choice": choice, "listened_left": listened,
                "listened_right": listened, "response_ms": int(2000 * listened + 1000 * random.exponential(2.0)),
            }  # fmt: skip
            _json(client.post("listen/votes", json=answer, headers=headers))
            given += 1
            progress(given, votes or listeners * item["total"])
        if votes is not None and given >= votes:
            break
    return given


def _audio(client: Client, address: str, headers: Mapping[str, str]) -> bytes:
    answer = client.get(address.removeprefix("/api/v1/"), headers=headers)
    if answer.status_code != 200:
        _json(answer)
    return answer.content


def _json(answer: httpx.Response) -> Any:
    if answer.status_code >= 400:
        detail = (
            answer.json().get("detail", answer.text)
            if answer.headers["content-type"].startswith("application")
            else answer.text
        )
        raise Conflict(f"the studio answered {answer.status_code}: {detail}")
    return answer.json()


@job("simulate")
def run_simulation(context: JobContext, request: dict[str, Any]) -> dict[str, Any]:
    """Simulated listeners on loopback; how many votes they gave."""
    settings = context.settings
    with context.database.transaction() as session:
        test = by_id(session, Test, request["test"])
        if request.get("open") and test.status == "draft":
            from plaudit.studio.listening import administration
            from plaudit.studio.listening.schemas import TestChange

            administration.change(session, test, TestChange.model_validate({"status": "open"}))
        row = Invitation(test_id=test.id, label="simulated listeners", max_listeners=None)
        session.add(row)
        session.flush()
        invitation = Authority(context.database, settings.layout.secret()).invitation_token(row.id)
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    with httpx.Client(base_url=f"http://{host}:{settings.port}/api/v1/", timeout=60) as client:
        given = simulate(
            client, invitation, request["listeners"], request["votes"], request["seed"],
            progress=lambda done, total: context.progress(done, total, label="simulated listeners"),
        )  # fmt: skip
    return {"test": request["test"], "votes": given}
