"""The worker process: `python -m plaudit.studio.worker`, with settings as a line of JSON on standard input.

It ends when its input does, which is when the server is gone, however that ended. Of the lanes, `main` runs in the main
thread, where code that handles signals may, and `files` in another.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from plaudit.processors import limit_threads
from plaudit.studio.database import Database, new_id
from plaudit.studio.jobs import Lane, claim, fail_unknown_kinds, load_kinds, requeue_interrupted, run
from plaudit.studio.settings import StudioSettings
from plaudit.writing import locked

EVERY = 0.1
"""Seconds between two looks for queued jobs."""


def main() -> None:
    """Work until the server is gone."""
    settings = StudioSettings.model_validate_json(sys.stdin.readline())
    threading.Thread(target=_end_with_server, daemon=True).start()
    limit_threads()
    database = Database(settings.database_url)
    # The worker of a server that was killed may not have noticed yet: wait until it is gone.
    with locked(settings.layout.worker_lock):
        load_kinds()
        requeue_interrupted(database)
        fail_unknown_kinds(database)
        worker = new_id()
        threading.Thread(target=_work, args=(database, settings, worker, "files"), daemon=True).start()
        _work(database, settings, worker, "main")


def _work(database: Database, settings: StudioSettings, worker: str, lane: Lane) -> None:
    while True:
        row = claim(database, worker, lane)
        if row is None:
            time.sleep(EVERY)
        else:
            run(database, settings, row)


def _end_with_server() -> None:
    while sys.stdin.read(1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
