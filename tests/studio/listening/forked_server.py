"""A studio's server to kill and start again: `python -m tests.studio.listening.forked_server FOLDER SOCKET HOW`.

A process is forked for each line on standard input; it serves the folder on a socket that stays open throughout, as one
that systemd holds. Its number is printed. HOW: "whole", each process opens the studio itself, as `plaudit studio` does;
"served", they take over one that was opened before, which is quick.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import uvicorn

from plaudit.studio.app import create_app
from plaudit.studio.settings import StudioSettings


def main() -> None:
    """Serve the folder and file descriptor that the arguments name."""
    settings = StudioSettings(folder=Path(sys.argv[1]), device="cpu")
    listening = socket.socket(fileno=int(sys.argv[2]))
    app = None
    if sys.argv[3] == "served":
        app = create_app(settings, worker=False)
        app.state.studio.database.close()  # a connection must not be shared with a fork; each opens its own
    child = 0
    for _ in sys.stdin:
        if child:
            os.waitpid(child, 0)
        child = os.fork()
        if child == 0:
            config = uvicorn.Config(app or create_app(settings, worker=False), log_level="error", lifespan="off")
            uvicorn.Server(config).run(sockets=[listening])
            os._exit(0)
        print(child, flush=True)
    if child:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
