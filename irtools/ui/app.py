"""The application: its routes, and what every answer to a mistake looks like."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles

from irtools.errors import FileError, IrtoolsError, UnknownNameError
from irtools.pages.policy import asset
from irtools.ui import job_routes, live_routes, run_routes, try_routes
from irtools.ui.guard import Access, Guard
from irtools.ui.pages import STATIC, page
from irtools.ui.state import UiState

__all__ = ["make_app"]

_MOST_LOGIN_BYTES = 1000


def make_app(state: UiState, access: Access) -> FastAPI:
    """Return the application; the state is closed when it ends.

    Args:
        state: What it shows.
        access: Who may ask.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        state.close()

    # Swagger's page loads scripts from another host, and nothing here does.
    app = FastAPI(title="irc ui", lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.ui = state
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for routes in (run_routes, live_routes, try_routes, job_routes):
        app.include_router(routes.router)

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> FileResponse:
        return FileResponse(STATIC / "icon.svg", media_type="image/svg+xml")

    @app.get("/shared.css", include_in_schema=False)
    async def style() -> Response:
        return Response(asset("base.css"), media_type="text/css")

    @app.post("/login", include_in_schema=False)
    async def login(request: Request) -> Response:
        """Turn the token, which the address has after its #, into a cookie for this browser."""
        content = await request.body()
        if len(content) > _MOST_LOGIN_BYTES or not access.is_token(_token_in(content)):
            return JSONResponse({"error": "a wrong token"}, status_code=401)
        answer = JSONResponse({"ok": True})
        answer.set_cookie(access.cookie, access.token, httponly=True, samesite="strict", path="/")
        return answer

    @app.exception_handler(IrtoolsError)
    async def explain(request: Request, error: Exception) -> Response:
        """Answer in one line: to scripts as JSON, to people as a page."""
        missing = isinstance(error, (FileError, UnknownNameError))
        status = 404 if missing else 400
        if "text/html" not in request.headers.get("accept", ""):
            return JSONResponse({"error": str(error)}, status_code=status)
        return page("problem.html", "", status, problem=str(error))

    app.add_middleware(Guard, access=access)
    return app


def _token_in(content: bytes) -> str:
    try:
        document: Any = json.loads(content)
        return str(document["token"])
    except (ValueError, TypeError, KeyError):
        return ""
