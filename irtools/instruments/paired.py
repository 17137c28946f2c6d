"""Figures that compare the result with the original once, at the end of a run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from irtools.errors import DataError, UnsupportedError
from irtools.measure.figures import Figure, Occasion
from irtools.measure.own_machine import why_not_timed
from irtools.measure.shapes import bench_feeds
from irtools.passmanager import Instrument, Step
from irtools.targets import Feeds, target_text

__all__ = ["Paired"]

_ROUNDS = 3


class Paired(Instrument):
    """Measures original and result in alternation, each round in processes of their own.

    Derive from it and say what one measurement is and what several make together. Both models
    get the figure; passes between them have none.

    Args:
        occasion: Where models run, and on what.
    """

    what: ClassVar[str]

    def __init__(self, occasion: Occasion) -> None:
        self._occasion = occasion
        self._original: Step | None = None

    @abstractmethod
    def measure(self, model: Path, target: str, feeds: Feeds, label: str) -> Any:
        """Measure a model once, in a child process."""

    @abstractmethod
    def figure(self, found: Sequence[Any]) -> Figure:
        """Make the figure of a model from the answers of all rounds."""

    def begin(self, step: Step) -> None:
        self._original = step

    def end(self, step: Step) -> None:
        assert self._original is not None
        reason = self._why_not() or why_not_timed(self._occasion.target)
        if not reason:
            try:
                self._compare(self._original, step)
            except (DataError, UnsupportedError) as error:
                reason = str(error)
        if reason:
            self._original.figures.notes.append(f"{self.what} is not measured: {reason}")

    def _why_not(self) -> str:
        """Return why nothing can be measured on this machine; empty where it can."""
        return ""

    def _compare(self, first: Step, last: Step) -> None:
        place = self._occasion
        shapes = bench_feeds(last.original, place.bench, place.data, place.seed, place.adapt)
        feeds = next(iter(shapes.values()))
        steps = {"the original": first, "the result": last}
        models = {
            "the original": last.workspace.timed_path(last.original),
            "the result": last.workspace.timed_path(last.deployed),
        }
        found: dict[str, list[Any]] = {name: [] for name in models}
        text = target_text(place.target)
        for number in range(_ROUNDS):
            last.ctx.progress.step(self.what, number, _ROUNDS)
            for name, model in models.items():
                found[name].append(self.measure(model, text, feeds, f"{self.what} of {name}"))
        for name, step in steps.items():
            step.figures.put(self.figure(found[name]))
