"""How much is measured: planned from what one run of this model costs.

Three sizes of effort, or a number of seconds, become a plan: on how many samples models are
compared and scored, which of them are timed, and for how long.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from irtools.errors import UsageError
from irtools.measure.base import BenchSettings
from irtools.words import counted

__all__ = ["Effort", "MeasuringPlan", "TimedModels", "Workload", "plan_measuring"]

TimedModels = Literal["each", "end", "last", "none"]
"""Which models are timed: after each pass; after each lossy pass and the last of passes in a row
that promise the same function; only the result; none."""

_TIME = re.compile(r"(\d+(?:\.\d+)?)(s|m)?")
_SHARES = {"bench": 0.4, "metric": 0.4, "fidelity": 0.1}
"""Of a number of seconds; the rest is for loading models and for checks."""
_LEAST_BENCH_SECONDS = 4.0
_LEAST_SAMPLES = 8
_DRAWN = (2, 0.25)
"""Fewest samples, and share of the seconds, where samples are drawn: more say little more."""
_SLOW_SECONDS = 2.0
"""A model that needs longer for a sample is timed at the end alone."""
_DRAWN_TEXT = 0.1
"""Share of the seconds for text where prompts are drawn: no text that anybody would ask for."""


@dataclass(frozen=True)
class Effort:
    """How much time measuring may take.

    Attributes:
        name: `quick`, `normal`, `thorough`, or a number of seconds.
        seconds: That number; None: by the name.
    """

    name: str = "normal"
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str | float) -> Effort:
        """Read `quick`, `normal`, `thorough`, `90`, `90s` or `2m`.

        Raises:
            UsageError: Something else, or no time at all.
        """
        name = str(text).strip().lower()
        if name in _LIMITS:
            return cls(name)
        match = _TIME.fullmatch(name)
        seconds = 0.0 if match is None else float(match[1]) * (60 if match[2] == "m" else 1)
        if not seconds:
            raise UsageError(
                f"effort is {text!r}, expected quick, normal, thorough or seconds (90 or 2m)"
            )
        return cls(f"{seconds:g} s", seconds)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Workload:
    """What there is to measure.

    Attributes:
        samples: Samples of the data that models are judged on.
        evaluated: Models that are evaluated, the original among them.
        timed: Models that would be timed with `end`.
        scored: There is a task metric, or a budget that hangs on all of the data.
        drawn: The data is not real data.
    """

    samples: int = 0
    evaluated: int = 1
    timed: int = 1
    scored: bool = False
    drawn: bool = False


@dataclass(frozen=True)
class MeasuringPlan:
    """What is measured, on how much. Prints as a sentence.

    Attributes:
        effort: What it was planned for.
        seconds_per_sample: Cost of one sample in one run of the original; None: nothing ran.
        fidelity_samples: Samples on which models are compared with the original.
        metric_samples: Samples for the metric of the original and of the last lossy pass.
        inner_samples: Samples for the metric after other lossy passes.
        inherits: Passes that keep the function on a few samples have the figures of the model
            before them.
        timed: Which models are timed.
        bench_seconds: Bound on the time of one comparison.
        rounds: Rounds of alternating blocks before its interval is looked at.
        block_seconds: Time of one block.
        width: Half width of the interval at which it ends.
        text_seconds: Bound on letting a decoder write; fewer tokens are compared above it.
        numerics_feeds: Feeds on which numbers before and after a pass are compared.
    """

    effort: str
    seconds_per_sample: float | None
    fidelity_samples: int
    metric_samples: int
    inner_samples: int
    inherits: bool
    timed: TimedModels
    bench_seconds: float
    rounds: int
    block_seconds: float
    width: float
    text_seconds: float
    numerics_feeds: int

    def bench(self, given: BenchSettings) -> BenchSettings:
        """Return how models are timed; what a caller set otherwise than by default is kept."""
        from dataclasses import replace

        usual = BenchSettings()
        planned = {
            "rounds": self.rounds,
            "block_seconds": self.block_seconds,
            "max_seconds": self.bench_seconds,
            "width": self.width,
        }
        return replace(
            given,
            **{
                name: value  # type: ignore[arg-type]
                for name, value in planned.items()
                if getattr(given, name) == getattr(usual, name)
            },
        )

    def __str__(self) -> str:
        cost = self.seconds_per_sample
        parts = [f"effort {self.effort}"]
        if cost is not None:
            parts.append(f"a sample takes {_time(cost)}")
            parts.append(f"fidelity on {counted(self.fidelity_samples, 'sample')}")
            if self.metric_samples:
                parts.append(f"metric on {counted(self.metric_samples, 'sample')}")
        parts.append(_TIMED_TEXT[self.timed])
        return ", ".join(parts)


_TIMED_TEXT = {
    "each": "every model timed",
    "end": "exact passes in a row timed at their end",
    "last": "the result alone timed",
    "none": "nothing timed",
}


@dataclass(frozen=True)
class _EffortLimits:
    """Bounds of an effort: samples, and seconds for one model."""

    fidelity: tuple[int, float]
    metric_seconds: float
    least: int
    timed: TimedModels
    bench: tuple[float, int, float, float]
    text_seconds: float
    feeds: int


_INFINITE = float("inf")
_LIMITS = {
    "quick": _EffortLimits((32, 2.0), 5.0, 64, "last", (5.0, 3, 0.15, 0.10), 5.0, 2),
    "normal": _EffortLimits((128, 10.0), 240.0, 256, "end", (12.0, 3, 0.3, 0.06), 30.0, 3),
    "thorough": _EffortLimits(
        (128, _INFINITE), _INFINITE, 1 << 62, "each", (120.0, 5, 0.7, 0.03), _INFINITE, 3
    ),
}


def plan_measuring(
    effort: Effort,
    work: Workload,
    seconds_per_sample: float | None = None,
    timed: TimedModels | None = None,
) -> MeasuringPlan:
    """Plan what is measured.

    Args:
        effort: How much time it may take.
        work: What there is to measure.
        seconds_per_sample: Cost of one sample in one run; None: not known, so nothing is cut.
        timed: Which models are timed, where the caller says so.
    """
    limits = _LIMITS[effort.name] if effort.seconds is None else _for_seconds(effort.seconds, work)
    thorough = effort.name == "thorough"
    cost = seconds_per_sample or 0.0
    most, seconds = limits.fidelity
    least, share = _DRAWN if work.drawn else (_LEAST_SAMPLES, 1.0)
    fidelity = _affordable(most, share * seconds, cost, least)
    metric = _affordable(work.samples, limits.metric_seconds, cost, limits.least)
    inner = metric if thorough else min(metric, max(limits.least, metric // 4))
    bench_seconds, rounds, block_seconds, width = limits.bench
    return MeasuringPlan(
        effort=str(effort),
        seconds_per_sample=seconds_per_sample,
        # Thorough compares on all that is scored, as the metric's run gives the outputs anyway.
        fidelity_samples=work.samples if thorough and work.scored else min(fidelity, work.samples),
        metric_samples=metric if work.scored else 0,
        inner_samples=inner if work.scored else 0,
        inherits=not thorough,
        timed=timed or _timed(limits.timed, cost),
        bench_seconds=bench_seconds,
        rounds=rounds,
        block_seconds=block_seconds,
        width=width,
        text_seconds=limits.text_seconds * (_DRAWN_TEXT if work.drawn else 1.0),
        numerics_feeds=limits.feeds,
    )


def _timed(usual: TimedModels, cost: float) -> TimedModels:
    return "last" if usual == "end" and cost > _SLOW_SECONDS else usual


def _for_seconds(seconds: float, work: Workload) -> _EffortLimits:
    evaluated = max(1, work.evaluated)
    each = _SHARES["bench"] * seconds / max(1, work.timed)
    timed: TimedModels = "end" if each >= _LEAST_BENCH_SECONDS else "last"
    if timed == "last":
        each = _SHARES["bench"] * seconds
    return _EffortLimits(
        fidelity=(128, _SHARES["fidelity"] * seconds / evaluated),
        metric_seconds=_SHARES["metric"] * seconds / evaluated,
        least=64,
        timed=timed,
        bench=(each, 3, min(0.7, max(0.1, each / 20)), 0.06 if seconds < 300 else 0.03),
        text_seconds=0.1 * seconds,
        feeds=2 if seconds < 30 else 3,
    )


def _affordable(wanted: int, seconds: float, cost: float, least: int) -> int:
    """Return how many samples are paid for, in powers of two so that two runs agree on it."""
    if not cost or wanted * cost <= seconds:
        return wanted
    paid = int(seconds / cost)
    return min(wanted, max(least, 1 << max(0, paid.bit_length() - 1)))


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"
