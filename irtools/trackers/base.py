"""What a tracker gets, and what it must do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

__all__ = ["TrackedRow", "TrackedRun", "Tracker"]


@dataclass(frozen=True)
class TrackedRow:
    """The model after one pass.

    Attributes:
        step: Number of the pass; 0 is the original.
        text: Text of the pass.
        metrics: Finite numbers by name. An interval is two more: `accuracy`, `accuracy_low`,
            `accuracy_high`.
    """

    step: int
    text: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class TrackedRun:
    """One pipeline over one model.

    Attributes:
        name: What people look for it by.
        parameters: What decided the result: the pipeline, options of passes, settings.
        tags: What it ran on: model, machine, versions.
        rows: The original, then one for each pass.
        files: Text of the files that belong to it, by name: `report.json`, `report.md`.
    """

    name: str
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    rows: tuple[TrackedRow, ...]
    files: Mapping[str, str]


class Tracker(Protocol):
    """Writes runs to where a team looks at them.

    The entry points `irtools.trackers` list the classes; one is made of what follows the name in
    `--track NAME:PLACE`.

    Attributes:
        name: Of the entry point.
    """

    name: ClassVar[str]

    def __init__(self, place: str | None) -> None: ...

    def check(self) -> None:
        """Find out what would be in the way, before anything is run.

        Raises:
            MissingExtraError: Its package is not installed.
            UsageError: The place is not one.
        """

    def log(self, run: TrackedRun) -> str:
        """Write a run; returns where it is, for people. May raise whatever its package raises."""
