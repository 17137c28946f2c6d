"""Figures: what is measured of a model after a step, how it is shown and what it means.

A figure is a frozen dataclass that derives from `Figure`; its fields are its entry in the JSON
report and in the report's schema. It says itself how the table shows it and which sentences
follow from it. The entry points `irtools.figures` list all of them.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from irtools.measure.memory import forget_peak, peak_memory

if TYPE_CHECKING:
    from irtools.data import Dataset, SyntheticSettings
    from irtools.measure.base import BenchSettings
    from irtools.targets import Target

__all__ = ["Column", "Figure", "Figures", "Level", "Measured", "Occasion", "Verdict"]

F = TypeVar("F", bound="Figure")


class Level(enum.Enum):
    """How much a verdict matters."""

    GOOD = "good"
    NOTE = "note"
    WARNING = "warning"


@dataclass(frozen=True)
class Verdict:
    """One sentence on what figures mean."""

    level: Level
    text: str


@dataclass(frozen=True)
class Column:
    """A column of the report's table.

    Attributes:
        heading: Its heading.
        cell: Makes the text of a cell of the figure of a row and that of the original, which is
            None where it was not measured. A column without any text is left out.
    """

    heading: str
    cell: Callable[[Any, Any], str]


class Measured(Protocol):
    """One row of a report, as figures see it."""

    @property
    def index(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def modified(self) -> bool: ...
    @property
    def remedies(self) -> tuple[str, ...]: ...
    @property
    def figures(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Occasion:
    """What a figure that is measured on request may use.

    Attributes:
        target: Where models run.
        bench: Shapes, threads and rounds of the benchmark.
        data: Real samples, for inputs that cannot be drawn.
        seed: Seed of drawn inputs.
        adapt: Puts sizes on which the model runs into settings for drawing inputs.
    """

    target: Target
    bench: BenchSettings
    data: Dataset | None
    seed: int
    adapt: Callable[[SyntheticSettings], SyntheticSettings]


class Figure:
    """Base of all figures; derive frozen dataclasses from it.

    Attributes:
        key: Name of its entry in a row of the report.
        rank: Place of its columns and sentences among those of other figures.
        headline: Place of its part in the sentence on the result, before `rank`.
        columns: Columns of the table.
        is_flat: A data frame has a column for each of its fields; not of lists of any length.
    """

    key: ClassVar[str]
    rank: ClassVar[int] = 100
    headline: ClassVar[int] = 50
    columns: ClassVar[tuple[Column, ...]] = ()
    is_flat: ClassVar[bool] = True

    @classmethod
    def instrument(cls, occasion: Occasion) -> Any:
        """Return the instrument that measures it on request; None: it has no such instrument."""
        return None

    @classmethod
    def verdicts(cls, rows: Sequence[Measured]) -> Iterator[Verdict]:
        """Yield what a reader must not overlook; the first row is the original."""
        return iter(())

    @classmethod
    def summary(cls, rows: Sequence[Measured]) -> Iterator[str]:
        """Yield parts of the sentence on the result (`2.10x faster`)."""
        return iter(())

    @classmethod
    def legend(cls, report: Any) -> Iterator[str]:
        """Yield what a reader must know to understand the columns; of a whole report."""
        return iter(())

    @classmethod
    def made_of(cls: type[F], found: Any) -> F:
        """Make the figure of a measurement: all fields of that are fields of the figure."""
        return cls(**{f.name: getattr(found, f.name) for f in fields(found)})

    @classmethod
    def of(cls: type[F], row: Measured) -> F | None:
        """Return the figure of a row; None where it was not measured."""
        found = row.figures.get(cls.key)
        return found if isinstance(found, cls) else None


@dataclass
class Figures:
    """What was found out about the model after a step, while the run goes on.

    Attributes:
        seconds: Wall time by activity: `pass`, then one per instrument.
        peak_bytes: Peak resident memory of this process by activity, mapped weights included;
            empty where the system does not report it. Child processes count by themselves.
        checks: Names of the checks that held (`verifier`, `numerics`).
        notes: Sentences that a reader must see.
        found: The figures by key.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    checks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    found: dict[str, Figure] = field(default_factory=dict)

    def put(self, *figures: Figure | None) -> None:
        """Set figures; None stands for one that was not measured."""
        self.found.update({figure.key: figure for figure in figures if figure is not None})

    def get(self, kind: type[F]) -> F | None:
        """Return a figure; None where it was not measured."""
        found = self.found.get(kind.key)
        return found if isinstance(found, kind) else None

    @contextmanager
    def spent_on(self, activity: str) -> Iterator[None]:
        """Count time and peak memory of what happens inside to an activity."""
        knows = forget_peak()
        started = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - started
            self.seconds[activity] = self.seconds.get(activity, 0.0) + spent
            if knows:
                peak = max(self.peak_bytes.get(activity, 0), peak_memory())
                self.peak_bytes[activity] = peak
