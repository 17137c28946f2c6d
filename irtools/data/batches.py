"""Batches of samples of equal length, and which positions of a tensor count.

Samples are grouped by their length without trailing padding, so most batches hold no padding at
all and every value counts. Leading padding and holes stay in place, because a model may count
positions; such positions are then left out by the mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from irtools.data.base import Dataset
from irtools.data.layout import layout_of
from irtools.data.padding import cut_columns, find_columns, padding_mask
from irtools.data.signature import InputSpec

__all__ = ["Batch", "BatchPlan", "plan_batches", "select_rows", "select_values"]


@dataclass(frozen=True)
class Batch:
    """Feeds of some samples.

    Attributes:
        keep: bool [B, S], False where a position is padding; None where all count.
        rows: Their numbers in the dataset.
    """

    feeds: dict[str, np.ndarray]
    keep: np.ndarray | None
    rows: np.ndarray

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.rows)


@dataclass(frozen=True)
class BatchPlan:
    """Which samples run together.

    Attributes:
        groups: Sample numbers and the columns to feed, longest first.
        fixed: The batch size that the model insists on, or None.
        columns: Inputs that columns are cut from.
    """

    dataset: Dataset
    groups: tuple[tuple[np.ndarray, int | None], ...]
    fixed: int | None
    columns: frozenset[str] = frozenset()

    def batches(self, size: int) -> Iterator[Batch]:
        """Iterate over batches of at most `size` samples, exactly `fixed` where that is set."""
        size = self.fixed or size
        for rows, length in self.groups:
            for start in range(0, len(rows), size):
                yield self._batch(rows[start : start + size], length)

    def same_rows(self, batch: Batch, dataset: Dataset) -> Batch:
        """Return a batch of this plan as another dataset of the same samples has them."""
        other = replace(self, dataset=dataset)
        mask = padding_mask({name: array[batch.rows] for name, array in dataset.feeds.items()})
        if mask is None or not self.groups or self.groups[0][1] is None:
            return other._batch(batch.rows, None)
        return other._batch(batch.rows, int(_lengths(mask).max(initial=1)))

    def _batch(self, rows: np.ndarray, length: int | None) -> Batch:
        feeds = self.dataset.feeds_of(rows)
        mask = padding_mask(feeds)
        if mask is not None and length is not None:
            feeds = cut_columns(feeds, self.columns, length)
            mask = padding_mask(feeds)
        keep = None if mask is None or mask.all() else np.asarray(mask, dtype=bool)
        return Batch(feeds, keep, rows)


def plan_batches(
    dataset: Dataset, inputs: tuple[InputSpec, ...], *, skip_empty: bool = True
) -> BatchPlan:
    """Group the samples of a dataset that fits the model.

    Args:
        skip_empty: Leave out samples without any token: all padding, they teach nothing.
    """
    # Data that was fitted to the model knows more: which inputs are fed whole, for one.
    fixed = dataset.fixed_batch or (None if dataset.inner else layout_of(inputs).fixed)
    batched = {name: array for name, array in dataset.feeds.items() if name not in dataset.whole}
    mask = padding_mask(batched)
    everything = np.arange(len(dataset))
    columns = find_columns(batched, {spec.name: spec.shape for spec in inputs})
    if mask is None or fixed is not None or not columns:
        return BatchPlan(dataset, ((everything, None),), fixed)
    lengths = _lengths(mask)
    if not skip_empty:
        lengths = lengths.clip(min=1)
    groups = ((everything[lengths == n], int(n)) for n in np.unique(lengths)[::-1] if n > 0)
    return BatchPlan(dataset, tuple(groups), None, columns)


def _lengths(mask: np.ndarray) -> np.ndarray:
    """Return the number of columns up to the last token of each sample."""
    used = mask.astype(bool)
    reversed_first = used[:, ::-1].argmax(axis=1)
    return np.where(used.any(axis=1), mask.shape[1] - reversed_first, 0)


def select_values(x: np.ndarray, keep: np.ndarray | None) -> np.ndarray:
    """Return the values of `x` at positions that count, flat."""
    if keep is None:
        return x.reshape(-1)
    chosen = _spread(x.shape, keep)
    return x.reshape(-1) if chosen is None else x[np.broadcast_to(chosen, x.shape)]


def select_rows(x: np.ndarray, axis: int, keep: np.ndarray | None) -> np.ndarray:
    """Return the channels of `x` at positions that count, [n, C].

    Args:
        axis: The channel axis.
    """
    last = np.moveaxis(x, axis, -1)
    if keep is not None:
        chosen = _spread(x.shape, keep)
        if chosen is not None:
            # All channels of a position count or none does, so any channel speaks for all.
            flags = np.moveaxis(np.broadcast_to(chosen, x.shape), axis, -1)[..., 0]
            return np.ascontiguousarray(last[flags])
    return np.ascontiguousarray(last).reshape(-1, x.shape[axis])


def _spread(shape: tuple[int, ...], keep: np.ndarray) -> np.ndarray | None:
    """Return `keep` shaped to broadcast against a tensor, or None where it has no such axes.

    Known layouts: [B, S, ...], heads first [B, h, S, D] and scores [B, h, S, S], both of whose
    position axes count, and flattened [B S, ...].
    """
    batch, length = keep.shape
    rank = len(shape)
    if shape and shape[0] == batch * length and batch > 1:
        return keep.reshape(-1, *(1,) * (rank - 1))
    if rank < 2 or shape[0] != batch:
        return None
    if rank == 4 and shape[2] == length:
        queries = keep[:, None, :, None]
        return queries & keep[:, None, None, :] if shape[3] == length else queries
    if shape[1] == length:
        return keep.reshape(batch, length, *(1,) * (rank - 2))
    return None
