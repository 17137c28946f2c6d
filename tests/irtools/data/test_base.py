"""Datasets: taking, batching, digests."""

from __future__ import annotations

import numpy as np
import pytest

from irtools.data import Dataset
from irtools.errors import DataError


def make(**extra: np.ndarray) -> Dataset:
    feeds = {"input_ids": np.arange(12).reshape(3, 4), **extra}
    return Dataset(feeds, np.array([0, 1, 2]))


def test_arrays_of_different_lengths_are_refused() -> None:
    with pytest.raises(DataError, match=r"\{'input_ids': 3, 'x': 2, 'labels': 3\}"):
        make(x=np.zeros(2))


def test_select_keeps_labels_with_their_samples() -> None:
    chosen = make().select(np.array([2, 0]))
    assert chosen.feeds["input_ids"][:, 0].tolist() == [8, 0]
    assert chosen.labels is not None
    assert chosen.labels.tolist() == [2, 0]
    assert len(make().take(2)) == 2
    assert len(make().take(99)) == 3


def test_batches_drop_trailing_padding_only() -> None:
    mask = np.array([[0, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
    batches = list(make(attention_mask=mask).batches(2))
    assert [b["input_ids"].shape for b in batches] == [(2, 3), (1, 4)]
    assert batches[0]["attention_mask"].tolist() == [[0, 1, 1], [1, 1, 0]]
    whole = list(make(attention_mask=mask).batches(2, trim_padding=False))
    assert whole[0]["input_ids"].shape == (2, 4)


def test_batches_keep_arrays_that_are_no_tokens() -> None:
    mask = np.array([[1, 1, 0, 0]] * 3)
    image = np.zeros((3, 4, 4, 1), np.float32)
    (batch,) = make(attention_mask=mask, image=image).batches(3)
    assert batch["image"].shape == (3, 4, 4, 1)
    assert batch["input_ids"].shape == (3, 2)


def test_digest_follows_names_types_shapes_bytes_and_labels() -> None:
    base = make().with_digest().digest
    assert len(base) == 64
    assert make().with_digest().digest == base
    ids = np.arange(12).reshape(3, 4)
    others = [
        Dataset({"ids": ids}, np.array([0, 1, 2])),
        Dataset({"input_ids": ids.astype(np.int32)}, np.array([0, 1, 2])),
        Dataset({"input_ids": ids.reshape(3, 2, 2)}, np.array([0, 1, 2])),
        Dataset({"input_ids": ids + 1}, np.array([0, 1, 2])),
        Dataset({"input_ids": ids}),
    ]
    assert base not in {other.with_digest().digest for other in others}
    assert Dataset({"x": np.zeros((0, 3))}).with_digest().digest


def test_samples_are_spread_evenly() -> None:
    data = Dataset({"x": np.arange(10)}, labels=np.arange(10))
    assert data.spread(4).feeds["x"].tolist() == [0, 2, 5, 7]
    assert data.spread(10) is data and data.spread(99) is data
    assert data.take(3).feeds["x"].tolist() == [0, 1, 2]


def test_a_fixed_batch_and_length_stay_whole() -> None:
    mask = np.array([[1, 1, 0]] * 6)
    data = Dataset({"attention_mask": mask}, fixed_batch=2, fixed_length=True)
    assert len(data.take(5)) == 4 and len(data.spread(1)) == 2
    assert [b["attention_mask"].shape for b in data.batches(16)] == [(2, 3)] * 3
