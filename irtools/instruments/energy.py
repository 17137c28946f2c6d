"""Energy of an inference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from irtools.instruments.paired import Paired
from irtools.measure.energy import POWERCAP, find_zones, run_counted, why_no_zones
from irtools.measure.figures import Column, Figure, Measured, Occasion
from irtools.measure.sandbox import ChildLimits, run_isolated
from irtools.targets import Feeds, RunnerOptions

__all__ = ["Energy", "EnergyMeter"]

_SECONDS = 2.0
_LIMIT = 900.0


def _cell(figure: Energy, original: Energy | None) -> str:
    shown = f"{1e3 * figure.joules:.1f} mJ"
    if original is None or original is figure or not figure.joules:
        return shown
    return f"{shown} ({original.joules / figure.joules:.2f}x)"


@dataclass(frozen=True)
class Energy(Figure):
    """Energy of the CPU packages while the model runs without a pause.

    The idle power of the packages and whatever else runs is counted as well.

    Attributes:
        joules: Per inference, median of the rounds.
        watts: Mean power, median of the rounds.
        runs: Inferences in all.
    """

    key: ClassVar[str] = "energy"
    rank: ClassVar[int] = 34
    columns: ClassVar[tuple[Column, ...]] = (Column("energy", _cell),)

    joules: float
    watts: float
    runs: int

    @classmethod
    def instrument(cls, occasion: Occasion) -> EnergyMeter:
        return EnergyMeter(occasion)

    @classmethod
    def summary(cls, rows: Sequence[Measured]) -> Iterator[str]:
        first, last = cls.of(rows[0]), cls.of(rows[-1])
        if first is not None and last is not None and first is not last and first.joules:
            yield f"{100 * last.joules / first.joules:.0f} % of the original's energy"

    @classmethod
    def legend(cls, report: Any) -> Iterator[str]:
        if any(cls.of(row) for row in report.rows):
            yield "energy: of the CPU packages per inference, idle power included"


class EnergyMeter(Paired):
    """Counts the energy of the original and of the result.

    Args:
        occasion: Where models run, and on what.
        root: Where the counters lie.
    """

    name: ClassVar[str] = "energy"
    what: ClassVar[str] = "the energy"

    def __init__(self, occasion: Occasion, root: Path = POWERCAP) -> None:
        super().__init__(occasion)
        self._root = root
        self._zones = find_zones(root)

    def _why_not(self) -> str:
        return "" if self._zones else why_no_zones(self._root)

    def measure(self, model: Path, target: str, feeds: Feeds, label: str) -> Any:
        return run_isolated(
            run_counted,
            model,
            target,
            RunnerOptions(threads=self._occasion.bench.threads),
            dict(feeds),
            _SECONDS,
            [list(astuple(zone)) for zone in self._zones],
            limits=ChildLimits(seconds=_LIMIT),
            label=label,
        )

    def figure(self, found: Sequence[Any]) -> Energy:
        return Energy(
            joules=float(np.median([one["joules"] / one["runs"] for one in found])),
            watts=float(np.median([one["joules"] / _SECONDS for one in found])),
            runs=sum(one["runs"] for one in found),
        )
