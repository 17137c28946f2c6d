"""Bodies of requests, within bounds."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request

from irtools.errors import DataError, LimitError
from irtools.words import size_text

__all__ = ["body", "form_pairs", "json_body"]

_MOST_BYTES = 32 << 20


async def body(request: Request, most: int = _MOST_BYTES) -> bytes:
    """Return the body of a request.

    Raises:
        LimitError: It is larger than `most` bytes.
    """
    parts: list[bytes] = []
    total = 0
    async for part in request.stream():
        total += len(part)
        if total > most:
            raise LimitError(f"more than {size_text(most)} were sent")
        parts.append(part)
    return b"".join(parts)


async def json_body(request: Request) -> dict[str, Any]:
    """Return the JSON object that a request holds.

    Raises:
        DataError: It holds none.
    """
    try:
        document = json.loads(await body(request))
    except (ValueError, RecursionError) as error:
        raise DataError(f"the request is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise DataError("the request is not a JSON object")
    return document


async def form_pairs(request: Request) -> list[tuple[str, str]]:
    """Return the fields of a form in their order."""
    text = (await body(request)).decode("utf-8", "replace")
    return parse_qsl(text, keep_blank_values=True, max_num_fields=2000)
