"""Samples that models are judged on, in batches, and the original's outputs for them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from irtools.data import Batch, BatchPlan, Dataset
from irtools.measure.cache import OutputCache
from irtools.targets import Feeds, RunnerOptions

__all__ = ["KeptOutputs", "Outputs", "Part", "Run"]

Outputs: TypeAlias = Mapping[str, np.ndarray]

Run: TypeAlias = Callable[[Iterable[Feeds]], Iterator[Outputs]]
"""Runs a model on batches, one after the other."""

_KEPT_BYTES = 128 << 20
_CACHED_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Part:
    """Some of the samples.

    Attributes:
        plan: Which of them run together.
        batch: Most samples of a batch.
        rows: Their numbers in all of the data.
    """

    plan: BatchPlan
    batch: int
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def data(self) -> Dataset:
        """The samples."""
        return self.plan.dataset

    @property
    def digest(self) -> str:
        """SHA-256 of the samples' numbers."""
        return hashlib.sha256(np.ascontiguousarray(self.rows, np.int64).tobytes()).hexdigest()

    @property
    def order(self) -> np.ndarray:
        """Numbers in all of the data, in the order in which batches have the samples."""
        groups = [rows for rows, _ in self.plan.groups]
        return self.rows[np.concatenate(groups)] if groups else self.rows[:0]

    def batches(self) -> Iterator[Batch]:
        """Iterate over the batches, always the same ones."""
        return self.plan.batches(self.batch)

    def feeds(self) -> Iterator[Feeds]:
        """Iterate over what a model is fed, batch by batch."""
        return (batch.feeds for batch in self.batches())


class KeptOutputs:
    """The original's outputs. Small ones are kept, between runs as well; larger ones made again.

    Args:
        sample_bytes: Size of the outputs for one sample, at most.
        cache: Where they are kept between runs; None: not kept.
        identity: What decides the outputs: hashes of model and data, runtime, machine.
    """

    def __init__(
        self,
        sample_bytes: int,
        cache: OutputCache | None = None,
        identity: Mapping[str, object] | None = None,
    ) -> None:
        self._sample_bytes = sample_bytes
        self._cache = cache
        self._identity = dict(identity or {})
        self._kept: dict[tuple[int, RunnerOptions], list[Outputs]] = {}

    def cost(self) -> float | None:
        """Return what one sample cost when it was timed last for this model and data."""
        found = None if self._cache is None else self._cache.get(self._key("cost"))
        return None if found is None else float(found["seconds"])

    def keep_cost(self, seconds: float) -> None:
        """Keep it: two runs then measure on the same samples. It is not a latency of a report."""
        if self._cache is not None:
            self._cache.put(self._key("cost"), {"seconds": seconds})

    def prepare(self, part: Part, options: RunnerOptions, run: Run) -> None:
        """Have small outputs at hand before another model is in memory.

        Args:
            part: The samples.
            options: How the original runs.
            run: Runs it, where it must be run.
        """
        size = self._sample_bytes * len(part)
        if size > _KEPT_BYTES or (id(part), options) in self._kept:
            return
        found = self._cached(part, options)
        if found is None:
            found = list(run(part.feeds()))
            self._keep(part, options, found)
        self._kept[id(part), options] = found

    def batches(
        self, part: Part, options: RunnerOptions, run: Run
    ) -> Iterator[tuple[Batch, Outputs]]:
        """Iterate over the batches of a part and the original's outputs."""
        self.prepare(part, options, run)
        kept = self._kept.get((id(part), options))
        yield from zip(part.batches(), run(part.feeds()) if kept is None else kept, strict=True)

    def _key(self, what: str, **more: object) -> str:
        return OutputCache.key(what=what, **self._identity, **more)

    def _key_of(self, part: Part, options: RunnerOptions) -> str:
        return self._key("outputs", rows=part.digest, batch=part.batch, options=options)

    def _cached(self, part: Part, options: RunnerOptions) -> list[Outputs] | None:
        if self._cache is None:
            return None
        entry = self._cache.get(self._key_of(part, options))
        found: Any = None if entry is None else entry.get("batches")
        if not isinstance(found, list) or len(found) != sum(1 for _ in part.batches()):
            return None
        return found

    def _keep(self, part: Part, options: RunnerOptions, found: list[Outputs]) -> None:
        arrays = [array for outputs in found for array in outputs.values()]
        if (
            self._cache is None
            or sum(array.nbytes for array in arrays) > _CACHED_BYTES
            # Types that numpy's own file format does not know, and objects.
            or not all(array.dtype.isbuiltin == 1 and array.dtype != object for array in arrays)
        ):
            return
        self._cache.put(self._key_of(part, options), {"batches": found})
