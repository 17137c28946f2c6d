"""The page on which samples are tried, and what it asks."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from sse_starlette import EventSourceResponse

from irtools.errors import UsageError
from irtools.ui.bodies import body, json_body
from irtools.ui.events import follow
from irtools.ui.pages import page
from irtools.ui.run_routes import State
from irtools.ui.targets import target_names

__all__ = ["router"]

router = APIRouter()

_MOST_TOKENS = 512
_MOST_LETTERS = 100_000


@router.get("/try")
def show(state: State) -> Response:
    """Show what can be tried."""
    return page("try.html", "/try", models=state.models(), targets=target_names())


@router.post("/try/start")
async def start(request: Request, state: State) -> Response:
    """Start a trial: `model` (PATH@TARGET), `kind`, and `text` with `pair`, or `arrays`."""
    document = await json_body(request)
    number = state.start_trial(str(document.get("model", "")), _sample(document))
    return JSONResponse({"trial": number})


@router.post("/try/image")
async def image(request: Request, state: State, model: str) -> Response:
    """Start a trial with an image, which is the body; it is never written to disk."""
    sample = {"kind": "image", "image": await body(request)}
    return JSONResponse({"trial": state.start_trial(model, sample)})


@router.get("/try/{number}/events")
async def events(number: int, state: State) -> EventSourceResponse:
    """Send what comes out of a trial, token by token for a decoder."""
    watched = state.trial(number)

    def ended() -> dict[str, Any] | None:
        return {"outcome": watched.outcome, "error": watched.error} if watched.ended else None

    return follow(watched.since, ended)


def _sample(document: dict[str, Any]) -> dict[str, Any]:
    kind = document.get("kind")
    if kind not in ("text", "arrays"):
        raise UsageError(f"kind is {kind!r}, expected text or arrays")
    texts = {name: str(document.get(name, "")) for name in ("text", "pair", "arrays")}
    if any(len(text) > _MOST_LETTERS for text in texts.values()):
        raise UsageError(f"a text is longer than {_MOST_LETTERS} letters")
    try:
        tokens = int(document.get("new_tokens") or 32)
    except (TypeError, ValueError) as error:
        raise UsageError("new_tokens is not a number") from error
    if not 1 <= tokens <= _MOST_TOKENS:
        raise UsageError(f"new_tokens is {tokens}, expected 1 to {_MOST_TOKENS}")
    return {"kind": kind, "new_tokens": tokens, **texts}
