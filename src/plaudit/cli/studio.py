"""`plaudit studio`: the web application."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from plaudit.cli.console import say
from plaudit.cli.options import options
from plaudit.errors import EngineError
from plaudit.studio.settings import StudioSettings

PACKAGES = ("fastapi", "uvicorn", "sqlalchemy", "alembic", "sse_starlette", "itsdangerous", "argon2", "multipart")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(studio)


@options(StudioSettings)
def studio(
    folder: Annotated[Path, typer.Argument(help="Folder of the studio; it is made where it is not there.")] = Path(
        "studio"
    ),
    *,
    settings: StudioSettings,
    new_token: Annotated[
        bool, typer.Option("--new-token", help="Print a new owner's token for the API, and stop.")
    ] = False,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Don't open a browser.")] = False,
) -> None:
    """Open the studio: generate clips, run listening tests, and tune models to the votes, in a browser.

    Everything is kept in FOLDER. The first start prints an owner's token for the API; each start prints a link to log
    in with that is valid for an hour.

    Examples: plaudit studio ~/studio --port 9000; plaudit studio --demo
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise EngineError(f"the studio needs {', '.join(missing)}; install it with: pip install 'plaudit[studio]'")
    settings = settings.model_copy(update={"folder": folder})
    if new_token:
        from plaudit.studio.app_state import Studio

        opened = Studio.open(settings)
        say(opened.new_owner_token())
        opened.close()
        return
    from plaudit.studio.server import serve

    serve(settings, browser=not no_browser, say=say)
