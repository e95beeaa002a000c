"""Two hundred listeners at once: how long votes take, as one JSON object.

    python -m benchmarks.studio --listeners 200 --seconds 30 --pause 5

A server process serves a prepared test on loopback; listeners are coroutines of this process. Each loads both clips of
a pair, waits a random time, `pause` seconds on average, and votes. Times are those of whole requests, from sending to
the last byte.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from plaudit.audio import write_wav

SERVER = """
import sys, uvicorn, socket
from pathlib import Path
from plaudit.studio.app import create_app
from plaudit.studio.settings import StudioSettings
app = create_app(StudioSettings(folder=Path(sys.argv[1]), device="cpu"), worker=False)
uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[socket.socket(fileno=int(sys.argv[2]))])
"""
RATE = 16_000
SECONDS = 2.0


def prepared(folder: Path, pairs: int, systems: int = 2, pairing: str = "random") -> str:
    """Prepare and open a test in a studio's folder; the token of its link."""
    from fastapi.testclient import TestClient

    from plaudit.studio.app import create_app
    from plaudit.studio.jobs import run_queued
    from plaudit.studio.settings import StudioSettings

    app = create_app(StudioSettings(folder=folder, device="cpu"), worker=False)
    studio = app.state.studio
    for system in range(systems):
        for prompt in range(10):
            clip = studio.settings.layout.uploads / f"s{system}" / f"{prompt}.wav"
            clip.parent.mkdir(exist_ok=True)
            rng = np.random.default_rng([system, prompt])
            write_wav(clip, (0.05 * rng.standard_normal(round(SECONDS * RATE))).astype(np.float32), RATE)
            clip.with_suffix(".json").write_text(json.dumps({"prompt": f"prompt {prompt}", "seed": 0}))
    headers = {"authorization": f"Bearer {studio.new_owner_token()}"}
    client = TestClient(app, base_url="http://127.0.0.1:8765/api/v1/", headers=headers)
    request = {
        "name": "load", "pairs_per_listener": pairs, "minimum_listening": 0, "pairing": pairing,
        "systems": [{"name": f"s{i}", "source": {"folder": f"uploads/s{i}"}} for i in range(systems)],
    }  # fmt: skip
    test = client.post("tests", json=request).json()["test"]["id"]
    run_queued(studio.database, studio.settings)
    client.patch(f"tests/{test}", json={"status": "open"}).raise_for_status()
    token = str(client.post(f"tests/{test}/invitations", json={}).json()["token"])
    studio.close()
    return token


class Load:
    """Listeners who vote until a time. times: seconds of each request by kind, once all have begun (twice `pause`)."""

    def __init__(self, address: str, invitation: str, pause: float) -> None:
        self.address, self.invitation, self.pause = address, invitation, pause
        self.times: dict[str, list[float]] = {name: [] for name in ("open", "consent", "next", "audio", "vote")}
        self.acknowledged: set[str] = set()
        self.settled = self.until = 0.0
        self.sent_again = 0

    async def run(self, listeners: int, seconds: float) -> None:
        """Let so many listeners vote for so long."""
        self.settled = time.monotonic() + 2 * self.pause
        self.until = self.settled + seconds
        await asyncio.gather(*(self._listener(seed) for seed in range(listeners)))

    async def _listener(self, seed: int) -> None:
        import httpx

        rng = random.Random(seed)
        await asyncio.sleep(rng.random() * self.pause)
        async with httpx.AsyncClient(base_url=self.address, timeout=60, verify=False) as client:
            opened = (await self._timed("open", lambda: client.post(f"listen/{self.invitation}"))).json()
            client.headers["authorization"] = f"Bearer {opened['token']}"
            await self._timed("consent", lambda: client.post("listen/consent"))
            while time.monotonic() < self.until:
                pair = (await self._timed("next", lambda: client.get("listen/next"))).json()
                if pair["kind"] != "pair":
                    return
                for side in ("left", "right"):
                    await self._timed("audio", partial(client.get, pair[side].removeprefix("/api/v1/")))
                await asyncio.sleep(rng.random() * 2 * self.pause)
                vote = {
                    "assignment": pair["assignment"], "choice": rng.choice(["left", "right", "tie"]),
                    "listened_left": 2, "listened_right": 2, "response_ms": 5000,
                }  # fmt: skip
                await self._timed("vote", partial(client.post, "listen/votes", json=vote))
                self.acknowledged.add(pair["assignment"])

    async def _timed(self, name: str, request: Callable[[], Any]) -> Any:
        """The answer to a request, sent again where a connection that was idle had just been closed."""
        import httpx

        begun = time.perf_counter()
        while True:
            try:
                answer = (await request()).raise_for_status()
                break
            except httpx.TransportError:
                self.sent_again += 1
        if time.monotonic() > self.settled or name in ("open", "consent"):
            self.times[name].append(time.perf_counter() - begun)
        return answer


def measure(
    listeners: int, seconds: float, pause: float, folder: Path, systems: int = 2, pairing: str = "random"
) -> dict[str, Any]:
    """Times of a studio under load, in milliseconds; and whether every acknowledged vote is stored once."""
    import httpx
    from sqlalchemy import select

    from plaudit.studio.database import Database, Vote
    from plaudit.studio.settings import StudioSettings

    invitation = prepared(folder, 10, systems, pairing)
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(folder), str(listening.fileno())], pass_fds=[listening.fileno()]
        )
        try:
            address = f"http://127.0.0.1:{listening.getsockname()[1]}/api/v1/"
            httpx.get(f"{address}health", timeout=120).raise_for_status()
            load = Load(address, invitation, pause)
            asyncio.run(load.run(listeners, seconds))
        finally:
            server.terminate()
            server.wait(30)
    database = Database(StudioSettings(folder=folder).database_url)
    with database.reading() as session:
        stored = list(session.scalars(select(Vote.assignment_id)))
    database.close()
    return {
        "listeners": listeners,
        "seconds": seconds,
        "pause": pause,
        "systems": systems,
        "pairing": pairing,
        "processors": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "load_average": os.getloadavg()[0],
        "votes": len(load.acknowledged),
        "sent_again": load.sent_again,
        "stored_once": set(stored) == load.acknowledged and len(stored) == len(set(stored)),
        "milliseconds": {
            name: {str(q): round(1000 * float(np.percentile(times, q)), 1) for q in (50, 95, 99)}
            for name, times in load.times.items()
            if times
        },
    }


def main(
    listeners: Annotated[int, typer.Option(help="Listeners at once.")] = 200,
    seconds: Annotated[float, typer.Option(help="How long they vote.")] = 30.0,
    pause: Annotated[float, typer.Option(help="Mean seconds between a pair's clips and its vote.")] = 5.0,
    systems: Annotated[int, typer.Option(help="Systems of the test.")] = 2,
    pairing: Annotated[str, typer.Option(help="How pairs are chosen: random or active.")] = "random",
) -> None:
    """Measure, and print one JSON object."""
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(listeners, seconds, pause, Path(folder) / "studio", systems, pairing)
        print(json.dumps(figures, indent=1), flush=True)


if __name__ == "__main__":
    typer.run(main)
