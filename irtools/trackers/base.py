"""What a tracker gets, and what it must do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

__all__ = ["OpenRun", "RunEnd", "RunStart", "TrackedRow", "Tracker"]


@dataclass(frozen=True)
class RunStart:
    """A run that begins.

    Attributes:
        name: What people look for it by.
        parameters: What is known to decide the result: the pipeline, where it is given.
        tags: What it is about: the source.
        parent: The run of the same tracker that it is a part of: one build of several; None: none.
    """

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    parent: Any = None


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
class RunEnd:
    """What is known when a run ends.

    Attributes:
        failure: Why nothing was made; empty: it was.
        parameters: What decided the result, without those that the run began with.
        tags: What it ran on: model, machine, versions.
        files: Text of the files that belong to it, by name: `report.json`, `report.md`.
    """

    failure: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


class OpenRun(Protocol):
    """A run of a tracker that goes on. Every method may raise whatever its package raises.

    Attributes:
        place: Where it is, for people.
    """

    place: str

    def row(self, row: TrackedRow) -> None:
        """Add the figures of a pass that is done; later ones of the same step replace them."""

    def tag(self, name: str, value: str) -> None:
        """Add something to read: what a search tried."""

    def end(self, end: RunEnd) -> None:
        """End the run: as failed where it has a failure."""


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

    def start(self, run: RunStart) -> OpenRun:
        """Begin a run. May raise whatever its package raises."""
