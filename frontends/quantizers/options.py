"""Options of a tool's methods, read from text."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from irtools.errors import OptionError
from irtools.plugins import suggest
from irtools.sources import QuantizerRequest

__all__ = ["Reader", "flag", "positive", "read_options", "share", "whole"]

Reader: TypeAlias = Callable[[str], object]
"""Turns text into a value; raises ValueError with what was expected."""


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return a reader of whole numbers within limits."""

    def read(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return read


def flag(text: str) -> bool:
    """Read true or false."""
    if text not in ("true", "false"):
        raise ValueError("true or false")
    return text == "true"


def share(text: str) -> float:
    """Read a number between 0 and 1."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < 1:
            return float(text)
    raise ValueError("a number between 0 and 1")


def positive(text: str) -> float:
    """Read a number above 0."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise ValueError("a number above 0")


def read_options(
    request: QuantizerRequest, known: Mapping[str, Reader], defaults: Mapping[str, object]
) -> dict[str, Any]:
    """Return the options of a request with the defaults of those that it does not name.

    Raises:
        OptionError: One that is not known, or whose value is wrong; a group of 0.
    """
    values, where = dict(defaults), f"{request.tool}:{request.method}"
    for name, text in request.options:
        if name not in known:
            raise OptionError(f"{where} has no option {name!r}{suggest(name, known)}")
        try:
            values[name] = known[name](text)
        except ValueError as error:
            raise OptionError(f"{where}: {name} is {text!r}, expected {error}") from None
    if values["group_size"] == 0:
        raise OptionError(f"{request.tool}: group_size is 0, expected -1 (whole rows) or more")
    return values
