"""Starts the worker process, and starts it again when it dies."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import suppress

from plaudit.studio.settings import StudioSettings

LONGEST_PAUSE = 10.0
"""Seconds before a worker is started again that keeps dying."""


class Supervisor:
    """One worker process at a time, for as long as the server runs."""

    def __init__(self, settings: StudioSettings) -> None:
        self.settings = settings
        self.process: subprocess.Popen[str] | None = None
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def start(self) -> None:
        """Start the worker."""
        self._thread.start()

    def stop(self) -> None:
        """End the worker: what it was doing continues at the next start."""
        with self._starting:
            self._stopping.set()
        process = self.process
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._thread.join(5)

    @property
    def is_up(self) -> bool:
        """Whether the worker runs."""
        return self.process is not None and self.process.poll() is None

    def _watch(self) -> None:
        pause = 0.2
        while (process := self._started()) is not None:
            began = time.monotonic()
            assert process.stdin is not None
            with suppress(OSError):  # it died at once
                process.stdin.write(self.settings.model_dump_json() + "\n")
                process.stdin.flush()
            process.wait()
            pause = 0.2 if time.monotonic() - began > LONGEST_PAUSE else min(2 * pause, LONGEST_PAUSE)
            self._stopping.wait(pause)

    def _started(self) -> subprocess.Popen[str] | None:
        """A new worker; None where the server is stopping."""
        with self._starting, (self.settings.layout.logs / "worker.log").open("ab") as log:
            if self._stopping.is_set():
                return None
            self.process = subprocess.Popen(
                [sys.executable, "-m", "plaudit.studio.worker"], stdin=subprocess.PIPE, stdout=log, stderr=log,
                text=True, start_new_session=True,
            )  # fmt: skip
            return self.process
