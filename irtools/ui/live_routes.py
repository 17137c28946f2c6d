"""The page of live measurements, and what it asks."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from sse_starlette import EventSourceResponse

from irtools.errors import DataError, UsageError
from irtools.ui.bodies import json_body
from irtools.ui.events import follow
from irtools.ui.pages import page
from irtools.ui.run_routes import State
from irtools.ui.targets import target_names

__all__ = ["router"]

router = APIRouter()

_INTEGERS = ("batch", "sequence", "past", "threads", "clients")


@router.get("/live")
def live(state: State) -> Response:
    """Show what can be measured, and what is."""
    running = state.live is not None and not state.live.ended
    return page(
        "live.html", "/live", models=state.models(), targets=target_names(), running=running
    )


@router.post("/live/start")
async def start(request: Request, state: State) -> Response:
    """Start: `use` (list of PATH@TARGET), and fields of the settings."""
    document = await json_body(request)
    state.start_live(_texts(document.get("use")), _settings(document))
    return JSONResponse({"contenders": list(state.contenders)})


@router.post("/live/stop")
async def stop(state: State) -> Response:
    """End the measurement."""
    state.stop_live()
    return JSONResponse({"stopped": True})


@router.get("/live/events")
async def events(state: State) -> EventSourceResponse:
    """Send the points of the measurement from its beginning, until it ends."""
    watched = state.live
    if watched is None:
        raise UsageError("nothing is measured")

    def ended() -> dict[str, Any] | None:
        return {"outcome": watched.outcome, "error": watched.error} if watched.ended else None

    return follow(watched.since, ended)


@router.post("/live/save")
async def save(request: Request, state: State) -> Response:
    """Write what was measured as a benchmark: `name`."""
    document = await json_body(request)
    return JSONResponse({"path": state.save_bench(str(document.get("name", "")))})


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise DataError("`use` is not a list of PATH@TARGET")
    return value


def _settings(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"mode": document.get("mode", "alternating")}
    try:
        for name in _INTEGERS:
            if document.get(name) not in (None, ""):
                found[name] = int(document[name])
        if document.get("seconds") not in (None, ""):
            found["seconds"] = float(document["seconds"])
    except (TypeError, ValueError) as error:
        raise UsageError(f"a setting is not a number: {error}") from error
    return found
