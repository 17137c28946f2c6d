"""What was measured of a model, as goals see it."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

__all__ = ["Answer", "Interval", "Observed"]


class Answer(enum.Enum):
    """Whether a goal is kept."""

    YES = "yes"
    NO = "no"
    UNDECIDED = "undecided"
    """The interval of the figure holds the bound, or the figure was not measured."""


@dataclass(frozen=True)
class Interval:
    """A figure and the interval that it lies in; of what is counted both ends are the figure."""

    value: float
    low: float
    high: float

    @classmethod
    def exact(cls, value: float) -> Interval:
        """Return the interval of a figure without an error."""
        return cls(value, value, value)

    def scaled(self, factor: float) -> Interval:
        """Return the interval of a positive multiple of the figure."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)

    def over(self, base: float) -> Interval:
        """Return the interval of the figure relative to another one; infinite over nothing."""
        return self.scaled(1 / base) if base > 0 else Interval(math.inf, math.inf, math.inf)


@dataclass(frozen=True)
class Observed:
    """The figures of a model and of the original that it is compared with.

    Attributes:
        result: Figure to interval: `loss:METRIC`, `metric:METRIC` of each metric, the first one
            the main one, `speedup`, `latency` in ms, `size` and `memory` in bytes.
        original: The same of the original.
    """

    result: Mapping[str, Interval] = field(default_factory=dict)
    original: Mapping[str, Interval] = field(default_factory=dict)

    def find(self, figure: str, metric: str | None) -> tuple[Interval | None, float | None]:
        """Return a figure of the model and the original's; of no metric that of the main one."""
        for key in self._keys(figure, metric):
            if (found := self.result.get(key)) is not None:
                base = self.original.get(key)
                return found, None if base is None else base.value
        return None, None

    def _keys(self, figure: str, metric: str | None) -> Iterator[str]:
        if metric is not None:
            yield f"{figure}:{metric}"
            return
        yield figure
        yield from (key for key in self.result if key.startswith(f"{figure}:"))
