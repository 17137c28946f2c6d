"""Which samples models are judged on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irtools.analysis.data_sizes import DataSizes
from irtools.data import Dataset, plan_batches, required_inputs
from irtools.measure.contest import Part, output_bytes
from irtools.measure.effort import MeasuringPlan
from irtools.model import Model

__all__ = ["PartMaker", "Parts"]

_BATCH = 16
_OUTPUT_BYTES = 64 << 20
_REFERENCE_BYTES = 128 << 20


@dataclass(frozen=True)
class Parts:
    """The samples that models are judged on.

    Attributes:
        compared: Those on which outputs are compared with the original's.
        scored: Those of the metrics, in two parts: the inner ones, which are for models between
            passes, then the rest. Empty without a metric.
        planned: Samples of the metrics that the plan allows.
    """

    compared: Part
    scored: tuple[Part, ...]
    planned: int

    @property
    def rows(self) -> np.ndarray:
        """Rows of the data that metrics are measured on, in their order."""
        return np.sort(np.concatenate([part.rows for part in self.scored]))


class PartMaker:
    """Makes parts of data, evenly spread and in whole batches.

    Args:
        original: The model before the first pass.
        data: All of the samples.
        scored: There is a metric.
        whole: Use as much of the data without a metric too.

    Attributes:
        sizes: Sizes of the model's outputs that the data decides.
        sample_bytes: Bytes of the outputs for one sample.
        batch: Samples that are run at once.
    """

    def __init__(self, original: Model, data: Dataset, *, scored: bool, whole: bool) -> None:
        self.sizes = DataSizes.of(original.ir)
        self.sample_bytes = output_bytes(original, data)
        # Sizes that differ from sample to sample do not fit into one array.
        most = 1 if self.sizes.shapes else _BATCH
        self.batch = max(1, min(most, _OUTPUT_BYTES // self.sample_bytes))
        self._original = original
        self._data = data
        self._scored = scored
        self._whole = whole

    def first(self) -> Part:
        """Return one sample, or as many as a fixed batch takes."""
        return self._part(np.zeros(1, np.int64))

    def choose(self, plan: MeasuringPlan) -> Parts:
        """Choose as many samples as a plan allows."""
        most = max(1, _REFERENCE_BYTES // self.sample_bytes)
        planned = plan.metric_samples
        if not self._scored:
            count = planned if self._whole else min(plan.fidelity_samples, most)
            return Parts(self._part(self._spread(count)), (), planned)
        rows = self._spread(planned)
        inner = _spread_rows(rows, self._whole_batches(plan.inner_samples))
        rest = np.setdiff1d(rows, inner)
        scored = tuple(self._part(part) for part in (inner, rest) if len(part))
        if plan.fidelity_samples >= len(inner):
            return Parts(scored[0], scored, planned)
        few = self._whole_batches(min(plan.fidelity_samples, most))
        return Parts(self._part(_spread_rows(inner, few)), scored, planned)

    def selected(self, rows: np.ndarray) -> Dataset:
        """Return some rows of the data."""
        return self._data if len(rows) == len(self._data) else self._data.select(rows)

    def _spread(self, count: int) -> np.ndarray:
        return _spread_rows(np.arange(len(self._data)), self._whole_batches(count))

    def _whole_batches(self, count: int) -> int:
        step = self._data.fixed_batch or 1
        return max(count // step, 1) * step

    def _part(self, rows: np.ndarray) -> Part:
        step = self._data.fixed_batch or 1
        if len(rows) < step:
            rows = np.arange(min(step, len(self._data)))
        inputs = required_inputs(self._original)
        plan = plan_batches(self.selected(rows), inputs, skip_empty=False)
        return Part(plan, self.batch, rows)


def _spread_rows(rows: np.ndarray, count: int) -> np.ndarray:
    """Return some of the rows, evenly spread: files are often sorted by class."""
    if count >= len(rows):
        return rows
    return rows[np.arange(count) * len(rows) // count]
