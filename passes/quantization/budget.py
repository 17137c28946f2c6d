"""What a choice among bits may use up: read from the options of a pass in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from irtools.errors import OptionError
from irtools.goals import read_size

if TYPE_CHECKING:
    from irtools.passes.quantization.times import Clock

__all__ = ["Budget", "read_budget"]


@dataclass(frozen=True)
class Budget:
    """What may be used up. Where nothing is set: as much error as one form for all has.

    Attributes:
        size: Bytes of all weights of the model afterwards; None: no limit.
        least_db: Decibels of the outputs that must be kept; None: no limit.
        clock: Times of all forms, and what they may add up to; None: no limit.
    """

    size: int | None = None
    least_db: float | None = None
    clock: Clock | None = None


class Bounded(Protocol):
    """A pass whose options bound a choice among bits."""

    @property
    def bits(self) -> str: ...

    @property
    def size(self) -> str: ...

    @property
    def min_sqnr(self) -> float | None: ...

    @property
    def max_latency(self) -> float | None: ...


def read_budget(given: Bounded, *, why_fixed: str, needs_one: str = "") -> Budget:
    """Return the bounds of size and error; those of time take a clock, `start_clock`.

    Args:
        given: A pass; it chooses among bits where they are `auto`.
        why_fixed: What to say of a bound where it does not.
        needs_one: What to say where it chooses and has no bound; empty: it needs none.

    Raises:
        OptionError: A value is wrong, or bounds and bits do not go together.
    """
    named = {
        "size": bool(given.size),
        "min-sqnr": given.min_sqnr is not None,
        "max-latency": given.max_latency is not None,
    }
    name = next((name for name, is_given in named.items() if is_given), "")
    if name and given.bits != "auto":
        raise OptionError(f"{name} needs bits=auto: {why_fixed}")
    if needs_one and given.bits == "auto" and not name:
        raise OptionError(needs_one)
    if given.max_latency is not None and not 0 < given.max_latency < math.inf:
        raise OptionError(f"max-latency is {given.max_latency}, expected milliseconds above 0")
    if given.min_sqnr is not None and not math.isfinite(given.min_sqnr):
        raise OptionError(f"min-sqnr is {given.min_sqnr}, expected a number of decibels")
    return Budget(read_size(given.size, "size") if given.size else None, given.min_sqnr)
