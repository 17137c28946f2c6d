"""How soon a model answers its first request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from irtools.instruments.paired import Paired
from irtools.measure.base import LatencyResult
from irtools.measure.figures import Column, Figure, Measured, Occasion
from irtools.measure.jobs import run_first
from irtools.measure.sandbox import ChildLimits, run_isolated
from irtools.targets import Feeds, RunnerOptions

__all__ = ["FirstRun", "FirstRunTime"]

_SECONDS = 900.0


def _cell(figure: FirstRun, original: FirstRun | None) -> str:
    shown = f"{figure.seconds:.2f} s"
    if original is None or original is figure:
        return shown
    return f"{shown} ({original.seconds / figure.seconds:.2f}x)"


@dataclass(frozen=True)
class FirstRun(Figure):
    """Time from a file on disk to the first answer, in a process that has the runtime loaded.

    Medians over several processes each, alternating with the original; the file is in the system's
    cache. A benchmark has it of the processes that it times models in; without one, `--figures
    first-run` measures it in three.

    Attributes:
        load_seconds: Reading, optimizing and compiling.
        first_seconds: The first inference after that.
    """

    key: ClassVar[str] = "first_run"
    rank: ClassVar[int] = 32
    columns: ClassVar[tuple[Column, ...]] = (Column("first run", _cell),)

    load_seconds: float
    first_seconds: float

    @property
    def seconds(self) -> float:
        """Both together."""
        return self.load_seconds + self.first_seconds

    @classmethod
    def of_timed(cls, timed: LatencyResult) -> FirstRun:
        """Make the figure of a benchmark's processes."""
        return cls(timed.load_seconds, timed.first_seconds)

    @classmethod
    def instrument(cls, occasion: Occasion) -> FirstRunTime:
        return FirstRunTime(occasion)

    @classmethod
    def summary(cls, rows: Sequence[Measured]) -> Iterator[str]:
        first, last = cls.of(rows[0]), cls.of(rows[-1])
        if first is not None and last is not None and first is not last:
            yield f"first answer after {last.seconds:.2f} s (original {first.seconds:.2f} s)"

    @classmethod
    def legend(cls, report: Any) -> Iterator[str]:
        if any(cls.of(row) for row in report.rows):
            yield "first run: load and first inference, median over processes"


class FirstRunTime(Paired):
    """Times load and first inference of the original and of the result."""

    name: ClassVar[str] = "first-run"
    what: ClassVar[str] = "the first run"

    def measure(self, model: Path, target: str, feeds: Feeds, label: str) -> Any:
        options = RunnerOptions(threads=self._occasion.bench.threads)
        limits = ChildLimits(seconds=_SECONDS)
        return run_isolated(
            run_first, model, target, options, dict(feeds), limits=limits, label=label
        )

    def figure(self, found: Sequence[Any]) -> FirstRun:
        return FirstRun(
            *(float(np.median([one[key] for one in found])) for key in ("load", "first"))
        )
