"""Server-sent events of things that go on: a live measurement, a trial, a job."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from sse_starlette import EventSourceResponse

__all__ = ["follow"]

_INTERVAL_SECONDS = 0.25

Since = Callable[[int], tuple[list[Any], int]]


def follow(since: Since, ended: Callable[[], dict[str, Any] | None]) -> EventSourceResponse:
    """Return a response that sends each message as an event `message`, four times a second.

    Args:
        since: Returns the messages from a number on, and the number of the next one.
        ended: Returns the document of the last event, `end`, or None while there may be more.
    """

    async def events() -> AsyncIterator[dict[str, str]]:
        number = 0
        while True:
            last = ended()  # Before the messages, so that none of them is missed.
            messages, number = since(number)
            for message in messages:
                yield {"event": "message", "data": json.dumps(message)}
            if last is not None:
                yield {"event": "end", "data": json.dumps(last)}
                return
            await asyncio.sleep(_INTERVAL_SECONDS)

    return EventSourceResponse(events(), ping=15)
