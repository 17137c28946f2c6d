"""Trackers by name."""

from __future__ import annotations

from collections.abc import Sequence

from irtools.errors import UsageError
from irtools.plugins import registry
from irtools.trackers.base import Tracker

__all__ = ["find_trackers"]

_GROUP = "irtools.trackers"


def find_trackers(texts: Sequence[str]) -> tuple[Tracker, ...]:
    """Return the trackers that are named as `mlflow` or `mlflow:sqlite:///runs.db`, checked.

    Raises:
        UnknownNameError: There is none of that name.
        MissingExtraError: Its package is not installed.
        UsageError: The place is wrong, or a plug-in does not have check and start.
    """
    return tuple(map(_find, dict.fromkeys(texts)))


def _find(text: str) -> Tracker:
    name, colon, place = text.partition(":")
    kind = registry.load(_GROUP, name)
    if not callable(getattr(kind, "start", None)) or not callable(getattr(kind, "check", None)):
        raise UsageError(
            f"the plug-in {name!r} of {_GROUP} is {kind!r}, expected a class with check and start"
        )
    if colon and not place:
        raise UsageError(f"{text!r} names no place after the colon")
    made: Tracker = kind(place or None)
    made.check()
    return made
