"""The loop of the studio at real size: a test, votes, a reward, a tuned model, and what became of the true utility.

    python -m benchmarks.studio_loop --json

A `plaudit studio` with its worker serves on loopback; everything goes through its API. Simulated listeners compare
systems of the synthetic world in a blind test; a reward is trained on their votes, a model tuned with it, and the
listeners compare it blind with the model before. Then both generate a clip for each of `prompts` captions that
neither test nor training used, from the same seeds, and the true utility of the clips is compared by prompt.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from plaudit.statistics import bootstrap_mean
from plaudit.studio.client import StudioClient
from plaudit.studio.simulation import SimulatedTaste
from plaudit.studio.tuning import HELD_OUT

SYSTEMS: dict[str, dict[str, Any]] = {
    "base": {"model": "synthetic-base"},
    "base, other seeds": {"model": "synthetic-base", "seed": 10_000},
    "base, 6 steps": {"model": "synthetic-base", "sampling": {"steps": 6}},
    "distilled": {"model": "synthetic-distilled"},
}
"""Of the test whose votes train the reward."""

TEST_PROMPTS = 25
SECONDS = 5.0
AT_ONCE = 32
"""Prompts of one generation."""


@contextmanager
def studio(folder: Path) -> Iterator[StudioClient]:
    """A client of a studio that runs in a process of its own, with its worker, and is stopped at the end."""
    command = [sys.executable, "-m", "plaudit", "studio", str(folder)]
    token = subprocess.run([*command, "--new-token"], capture_output=True, text=True, check=True).stdout.strip()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [*command, "--port", str(port), "--no-browser", "--device", "cpu"], stdout=subprocess.DEVNULL
    )
    try:
        with StudioClient(f"http://127.0.0.1:{port}", token) as client:
            _wait_until_up(client)
            yield client
    finally:
        server.terminate()
        server.wait(60)


def _wait_until_up(client: StudioClient) -> None:
    from plaudit.errors import RunError

    for _ in range(120):
        try:
            client.get("health")
            return
        except RunError:
            time.sleep(0.5)
    client.get("health")


class Loop:
    """The steps of the loop. seconds: what each took."""

    def __init__(self, client: StudioClient) -> None:
        self.client = client
        self.seconds: dict[str, float] = {}

    def job(self, name: str, job_id: str) -> dict[str, Any]:
        """Wait for a job."""
        began = time.monotonic()
        job = self.client.wait(job_id)
        self.seconds[name] = round(time.monotonic() - began, 1)
        return job

    def voted(self, name: str, made: dict[str, Any], listeners: int, votes: int, seed: int) -> dict[str, Any]:
        """The results of a test after votes of simulated listeners."""
        test = made["test"]["id"]
        self.job(f"{name}: clips", made["job"])
        self.client.patch(f"tests/{test}", {"status": "open"})
        request = {"test": test, "listeners": listeners, "votes": votes, "seed": seed}
        self.job(f"{name}: votes", self.client.post("simulations", request)["id"])
        return dict(self.client.get(f"tests/{test}/results"))

    def clips(self, name: str, model: str, prompts: Sequence[str], seed: int) -> list[Path]:
        """A clip of each prompt."""
        files = {}
        for start in range(0, len(prompts), AT_ONCE):
            request = {
                "prompts": list(prompts[start : start + AT_ONCE]), "model": model, "seconds": SECONDS,
                "seed": seed + start,
            }  # fmt: skip
            job = self.job(f"{name}: clips {start}", self.client.post("generations", request)["id"])
            for clip in self.client.clips(job=job["id"]):
                files[clip["prompt"]] = clip["id"]
        return [self.client.download(files[prompt], Path(tempfile.mkdtemp())) for prompt in prompts]


def measure(client: StudioClient, votes: int, prompts: int, model: str, tuning: dict[str, Any], seed: int) -> Any:
    """Go through the loop; its figures."""
    from plaudit.corpus.sources import synthetic_source

    captions = synthetic_source(SECONDS).held_out(HELD_OUT + TEST_PROMPTS + prompts).prompts
    test_prompts, evaluated = captions[HELD_OUT : HELD_OUT + TEST_PROMPTS], captions[HELD_OUT + TEST_PROMPTS :]
    loop, listeners = Loop(client), max(1, votes // 15)
    request = {
        "name": "systems", "prompts": test_prompts, "pairs_per_listener": 15, "repeats": 0, "obvious": 0, "practice": 0,
        "minimum_listening": 0,
        "systems": [{"name": name, "source": {**source, "seconds": SECONDS}} for name, source in SYSTEMS.items()],
    }  # fmt: skip
    results = loop.voted("test", client.post("tests", request), listeners, votes, seed)
    reward = loop.job(
        "reward", client.post("rewards", {"name": "votes", "tests": [results["test"]], "seed": seed})["id"]
    )["result"]
    tuned = loop.job(
        "tuning", client.post("tunings", {"reward": reward["reward"], "model": model, "seed": seed, **tuning})["id"]
    )["result"]
    made = client.post(f"tunings/{client.get('jobs', kind='tune')['items'][0]['id']}/test", {"takes": 3})
    compared = loop.voted("before and after", made, listeners, votes, seed + 1)
    taste = SimulatedTaste()
    utilities = {
        name: np.array(
            [
                taste.utility(file.read_bytes(), prompt)
                for file, prompt in zip(loop.clips(name, which, evaluated, 50_000 + seed), evaluated, strict=True)
            ]
        )
        for name, which in (("before", model), ("after", tuned["model"]))
    }
    gain = bootstrap_mean(utilities["after"] - utilities["before"], seed=0)
    return {
        "votes": results["at_votes"],
        "systems": results["true_utilities"],
        "reward": {
            k: reward["metrics"][k]
            for k in ("votes", "accuracy", "accuracy_interval", "baseline_accuracy", "difference")
        },
        "listeners_agree": reward["metrics"]["listeners_agree"],
        "tuning": {"model": model, **tuning},
        "blind_test": [
            {k: row[k] for k in ("first", "second", "votes", "rate", "verdict")}
            for row in compared["preference"]["decisions"]
        ],
        "prompts": prompts,
        "true_utility": {name: round(float(values.mean()), 3) for name, values in utilities.items()},
        "gain": {"mean": gain.mean, "low": gain.low, "high": gain.high},
        "seconds": _summed(loop.seconds),
        "processors": len(os.sched_getaffinity(0)),
    }


def _summed(seconds: dict[str, float]) -> dict[str, float]:
    """Seconds by step, those of several generations added."""
    summed: dict[str, float] = {}
    for name, value in seconds.items():
        name = re.sub(r" \d+$", "", name)
        summed[name] = round(summed.get(name, 0.0) + value, 1)
    return summed


def main(
    votes: Annotated[int, typer.Option(help="Votes of simulated listeners in each test.")] = 300,
    prompts: Annotated[int, typer.Option(help="Held-out captions of the comparison.")] = 192,
    model: Annotated[str, typer.Option(help="The model that is tuned.")] = "synthetic-base",
    recipe: Annotated[str, typer.Option(help="Of the tuning: expert_iteration or crpo.")] = "crpo",
    size: Annotated[str, typer.Option(help="Of the tuning: smoke, small or full.")] = "small",
    seed: Annotated[int, typer.Option(help="Of the listeners, the reward, the tuning and the clips.")] = 0,
    folder: Annotated[Path | None, typer.Option(help="Folder of the studio, which is kept.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Go through the loop, and print what it gained."""
    with tempfile.TemporaryDirectory() as temporary, studio(folder or Path(temporary) / "studio") as client:
        figures = measure(client, votes, prompts, model, {"recipe": recipe, "size": size}, seed)
    if as_json:
        print(json.dumps(figures, indent=1), flush=True)
        return
    gain = figures["gain"]
    print(f"true utility {figures['true_utility']['before']} before, {figures['true_utility']['after']} after")
    print(f"gain {gain['mean']:.3f} [{gain['low']:.3f}, {gain['high']:.3f}] over {prompts} prompts")


if __name__ == "__main__":
    typer.run(main)
