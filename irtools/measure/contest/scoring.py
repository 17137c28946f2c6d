"""Running a model over samples, and what is kept of its outputs."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from irtools.data import Batch, Dataset, padding_mask, put_at_padding
from irtools.measure.contest.samples import Outputs, Part, Run
from irtools.metrics import FidelityMeter, PerSampleMetric, check_labels
from irtools.model import Model, PaddedOutput
from irtools.targets import Feeds, Runner

__all__ = ["LazyRunner", "Tally", "answers", "labels_of", "output_bytes", "stack_rows"]


def answers(
    part: Part, run: Run, data: Dataset | None = None
) -> Iterator[tuple[Batch, Batch, Outputs]]:
    """Run a model batch by batch.

    Args:
        part: The samples.
        run: The model.
        data: The same samples as the model takes them, where another tokenizer encodes them for
            it; None: as they are.

    Yields:
        The batch, the batch as the model takes it, and its outputs.
    """
    waiting: deque[tuple[Batch, Batch]] = deque()

    def feeds() -> Iterator[Feeds]:
        for batch in part.batches():
            own = batch if data is None else part.plan.same_rows(batch, data)
            waiting.append((batch, own))
            yield own.feeds

    for outputs in run(feeds()):
        yield *waiting.popleft(), outputs


class Tally:
    """What is kept of a model's outputs: sums for the fidelity, a row per sample for the metric.

    Args:
        data: The samples as the model takes them, with the labels.
        metrics: What to keep rows for.
        meter: What compares the outputs; None: nothing does.
        padded: Outputs that hold a set number at padding in one of the models that are compared.
    """

    def __init__(
        self,
        data: Dataset,
        metrics: Sequence[PerSampleMetric],
        meter: FidelityMeter | None,
        padded: Mapping[str, PaddedOutput] = MappingProxyType({}),
    ) -> None:
        self._data = data
        self._metrics = tuple(metrics)
        self._meter = meter
        self._padded = padded
        self._rows: tuple[list[np.ndarray], ...] = tuple([] for _ in metrics)

    def add(
        self,
        batch: Batch,
        outputs: Outputs,
        wanted: Outputs | None = None,
        keep: np.ndarray | None = None,
    ) -> None:
        """Add the outputs of a batch.

        Args:
            batch: The batch as the model takes it.
            outputs: What the model gave.
            wanted: What that is compared with; None: with nothing.
            keep: Positions of `wanted` that count; None: all.

        Raises:
            DataError: Outputs that do not correspond, or labels that do not fit them.
        """
        if self._meter is not None and wanted is not None:
            expected, found = (
                put_at_padding(one, batch.feeds, self._padded) for one in (wanted, outputs)
            )
            self._meter.update(expected, found, keep, batch.samples)
        for metric, rows in zip(self._metrics, self._rows, strict=True):
            rows.append(metric.per_sample(outputs, labels_of(metric, batch, self._data)))

    @property
    def rows(self) -> tuple[np.ndarray, ...]:
        """What each metric keeps of each sample, in the order of the batches."""
        return tuple(map(stack_rows, self._rows))


class LazyRunner:
    """A runner that is made when it is asked for, so that models are in memory one at a time.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], Runner]) -> None:
        self._make = make
        self._runner: Runner | None = None

    @property
    def runner(self) -> Runner:
        """The runner."""
        if self._runner is None:
            self._runner = self._make()
        return self._runner

    def run(self, feeds: Iterable[Feeds]) -> Iterator[Outputs]:
        """Run on batches, one after the other."""
        for one in feeds:
            yield self.runner.run(one)

    def __enter__(self) -> LazyRunner:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._runner is not None:
            self._runner.close()


def labels_of(metric: PerSampleMetric, batch: Batch, data: Dataset) -> np.ndarray:
    """Return the labels of a batch.

    Raises:
        DataError: There are none, and they do not follow from the inputs.
    """
    if data.labels is None or not metric.takes(data.labels):
        check_labels(metric, data)
        derived = metric.derive_labels(batch.feeds)
        assert derived is not None
        return derived
    labels: np.ndarray = data.labels[batch.rows]
    whole, cut = padding_mask(data.feeds), padding_mask(batch.feeds)
    if whole is not None and cut is not None and data.labels.shape == whole.shape:
        labels = labels[:, : cut.shape[1]]  # One label per token.
    return labels


def stack_rows(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenate rows; those of shorter batches are filled up with the ignored class -100."""
    width = max(part.shape[1] for part in rows)
    padded = [
        np.pad(part, [(0, 0), (0, width - part.shape[1])], constant_values=-100)
        if part.shape[1] < width
        else part
        for part in rows
    ]
    return np.concatenate(padded)


def output_bytes(model: Model, data: Dataset) -> int:
    """Return at most how many bytes the outputs for one sample take.

    A decoder gives a score for every token of its vocabulary at every position, and its cache.
    """
    lengths = [array.shape[1] for array in data.feeds.values() if array.ndim == 2]
    length = max(lengths, default=1)
    sizes = (
        math.prod(size if isinstance(size, int) else length for size in value.shape[1:])
        for value in model.ir.graph.outputs
        if value.shape is not None and len(value.shape)
    )
    return max(1, 4 * sum(sizes))
