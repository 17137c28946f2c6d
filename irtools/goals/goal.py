"""One goal: a figure and its bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from irtools.errors import OptionError, UsageError
from irtools.goals.amounts import SHARE, SIZE, SPEED, TIME, Scale
from irtools.goals.interval import Answer, Observed
from irtools.words import size_text

__all__ = ["KINDS", "Goal", "Kind"]


@dataclass(frozen=True)
class Kind:
    """What can be asked for.

    Attributes:
        figure: What is compared with the bound, as `Observed` names it.
        scale: How bounds are written.
        at_least: The bound is the least figure that will do; else the largest.
        needs: What it is measured with: `data`, `times`, or nothing but the model's `file`.
        per_metric: It may be set for each metric.
    """

    figure: str
    scale: Scale
    at_least: bool
    needs: Literal["data", "times", "file"]
    per_metric: bool = False


KINDS: Mapping[str, Kind] = {
    "max-drop": Kind("loss", SHARE, False, "data", per_metric=True),
    "min-metric": Kind("metric", SHARE, True, "data", per_metric=True),
    "speedup": Kind("speedup", SPEED, True, "times"),
    "max-latency": Kind("latency", TIME, False, "times"),
    "max-size": Kind("size", SIZE, False, "file"),
    "max-memory": Kind("memory", SIZE, False, "times"),
}
"""Name, that of the option of `irc optimize`, to what it asks for."""


@dataclass(frozen=True)
class Goal:
    """A figure that a model must reach or not exceed. Prints as it is read.

    Attributes:
        name: One of `KINDS`.
        bound: A share (0.01), a factor, ms or bytes.
        relative: The bound is a multiple of the original's figure.
        metric: The metric that it is about; None: the main one.

    Raises:
        UsageError: A bound that no model can keep, or that every model keeps.
    """

    name: str
    bound: float
    relative: bool = False
    metric: str | None = None

    def __post_init__(self) -> None:
        if self.name not in KINDS:
            raise OptionError(f"there is no goal {self.name!r}, expected one of {', '.join(KINDS)}")
        if self.metric is not None and not self.kind.per_metric:
            raise OptionError(f"{self.name} is not about a metric, and {self.metric!r} is named")
        if (wrong := self._wrong()) is not None:
            raise UsageError(f"{self.name} is {self.bound_text}, expected {wrong}")

    def _wrong(self) -> str | None:
        match self.name:
            case "max-drop" if not 0 <= self.bound <= 1:
                return "0 to 1 (0.01 or 1%)"
            case "speedup" if not self.bound > 1:
                return "more than 1"
            case "max-latency" | "max-size" | "max-memory" if not self.bound > 0:
                return "more than 0"
        return None

    @classmethod
    def parse(cls, name: str, text: str) -> Goal:
        """Read the bound of a goal: `1%`, of a metric `f1-macro=1%`.

        Raises:
            OptionError: There is no such goal, or the text is not a bound of it.
            UsageError: As the class.
        """
        if name not in KINDS:
            raise OptionError(f"there is no goal {name!r}, expected one of {', '.join(KINDS)}")
        metric, _, amount = text.rpartition("=")
        bound, relative = KINDS[name].scale.read(amount, name)
        return cls(name, bound, relative, metric or None)

    @property
    def kind(self) -> Kind:
        """What it asks for."""
        return KINDS[self.name]

    @property
    def bound_text(self) -> str:
        """The bound as it is written."""
        return self.kind.scale.write(self.bound, relative=self.relative)

    def holds(self, observed: Observed) -> Answer:
        """Whether the whole interval of the figure is on the right side of the bound."""
        found, base = observed.find(self.kind.figure, self.metric)
        if found is None or (self.relative and base is None):
            return Answer.UNDECIDED
        if self.relative:
            assert base is not None
            found = found.over(abs(base))
        if self.kind.at_least:
            kept, broken = found.low >= self.bound, found.high < self.bound
        else:
            kept, broken = found.high <= self.bound, found.low > self.bound
        return Answer.YES if kept else Answer.NO if broken else Answer.UNDECIDED

    def misses(self, observed: Observed) -> bool:
        """Whether the figure itself, whatever its interval, is on the wrong side of the bound."""
        found, base = observed.find(self.kind.figure, self.metric)
        if found is None or (self.relative and base is None):
            return True
        value = found.over(abs(base)).value if self.relative and base is not None else found.value
        return value < self.bound if self.kind.at_least else value > self.bound

    def shown(self, observed: Observed) -> str:
        """Return the figure as a reader wants it: `0.40 % [-0.10, 0.90]`; empty: not measured."""
        found, _ = observed.find(self.kind.figure, self.metric)
        if found is None:
            return ""
        match self.kind.figure:
            case "loss":
                low, high = 100 * found.low, 100 * found.high
                return f"{100 * found.value:.2f} % [{low:.2f}, {high:.2f}]"
            case "metric":
                return f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"
            case "speedup":
                return f"{found.value:.2f}x [{found.low:.2f}, {found.high:.2f}]"
            case "latency":
                return f"{found.value:.2f} ms [{found.low:.2f}, {found.high:.2f}]"
        return size_text(round(found.value))

    def __str__(self) -> str:
        about = f"{self.metric}=" if self.metric is not None else ""
        return f"{self.name}={about}{self.bound_text}"
