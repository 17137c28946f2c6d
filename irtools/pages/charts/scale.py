"""From numbers to places, and round numbers for the axis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Scale", "number_text"]


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic axis.

    Attributes:
        low: Number at the beginning.
        high: Number at the end.
        log: Equal factors are equally far apart; `low` is above 0 then.
    """

    low: float
    high: float
    log: bool = False

    @classmethod
    def of(cls, numbers: Iterable[float], *, log: bool = False, margin: float = 0.06) -> Scale:
        """Return an axis that has room for some numbers; what is not finite is left out.

        Args:
            log: Where all numbers are above 0; else the axis is linear.
            margin: Free share of the axis at either end.

        Raises:
            OverflowError: The numbers are too far apart for floats.
        """
        finite = [number for number in numbers if math.isfinite(number)]
        low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
        if not math.isfinite(high - low):
            raise OverflowError("an axis would be longer than floats are")
        if log and low > 0:
            wide = max(math.log(high / low), 0.05) * margin
            return cls(low * math.exp(-wide), high * math.exp(wide), True)
        # Numbers that no tick would tell apart are one.
        apart = high - low > 1e-6 * abs(high)
        wide = (high - low if apart else abs(high) or 1.0) * margin
        return cls(low - wide, high + wide)

    def place(self, number: float, first: float = 0.0) -> float:
        """Return where a number is: `first` at the beginning, 1 at the end, never beyond.

        What is not a number is at the beginning.
        """
        if number != number:
            return first
        if self.log:
            share = math.log(max(number, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (number - self.low) / (self.high - self.low)
        return first + (1 - first) * min(max(share, 0.0), 1.0)

    def ticks(self, most: int = 6) -> list[float]:
        """Return at most so many round numbers on the axis, and at least one."""
        if self.log:
            return self._log_ticks(most)
        step = _round_step((self.high - self.low) / most)
        first = math.ceil(self.low / step - 1e-9)
        found = [round(n * step, 12) for n in range(first, first + most + 1)]
        return [number for number in found if number <= self.high * (1 + 1e-12)] or [self.low]

    def _log_ticks(self, most: int) -> list[float]:
        bottom = math.floor(math.log10(self.low))
        top = math.ceil(math.log10(self.high))
        for digits in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
            all_ = (d * 10.0**power for power in range(bottom, top + 1) for d in digits)
            found = [number for number in all_ if self.low <= number <= self.high]
            if len(found) <= most:
                break
        found = found[:: -(-len(found) // most) or 1]
        return found if len(found) > 1 else Scale(self.low, self.high).ticks(most)


def number_text(number: float, digits: int = 4) -> str:
    """Return a number in some digits, large ones grouped: `0.01234`, `3.142`, `12,300`."""
    if not math.isfinite(number):
        return str(number)
    if number == 0 or abs(number) >= 1000:
        return f"{number:,.0f}"
    return f"{number:.{digits}g}"


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))
