"""The server process: uvicorn with the application, and what it prints at its start."""

from __future__ import annotations

import socket
import threading
import webbrowser
from collections.abc import Callable

import uvicorn

from plaudit.errors import RunError
from plaudit.studio.app import create_app
from plaudit.studio.demo import Demo
from plaudit.studio.settings import LOOPBACK, StudioSettings


def serve(settings: StudioSettings, browser: bool = True, say: Callable[[str], None] = print) -> None:
    """Serve the studio until it is interrupted. RunError where its port or folder is in use."""
    listening = _bound(settings.host, settings.port)
    try:
        port = listening.getsockname()[1]
        app = create_app(settings.model_copy(update={"port": port}))
        studio = app.state.studio
        login = studio.login_token()
        if login is None:
            say(f"owner's token, for the API (shown this once): {studio.new_owner_token()}")
            login = studio.login_token()
        shown = settings.host if settings.host in LOOPBACK else socket.gethostname()
        address = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"
        say(f"studio of {settings.layout.root} at {address}")
        link = f"{address}/#token={login}"
        say(f"log in (valid for an hour): {link}")
        if browser:
            threading.Timer(0.5, webbrowser.open, [link]).start()
        # Streams of events never end by themselves.
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
        demo = Demo(studio, say) if settings.demo else None
        if demo is not None:
            demo.start()
        uvicorn.Server(config).run(sockets=[listening])
        if demo is not None:
            demo.stop()
    finally:
        listening.close()


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RunError(f"cannot listen on {host} port {port} ({reason}); name another --host or --port") from None
    return bound
