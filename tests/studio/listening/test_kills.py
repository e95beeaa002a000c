"""No vote is lost: the server is killed at random moments while listeners vote."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from plaudit.studio.database import Assignment, Database, Listener, Vote
from plaudit.studio.listening.answers import winner_of
from plaudit.studio.settings import StudioSettings
from tests.studio.conftest import Opened
from tests.studio.listening.conftest import SYSTEMS, open_test, write_systems

CLIENTS = 4
CHOICES = ("left", "right", "tie", "both_bad")
MOST_ANSWERS = 12
"""Answers that a server gives, at most, before it is killed: not a time, so that a busy machine makes the same test."""


class KilledServer:
    """A server that can be killed and started again; its socket stays."""

    def __init__(self, folder: Path, how: str) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listening.getsockname()[1]
        self._forks = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.studio.listening.forked_server"),
                *(str(folder), str(self.listening.fileno()), how),
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[self.listening.fileno()],
        )  # fmt: skip
        self.pid = 0

    def start(self) -> None:
        """Fork a server."""
        assert self._forks.stdin is not None and self._forks.stdout is not None
        self._forks.stdin.write("start\n")
        self._forks.stdin.flush()
        self.pid = int(self._forks.stdout.readline())

    def wait(self) -> None:
        """Wait until it answers."""
        httpx.get(f"http://127.0.0.1:{self.port}/api/v1/health", timeout=60).raise_for_status()

    def kill(self) -> None:
        """SIGKILL the server."""
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End all of it."""
        with suppress(ProcessLookupError):
            self.kill()
        assert self._forks.stdin is not None and self._forks.stdout is not None
        self._forks.stdin.close()
        self._forks.wait(10)
        self._forks.stdout.close()
        self.listening.close()


