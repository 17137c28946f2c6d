"""Datasets: feeds with optional labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from irtools.data.padding import cut_columns, padding_mask
from irtools.errors import DataError

__all__ = ["Dataset", "TextRows", "is_ragged", "objects"]


@dataclass(frozen=True)
class TextRows:
    """The texts of tokenized samples, so that another tokenizer can encode them.

    Attributes:
        rows: One or two texts per sample.
        tokenizer: The file that encoded them; None: one that the model holds in memory.
        encode: Encodes rows with the files next to a model (`tokenizer.json` and its settings) as
            the feeds were encoded: input name to int64 [N, S].
    """

    rows: tuple[tuple[str, ...], ...]
    tokenizer: Path | None
    encode: Callable[[Sequence[tuple[str, ...]], Mapping[str, bytes]], dict[str, np.ndarray]]

    def select(self, rows: np.ndarray) -> TextRows:
        """Return the texts of some samples."""
        return replace(self, rows=tuple(self.rows[int(row)] for row in rows))


def is_ragged(array: np.ndarray) -> bool:
    """Whether an array of objects holds one array per sample, and not text."""
    if array.dtype.kind != "O" or array.ndim != 1 or not len(array):
        return False
    return isinstance(array[0], np.ndarray)


def objects(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return an array of objects [N] that holds arrays of different shapes."""
    held = np.empty(len(arrays), object)
    for row, array in enumerate(arrays):
        held[row] = array
    return held


@dataclass(frozen=True)
class Dataset:
    """Samples for a model.

    Attributes:
        feeds: Input name to array, samples along axis 0. Whole arrays of different shapes are held
            in an array of objects [N]; see `is_ragged`.
        labels: int64 [N] for classes, or float/int [N, L] for multi-label and regression, or
            None.
        source: Where the data comes from, for reports (`calib.npz`, `synthetic`).
        synthetic: The data was drawn from the model's signature.
        digest: sha256 over names, types, shapes and bytes; see `with_digest`.
        notes: What a reader of the report should know: casts, unused arrays, defaults taken.
        fixed_batch: Samples that the model takes at a time; None: any number.
        fixed_length: The model takes columns as they are, padding included.
        columns: Inputs of which columns that are padding may be cut off; None: those of the mask's
            shape.
        whole: Inputs of which each sample holds what one call is fed, [N, *shape]: rates, sizes,
            an image without a batch axis. Samples run together only where these are the same.
        inner: Inputs whose samples lie along another axis than the first, which has size 1 in
            each sample: states [layers, batch, width] are held as [N, layers, 1, width].
        texts: What was tokenized; None where the data came as arrays.
    """

    feeds: Mapping[str, np.ndarray]
    labels: np.ndarray | None = None
    source: str = "memory"
    synthetic: bool = False
    digest: str = field(default="", compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    fixed_batch: int | None = field(default=None, compare=False)
    fixed_length: bool = field(default=False, compare=False)
    columns: frozenset[str] | None = field(default=None, compare=False)
    whole: frozenset[str] = field(default=frozenset(), compare=False)
    inner: Mapping[str, int] = field(default_factory=dict, compare=False)
    texts: TextRows | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        lengths = {name: len(array) for name, array in self.feeds.items()}
        if self.labels is not None:
            lengths["labels"] = len(self.labels)
        if len(set(lengths.values())) > 1:
            raise DataError(
                f"data from {self.source} has arrays of different lengths along axis 0: {lengths}"
            )

    def __len__(self) -> int:
        return len(next(iter(self.feeds.values()))) if self.feeds else 0

    def take(self, count: int) -> Dataset:
        """Return the first `count` samples, or as many of them as make whole batches."""
        return self.select(np.arange(min(self._whole(count), len(self))))

    def spread(self, count: int) -> Dataset:
        """As `take`, but evenly spread over the data: files are often sorted by class."""
        count = self._whole(count)
        if count >= len(self):
            return self
        return self.select(np.arange(count) * len(self) // count)

    def select(self, rows: np.ndarray) -> Dataset:
        """Return the samples at `rows`."""
        labels = None if self.labels is None else self.labels[rows]
        feeds = {name: array[rows] for name, array in self.feeds.items()}
        texts = None if self.texts is None else self.texts.select(rows)
        return replace(self, feeds=feeds, labels=labels, texts=texts)

    def encoded_with(self, companions: Mapping[str, bytes]) -> Dataset:
        """Return the same samples as a tokenizer among the files next to a model encodes them.

        Samples that did not come as text, and files without a tokenizer, change nothing.

        Args:
            companions: File name to content; see `Model.companions`.
        """
        if self.texts is None or "tokenizer.json" not in companions:
            return self
        made = self.texts.encode(self.texts.rows, companions)
        feeds = {
            name: made[name].astype(old.dtype) if name in made else old
            for name, old in self.feeds.items()
        }
        return replace(self, feeds=feeds)

    def feeds_of(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return what a model is fed for the samples at `rows`; of whole inputs the first one's."""
        return {name: self._feed(name, array, rows) for name, array in self.feeds.items()}

    def _feed(self, name: str, array: np.ndarray, rows: np.ndarray) -> np.ndarray:
        if name in self.whole:
            return np.asarray(array[rows[0]])
        if name in self.inner:
            return np.concatenate(list(array[rows]), axis=self.inner[name])
        chosen: np.ndarray = array[rows]
        return chosen

    def with_digest(self) -> Dataset:
        """Return the same data with `digest` filled in."""
        return replace(self, digest=_digest(self))

    def _whole(self, count: int) -> int:
        step = self.fixed_batch
        return count if step is None else max(count // step, 1) * step

    def batches(
        self, size: int = 1, *, trim_padding: bool = True
    ) -> Iterator[dict[str, np.ndarray]]:
        """Iterate over feeds of `size` samples.

        Args:
            size: Samples per batch, unless the model insists on a number; the last batch may be
                smaller.
            trim_padding: Cut trailing columns that are padding in the whole batch (by
                `attention_mask`) from every [N, S, ...] input, unless the model's are fixed.
                Leading padding stays: a model that counts positions would see other ones.
        """
        size = self.fixed_batch or size
        for start in range(0, len(self), size):
            batch = self.feeds_of(np.arange(start, min(start + size, len(self))))
            yield self._trim(batch) if trim_padding and not self.fixed_length else batch

    def _trim(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        mask = padding_mask(batch)
        if mask is None:
            return batch
        length = int(np.flatnonzero(mask.any(axis=0))[-1]) + 1 if mask.any() else mask.shape[1]
        names = self.columns
        if names is None:
            names = frozenset(name for name, a in batch.items() if a.shape == mask.shape)
        return cut_columns(batch, names, length)


def _digest(dataset: Dataset) -> str:
    total = hashlib.sha256()
    arrays = dict(dataset.feeds)
    if dataset.labels is not None:
        # A space cannot start an input's name in the files that we read.
        arrays[" labels"] = dataset.labels
    for name in sorted(arrays):
        array = arrays[name]
        for part in array if is_ragged(array) else (array,):
            total.update(f"{name}\0{part.dtype.str}\0{part.shape}\0".encode())
            total.update(_content(part))
    return total.hexdigest()


def _content(array: np.ndarray) -> bytes | memoryview:
    if array.dtype.kind == "O":
        return "\0".join(map(str, array.reshape(-1))).encode()
    content: memoryview = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return content
