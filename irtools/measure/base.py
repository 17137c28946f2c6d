"""Results of timing models against each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["BenchSettings", "LatencyResult", "Ratio"]


@dataclass(frozen=True)
class BenchSettings:
    """How models are timed.

    Attributes:
        batch: Sizes of the batch axis.
        sequence: Sizes of the sequence axis; ignored by models that have none. Of a decoder with
            a cache, lengths of the prompt.
        threads: Threads of every contender; None: the CPU quota.
        rounds: Rounds of alternating blocks; at least 3.
        block_seconds: Time of one block, after warm-up.
        max_seconds: Bound on the whole comparison.
        confidence: Level of the interval of a ratio.
        width: Half width of the interval of a ratio at which measuring ends (0.03: 3 % to either
            side); after twice the rounds, or 8 in all, it ends all the same.
        past: Tokens in a decoder's cache when it reads one more; None: the lengths of the prompt.
    """

    batch: tuple[int, ...] = (1,)
    sequence: tuple[int, ...] = (128,)
    threads: int | None = None
    rounds: int = 5
    block_seconds: float = 0.7
    max_seconds: float = 120.0
    confidence: float = 0.95
    width: float = 0.03
    past: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Ratio:
    """Speed relative to a baseline: how many times faster, with its confidence interval."""

    value: float
    low: float
    high: float

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves no doubt of a difference above 1 %.

        Intervals of level 0.95 exclude 1 by chance in one of twenty comparisons of a model with
        itself, but then by very little; and a gain below 1 % is not claimed.
        """
        return self.low > 1.01 or self.high < 1 / 1.01


@dataclass(frozen=True)
class LatencyResult:
    """Latency of one model at one shape.

    Attributes:
        name: Contender.
        shape: The dynamic sizes it ran at (`batch=1 sequence=128`, of a decoder
            `prefill batch=1 sequence=128` and `decode batch=1 past=128`).
        median_ms: Median of the block medians. Where several samples took turns: of the blocks'
            means over the samples' medians, since a sample that is easy says nothing of the rest.
        p90_ms: 90th percentile of all runs.
        p99_ms: 99th percentile of all runs.
        throughput: Samples per second.
        peak_bytes: Peak resident memory of the process that ran it.
        load_seconds: Time to load and compile; the runtime itself is loaded before.
        runs: Timed runs in all.
        block_medians_ms: Median of each block, in order of the rounds.
        speedup: Against the first contender, or None for it itself.
        mean_ms: Mean of all runs.
        samples: Samples that took turns; 1 where every run was the same.
        phase: `prefill` where a decoder read a prompt, `decode` where it read one token more with
            the cache of those before; None of other models.
        tokens_per_second: Tokens that it read in a second, over the whole batch; None as above.
        first_seconds: Time of the first inference after loading, at the first shape.
    """

    name: str
    shape: str
    median_ms: float
    p90_ms: float
    p99_ms: float
    throughput: float
    peak_bytes: int
    load_seconds: float
    runs: int
    block_medians_ms: tuple[float, ...]
    speedup: Ratio | None = None
    mean_ms: float = 0.0
    samples: int = 1
    phase: Literal["prefill", "decode"] | None = None
    tokens_per_second: float | None = None
    first_seconds: float = 0.0
