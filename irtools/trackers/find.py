"""Trackers by name, and what happens where one fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from irtools.errors import UsageError
from irtools.plugins import registry
from irtools.trackers.base import TrackedRun, Tracker
from irtools.words import one_line

__all__ = ["find_trackers", "log_run"]

_GROUP = "irtools.trackers"


def find_trackers(texts: Sequence[str]) -> tuple[Tracker, ...]:
    """Return the trackers that are named as `mlflow` or `mlflow:sqlite:///runs.db`, checked.

    Raises:
        UnknownNameError: There is none of that name.
        MissingExtraError: Its package is not installed.
        UsageError: The place is wrong, or a plug-in does not have check and log.
    """
    return tuple(map(_find, dict.fromkeys(texts)))


def log_run(
    trackers: Sequence[Tracker], run: TrackedRun, say: Callable[[str], None] = lambda line: None
) -> None:
    """Write a run to all trackers. One that fails costs a line, and not what was made."""
    for tracker in trackers:
        try:
            place = tracker.log(run)
        except Exception as error:  # Packages of others, which write over networks.
            reason = one_line(f"{type(error).__name__}: {error}")
            say(f"note: {tracker.name} did not take the run {run.name}: {reason}")
        else:
            say(f"{run.name}: tracked by {tracker.name}, {place}")


def _find(text: str) -> Tracker:
    name, colon, place = text.partition(":")
    kind = registry.load(_GROUP, name)
    if not callable(getattr(kind, "log", None)) or not callable(getattr(kind, "check", None)):
        raise UsageError(
            f"the plug-in {name!r} of {_GROUP} is {kind!r}, expected a class with check and log"
        )
    if colon and not place:
        raise UsageError(f"{text!r} names no place after the colon")
    made: Tracker = kind(place or None)
    made.check()
    return made
