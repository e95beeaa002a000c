"""A process beside the server's that computes results, so that votes never wait for it.

It reads a request a line, an address of a database and the id of a test, writes an answer a line, and ends when the
server does.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict
from typing import Any

from plaudit.errors import RunError
from plaudit.studio.database import Database, Test, by_id
from plaudit.studio.listening.results import Computed, Version, compute


class Calculator:
    """The process, started when it is needed first, for the tests of a database."""

    def __init__(self, database_url: str) -> None:
        self.database_url = database_url
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def compute(self, test_id: str) -> Computed:
        """The results of a test now; RunError where the process fails twice."""
        line = json.dumps({"database": self.database_url, "test": test_id}) + "\n"
        with self._lock:
            for _ in range(2):
                answer = self._ask(line)
                if answer is not None:
                    if "error" in answer:
                        raise RunError(f"the results could not be computed: {answer['error']}")
                    computed = answer["computed"]
                    return Computed(**{**computed, "version": Version(**computed["version"])})
        raise RunError("the results could not be computed: the process that does it was ended; try again")

    def _ask(self, line: str) -> dict[str, Any] | None:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "plaudit.studio.listening.calculator"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except OSError:
            answer = ""
        if not answer.endswith("\n"):
            self._process.kill()
            self._process.wait()
            self._process = None
            return None
        return dict(json.loads(answer))

    def close(self) -> None:
        """End the process."""
        with self._lock:
            if self._process is not None:
                assert self._process.stdin is not None and self._process.stdout is not None
                self._process.stdin.close()
                self._process.wait()
                self._process.stdout.close()
                self._process = None


def _answer(request: dict[str, str]) -> dict[str, Any]:
    database = Database(request["database"])
    try:
        with database.reading() as session:
            return {"computed": asdict(compute(session, by_id(session, Test, request["test"])))}
    except Exception as error:  # the next request may be a better one
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        database.close()


def main() -> None:
    """Answer requests until standard input ends."""
    # It takes seconds, which are no cost of the results.
    importlib.import_module("plaudit.studio.listening.statistics.summary")
    os.nice(5)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