@dataclass
class Log:
    """What a client did: votes that were acknowledged, and all that it ever sent, by assignment."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    sent: dict[str, set[str]] = field(default_factory=dict)
    codes: dict[str, str] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)


class Voter(threading.Thread):
    """Listeners, one after the other, who vote until they are stopped. Each then finishes its test.

    A request that failed is sent again, as the page does by itself; or the page is opened anew, and another answer may
    be given where the first is not known to be stored.
    """

    def __init__(self, port: int, invitation: str, seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.rng, self.stop, self.invitation, self.log = random.Random(seed), stop, invitation, Log()
        self.error: BaseException | None = None
        self.answers = 0
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1/", timeout=30)

    def run(self) -> None:
        """Take part as one listener after another."""
        try:
            while not self.stop.is_set():
                self._take_part()
        except BaseException as error:
            self.error = error

    def _take_part(self) -> None:
        opened = self._send("POST", f"listen/{self.invitation}").json()
        self._http.headers["authorization"] = f"Bearer {opened['token']}"
        self._send("POST", "listen/consent")
        while (item := self._send("GET", "listen/next").json())["kind"] == "pair":
            self._vote(item["assignment"])
        assert self.log.codes.setdefault(opened["listener"], item["completion_code"]) == item["completion_code"]
        del self._http.headers["authorization"]
        self._http.cookies.clear()  # the next listener has a browser of its own

    def _vote(self, assignment: str) -> None:
        choice = self.rng.choice(CHOICES)
        self.log.sent.setdefault(assignment, set()).add(choice)
        vote = {
            "assignment": assignment, "choice": choice, "listened_left": 3, "listened_right": 3, "response_ms": 4000,
        }  # fmt: skip
        again = self.rng.random() < 0.7
        keyed = {"idempotency-key": f"{assignment}-{choice}"} if self.rng.random() < 0.5 else {}
        answer = self._send("POST", "listen/votes", again, json=vote, headers=keyed)
        if answer is None:
            return  # the page is opened anew
        if answer.status_code == 409:
            assert len(self.log.sent[assignment]) > 1, answer.text
            return
        assert answer.json()["assignment"] == assignment
        self.log.acknowledged[assignment] = choice

    def _send(self, method: str, path: str, again: bool = True, **request: Any) -> Any:
        """The answer to a request that reaches a server; None where one was lost and is not to be sent again."""
        while True:
            try:
                answer = self._http.request(method, path, **request)
            except httpx.TransportError as error:
                self.log.failures[type(error).__name__] += 1
                if not again:
                    return None
                time.sleep(self.rng.random() * 0.02)
                continue
            self.answers += 1
            assert answer.status_code in (200, 409), (path, answer.status_code, answer.text)
            return answer


def vote_through_kills(folder: Path, kills: int, seed: int, how: str = "served") -> tuple[int, int, Counter[str]]:
    """Let listeners vote while the server is killed `kills` times; check every vote; how many were acknowledged, how
    many are stored, and how requests failed."""
    opened = Opened(StudioSettings(folder=folder, device="cpu"))
    write_systems(opened.studio.settings.layout.root)
    party = open_test(opened, SYSTEMS, pairs_per_listener=8, minimum_listening=1)
    opened.close()
    server, stop, rng = KilledServer(folder, how), threading.Event(), random.Random(seed)
    voters = [Voter(server.port, party.invitation, 1000 * seed + i, stop) for i in range(CLIENTS)]
    try:
        for voter in voters:
            voter.start()
        for kill in range(kills):
            server.start()
            if kill % 10:  # one in ten is killed while it starts
                server.wait()
                _wait_for_answers(voters, rng.randrange(MOST_ANSWERS))
            time.sleep(rng.random() * 0.05)
            server.kill()
            assert not [voter.error for voter in voters if voter.error]
        server.start()
        server.wait()
        stop.set()
        for voter in voters:
            voter.join(120)
            assert not voter.is_alive()
            assert voter.error is None, repr(voter.error)
    finally:
        stop.set()
        server.close()
    return _checked(folder, [voter.log for voter in voters])


def _wait_for_answers(voters: list[Voter], count: int) -> None:
    """Wait until the voters got so many more answers, half a minute at most."""
    until, deadline = sum(voter.answers for voter in voters) + count, time.monotonic() + 30
    while sum(voter.answers for voter in voters) < until and time.monotonic() < deadline:
        time.sleep(0.002)


def _checked(folder: Path, logs: list[Log]) -> tuple[int, int, Counter[str]]:
    database = Database(StudioSettings(folder=folder).database_url)
    with database.reading() as session:
        rows = session.execute(
            select(Vote.assignment_id, Vote.winner, Assignment.swapped, Assignment.answered)
            .join(Assignment, Assignment.id == Vote.assignment_id)
            .order_by(Vote.sequence)
        ).all()
        codes = {id: code for id, code in session.execute(select(Listener.id, Listener.completion_code)) if code}
        unanswered = set(session.scalars(select(Assignment.id).where(Assignment.answered.is_(False))))
    database.close()
    stored = {assignment: (winner, swapped) for assignment, winner, swapped, _ in rows}
    assert len(stored) == len(rows), "no vote is stored twice"
    assert all(answered for *_, answered in rows)
    assert not unanswered & set(stored)
    acknowledged = {assignment: choice for log in logs for assignment, choice in log.acknowledged.items()}
    sent = {assignment: choices for log in logs for assignment, choices in log.sent.items()}
    for assignment, choice in acknowledged.items():
        assert stored[assignment][0] == winner_of(choice, stored[assignment][1]), "an acknowledged vote is there"
    for assignment, (winner, swapped) in stored.items():
        assert winner in {winner_of(choice, swapped) for choice in sent[assignment]}, "nobody sent this vote"
    for log in logs:
        assert log.codes.items() <= codes.items()
    failures: Counter[str] = Counter()
    for log in logs:
        failures.update(log.failures)
    return len(acknowledged), len(stored), failures


def test_no_vote_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    acknowledged, stored, failures = vote_through_kills(tmp_path / "studio", kills=8, seed=1)
    assert acknowledged > 10
    assert stored >= acknowledged
    assert failures.total() >= 4, "listeners noticed"


@pytest.mark.slow
def test_no_vote_is_lost_by_a_studio_that_is_opened_anew_after_each_kill(tmp_path: Path) -> None:
    acknowledged, _, _ = vote_through_kills(tmp_path / "studio", kills=40, seed=3, how="whole")
    assert acknowledged > 40


@pytest.mark.slow
def test_no_vote_is_lost_in_a_thousand_kills(tmp_path: Path) -> None:
    acknowledged, stored, failures = vote_through_kills(tmp_path / "studio", kills=1000, seed=2)
    print(f"{acknowledged} votes acknowledged, {stored} stored, requests that failed: {dict(failures)}")
    assert acknowledged > 1000
