"""What a contest is asked for, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from irtools.measure.base import BenchSettings, LatencyResult
from irtools.metrics import Difference, Evaluation, Fidelity, Metric

__all__ = ["ContestResult", "ContestSettings", "Isolation", "Standing"]

Isolation: TypeAlias = Literal["each", "first", "none"]


@dataclass(frozen=True)
class ContestSettings:
    """How models are compared.

    Attributes:
        bench: How they are timed; None: not at all.
        metric: Task metric, or its name (`accuracy`, `module:function`); None: outputs alone are
            compared.
        seed: Seed of drawn inputs and of bootstrap samples.
        threads: Threads of every contender; None: the CPU quota.
        samples: Most samples to evaluate on, evenly spread over the data; None: all.
        sizes: Sizes of dynamic axes of drawn inputs, named as `--size` names them.
        isolation: Which batches of the data run in a child process, with limits of time and
            memory: the `first` one of each contender, since a runtime may crash on a model that it
            meets for the first time; `each`, so that no two runtimes meet in one process; `none`
            for models that have run before.
    """

    bench: BenchSettings | None = field(default_factory=BenchSettings)
    metric: str | Metric | None = None
    seed: int = 0
    threads: int | None = None
    samples: int | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    isolation: Isolation = "first"


@dataclass(frozen=True)
class Standing:
    """What was found out about one contender.

    Attributes:
        name: As it was entered.
        target: What ran it, as target text.
        precision: Inference precision asked of the runtime; None: its default.
        file_bytes: Size on disk, external weights included.
        latency: By shape, against the first contender; empty where nothing was timed. Load time
            and peak memory are in it.
        fidelity: Closeness of the outputs to those of the first contender, of the output that
            differs most; None without data.
        evaluation: The task metric; None without one.
        difference: Metric less that of the first contender, sample by sample; None for the first
            one and without a metric.
    """

    name: str
    target: str
    precision: str | None
    file_bytes: int
    latency: tuple[LatencyResult, ...] = ()
    fidelity: Fidelity | None = None
    evaluation: Evaluation | None = None
    difference: Difference | None = None


@dataclass(frozen=True)
class ContestResult:
    """What was found out.

    Attributes:
        standings: By contender, in the order given.
        samples: Samples that outputs and metric are over; 0 without data.
        source: Where they come from.
        notes: What a reader of the figures should know.
    """

    standings: tuple[Standing, ...]
    samples: int = 0
    source: str = ""
    notes: tuple[str, ...] = ()

    @property
    def latency(self) -> tuple[LatencyResult, ...]:
        """Return all latencies, shape by shape and contender by contender."""
        rows = zip(*(standing.latency for standing in self.standings), strict=True)
        return tuple(result for row in rows for result in row)
