"""Simulated listeners of the synthetic world, who take part in a listening test through the API as people do.

They open an invitation, agree, load both clips of each pair, and vote by their true utility, which is measured on the
audio that they were given, with the noise, ties and contrarians of `plaudit.synthetic`. `simulate` works with any
HTTP client: of a server on loopback, or of an application in process.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
import numpy as np
from sqlalchemy import func, select

from plaudit.errors import EvaluationError
from plaudit.studio.auth import Authority
from plaudit.studio.database import Assignment, Clip, Invitation, Listener, Prompt, Stimulus, System, Test, by_id
from plaudit.studio.errors import Conflict
from plaudit.studio.events import publish
from plaudit.studio.jobs import JobContext, job
from plaudit.studio.listening.records import systems_of

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
    began: Sequence[str] = (),
) -> int:
    """Send listeners through a test until each is done, or `votes` are given; how many votes were given.

    began: tokens of the first listeners, where they began earlier: they go on where they were.
    """
    taste, given = taste or SimulatedTaste(), 0
    contrarians = set(
        np.random.default_rng([seed, 2]).permutation(listeners)[: round(CONTRARIAN_FRACTION * listeners)].tolist()
    )
    for listener in range(listeners):
        if votes is not None and given >= votes:
            break
        sign = -1.0 if listener in contrarians else 1.0
        _forget_cookies(client)
        token = began[listener] if listener < len(began) else _json(client.post(f"listen/{invitation}"))["token"]
        headers = {"authorization": f"Bearer {token}"}
        _forget_cookies(client)
        state = _json(client.post("listen/consent", json={}, headers=headers))
        if state["kind"] != "preference" or state["state"] not in ("listening", "completed"):
            raise Conflict("simulated listeners take part in tests of preferences without a headphone screening")
        while votes is None or given < votes:
            item = _json(client.get("listen/next", headers=headers))
            if item["kind"] != "pair":
                break
            if item["prompt"] is None:
                raise Conflict("simulated listeners need the prompt; set show_prompt")
            random = np.random.default_rng([seed, 3, listener, item["position"]])
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
    return given


def _forget_cookies(client: Client) -> None:
    """Cookies would make all of them one browser's listener."""
    getattr(client, "cookies", httpx.Cookies()).clear()


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
    """Simulated listeners on loopback: the true utilities of the test's systems, and how many votes were given.

    A job that is begun again goes on with its listeners, each where it was.
    """
    settings, taste = context.settings, SimulatedTaste()
    truths = _measure_systems(context, request["test"], taste)
    authority, label = Authority(context.database, settings.layout.secret()), f"simulated listeners {context.job_id}"
    with context.database.transaction() as session:
        row = session.scalar(select(Invitation).where(Invitation.test_id == request["test"], Invitation.label == label))
        if row is None:
            row = Invitation(test_id=request["test"], label=label, max_listeners=None)
            session.add(row)
            session.flush()
        listeners = select(Listener.id).where(Listener.invitation_id == row.id)
        began = list(session.scalars(listeners.order_by(Listener.sequence)))
        answered = Assignment.listener_id.in_(listeners) & Assignment.answered.is_(True)
        earlier = session.scalar(select(func.count()).select_from(Assignment).where(answered)) or 0
        invitation = authority.invitation_token(row.id)
    votes = request["votes"]
    with httpx.Client(base_url=f"{settings.loopback_address}/api/v1/", timeout=60) as client:
        given = simulate(
            client, invitation, request["listeners"], None if votes is None else votes - earlier, request["seed"],
            taste, lambda done, total: context.progress(done, total, label="simulated listeners"),
            [authority.listener_token(id) for id in began],
        )  # fmt: skip
    return {"test": request["test"], "votes": earlier + given, "true_utilities": truths}


def _measure_systems(context: JobContext, test_id: str, taste: SimulatedTaste) -> list[dict[str, Any]]:
    """The true utility of each system of a test, with its interval over prompts; the test's results show it too."""
    from plaudit.statistics import bootstrap_mean

    with context.database.reading() as session:
        names = [system.name for system in systems_of(session, test_id)]
        query = (
            select(System.name, Prompt.id, Prompt.text, Clip.path)
            .join(Stimulus, Stimulus.system_id == System.id)
            .join(Prompt, Prompt.id == Stimulus.prompt_id)
            .join(Clip, Clip.id == Stimulus.clip_id)
            .where(System.test_id == test_id, System.name.in_(names))
        )
        clips = [tuple(row) for row in session.execute(query)]
    by_prompt: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for done, (name, prompt, text, path) in enumerate(clips):
        context.progress(done, len(clips), label="measuring true utility")
        file = context.settings.layout.root / path
        if file.is_file():  # pairs of clips that are gone are passed over
            by_prompt[name].setdefault(prompt, []).append(taste.utility(file.read_bytes(), text))
    truths = []
    for name, values in by_prompt.items():
        if values:
            mean = bootstrap_mean(np.array([np.mean(one) for one in values.values()]), seed=0)
            truths.append({"system": name, "utility": {"mean": mean.mean, "low": mean.low, "high": mean.high}})
    with context.database.transaction() as session:
        test = by_id(session, Test, test_id)
        test.settings = {**test.settings, "true_utilities": truths}
        publish(session, "test", test_id, {"status": test.status})
    return truths
