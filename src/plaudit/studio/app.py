"""The application: `create_app(settings)`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from plaudit import __version__
from plaudit.errors import PlauditError, is_no_room
from plaudit.studio import routes
from plaudit.studio.app_state import Studio
from plaudit.studio.database import is_full
from plaudit.studio.errors import StudioError
from plaudit.studio.middleware import BodyLimit, IdempotencyKeys, SecurityHeaders
from plaudit.studio.schemas import Problem
from plaudit.studio.settings import StudioSettings
from plaudit.studio.supervisor import Supervisor

STATIC = Path(__file__).parent / "static"


def create_app(settings: StudioSettings, worker: bool = True) -> FastAPI:
    """The studio of a folder as an ASGI application. worker: with a worker process beside it."""
    studio = Studio.open(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if worker:
            studio.supervisor = Supervisor(settings)
            studio.supervisor.start()
        try:
            yield
        finally:
            if studio.supervisor is not None:
                studio.supervisor.stop()
            studio.close()

    app = FastAPI(
        title="Plaudit studio",
        version=__version__,
        description="Generation, listening tests and tuning. Errors have one line in `detail` and a `code`.",
        lifespan=lifespan,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        # FastAPI names operations after functions, which are unique here.
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.studio = studio
    api = APIRouter(prefix="/api/v1", responses=_PROBLEMS)
    # Routes are tried in order; those of listeners, who are many, come first.
    names = sorted((module.name for module in pkgutil.iter_modules(routes.__path__)), key=lambda n: (n != "listen", n))
    for name in names:
        api.include_router(importlib.import_module(f"{routes.__name__}.{name}").router)
    app.include_router(api)
    _add_page(app)
    _add_error_handlers(app, settings)
    app.add_middleware(IdempotencyKeys, database=studio.database)
    app.add_middleware(BodyLimit)
    app.add_middleware(SecurityHeaders, host=settings.host)
    return app


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem, "description": text}
    for code, text in (
        (400, "The request can't be read"),
        (401, "Not logged in"),
        (403, "Not allowed"),
        (404, "Not there"),
        (405, "Not a method of this path"),
        (409, "Not in this state"),
        (410, "No longer there"),
        (413, "Too large"),
        (421, "Not a name of this machine"),
        (422, "A value that can't be used"),
        (507, "The disk is full"),
    )
}


def problem(status: int, detail: str, code: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error's answer."""
    return JSONResponse(Problem(detail=" ".join(detail.split()), code=code).model_dump(), status, headers)


def _add_error_handlers(app: FastAPI, settings: StudioSettings) -> None:
    @app.exception_handler(PlauditError)
    def plaudit_error(request: Request, error: PlauditError) -> Response:
        message = settings.without_paths(str(error))
        if isinstance(error, StudioError):
            headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
            return problem(error.status, message, error.code, headers)
        return problem(422, message, type(error).__name__.removesuffix("Error").lower() or "invalid")

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return problem(422, f"{where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}", "invalid")

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        code = {404: "not-found", 405: "method"}.get(error.status_code, "invalid")
        return problem(error.status_code, str(error.detail), code, dict(error.headers or {}) or None)

    @app.exception_handler(OSError)
    @app.exception_handler(OperationalError)
    def no_room(request: Request, error: Exception) -> Response:
        if is_no_room(error) or is_full(error):
            return problem(507, "the disk is full; free some space and try again", "disk-full")
        raise error

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> Response:
        return problem(500, "an internal error; the studio's console has the trace", "internal")


def _add_page(app: FastAPI) -> None:
    """The page: files of `static/` as they are; every other path outside the API is the page's own."""
    from starlette.staticfiles import StaticFiles

    if (STATIC / "assets").is_dir():
        app.mount("/assets", StaticFiles(directory=STATIC / "assets"), name="assets")

    @app.get("/{path:path}", include_in_schema=False)
    def page(path: str, request: Request) -> Response:
        if path.startswith("api/"):
            return problem(404, "there is no such path in the API", "not-found")
        name = "listen.html" if path.startswith("listen/") else "index.html"
        place = STATIC / name
        if not place.is_file():
            return problem(404, "this installation has no page; the API is under /api/v1", "not-found")
        html = place.read_text().replace("__CSP_NONCE__", request.state.nonce)
        return Response(html, media_type="text/html; charset=utf-8", headers={"cache-control": "no-store"})
