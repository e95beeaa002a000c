"""A studio in a temporary folder, without a worker process: jobs run where a test says."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

import uvicorn
from fastapi.testclient import TestClient

from plaudit.studio.app import create_app
from plaudit.studio.app_state import Studio
from plaudit.studio.jobs import run_queued
from plaudit.studio.settings import StudioSettings

ADDRESS = "http://127.0.0.1:8765/api/v1/"


class Opened:
    """An open studio: `app`, `studio`, clients of the roles, and `work()`, which runs the queued jobs."""

    def __init__(self, settings: StudioSettings) -> None:
        self.app = create_app(settings, worker=False)
        self.studio: Studio = self.app.state.studio
        self.token = self.studio.new_owner_token()
        self._clients: list[TestClient] = []

    def client(self, token: str | None = None) -> TestClient:
        """A client with a bearer token, or with none."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        client = TestClient(self.app, base_url=ADDRESS, headers=headers, raise_server_exceptions=False)
        self._clients.append(client)
        return client

    def editor(self) -> TestClient:
        """A client with the role editor."""
        with self.studio.database.transaction() as session:
            return self.client(self.studio.authority.new_token(session, "an editor", "editor")[1])

    def work(self) -> int:
        """Run the queued jobs in this process."""
        return run_queued(self.studio.database, self.studio.settings)

    def close(self) -> None:
        """Close it all."""
        for client in self._clients:
            client.close()
        self.studio.close()


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Opened]:
    """An open studio in a temporary folder."""
    opened = Opened(StudioSettings(folder=tmp_path / "studio", device="cpu"))
    yield opened
    opened.close()


@pytest.fixture
def owner(studio: Opened) -> TestClient:
    """A client with the role owner; paths are under /api/v1/."""
    return studio.client(studio.token)


def done(response: Any, status: int = 200) -> Any:
    """The answer's JSON, where the status is as expected."""
    assert response.status_code == status, response.text
    return response.json()


class Served:
    """A studio at a real address, with its worker process where `worker`."""

    def __init__(self, folder: Path, worker: bool) -> None:
        bound = socket.create_server(("127.0.0.1", 0))
        settings = StudioSettings(folder=folder, device="cpu", port=bound.getsockname()[1])
        self.app = create_app(settings, worker=worker)
        self.studio: Studio = self.app.state.studio
        self.token = self.studio.new_owner_token()
        self.address = settings.loopback_address
        self.server = uvicorn.Server(uvicorn.Config(self.app, log_level="warning", timeout_graceful_shutdown=1))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [bound]}, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    @property
    def worker(self) -> int:
        """The process id of the worker."""
        supervisor = self.studio.supervisor
        assert supervisor is not None and supervisor.process is not None
        return supervisor.process.pid

    def stop(self) -> None:
        """Stop the server, and the worker with it."""
        self.server.should_exit = True
        self.thread.join(20)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A studio at a real address, without a worker process."""
    running = Served(tmp_path / "studio", worker=False)
    yield running
    running.stop()
