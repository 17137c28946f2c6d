"""Which samples run together, and which positions count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irtools.data import Dataset, InputSpec
from irtools.data.batches import plan_batches, select_rows, select_values

INT64 = np.dtype(np.int64)


def specs(*sizes: int | str) -> tuple[InputSpec, ...]:
    return tuple(InputSpec(n, INT64, sizes) for n in ("input_ids", "attention_mask"))


def dataset(mask: list[list[int]]) -> Dataset:
    flags = np.array(mask)
    ids = np.arange(flags.size).reshape(flags.shape)
    return Dataset({"input_ids": ids, "attention_mask": flags})


def test_samples_of_one_length_run_together_without_padding() -> None:
    data = dataset([[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    batches = list(plan_batches(data, specs("batch", "sequence")).batches(8))
    assert [b.feeds["input_ids"].tolist() for b in batches] == [
        [[4, 5, 6, 7]],
        [[0, 1], [8, 9]],
    ]
    assert all(batch.keep is None for batch in batches)


def test_leading_padding_and_holes_stay_and_are_marked() -> None:
    data = dataset([[0, 1, 1, 0], [1, 0, 1, 0]])
    (batch,) = plan_batches(data, specs("batch", "sequence")).batches(8)
    assert batch.feeds["attention_mask"].tolist() == [[0, 1, 1], [1, 0, 1]]
    assert batch.keep is not None
    assert batch.keep.tolist() == [[False, True, True], [True, False, True]]


@pytest.mark.parametrize("sizes", [("batch", 4), (2, 4)])
def test_fixed_sizes_are_fed_as_they_are(sizes: tuple[int | str, ...]) -> None:
    data = dataset([[1, 1, 0, 0], [1, 1, 1, 1]])
    (batch,) = plan_batches(data, specs(*sizes)).batches(2)
    assert batch.feeds["input_ids"].shape == (2, 4)
    assert batch.keep is not None
    assert batch.keep.sum() == 6


def test_fixed_batch_size_wins_over_the_wanted_one() -> None:
    data = Dataset({"x": np.zeros((6, 3), np.float32)})
    inputs = (InputSpec("x", np.dtype(np.float32), (2, 3)),)
    assert [b.samples for b in plan_batches(data, inputs).batches(5)] == [2, 2, 2]


def test_mask_that_spans_a_past_does_not_cut_the_tokens() -> None:
    data = Dataset({"input_ids": np.zeros((2, 3), int), "attention_mask": np.eye(2, 7, dtype=int)})
    (batch,) = plan_batches(data, specs("batch", "sequence")).batches(2)
    assert batch.feeds["attention_mask"].shape == (2, 7)
    assert batch.keep is None


KEEP = np.array([[True, True, False], [True, False, False]])


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((2, 3, 5), 3 * 5),
        ((2, 4, 3, 5), 4 * 3 * 5),
        ((2, 4, 3, 3), 4 * (4 + 1)),
        ((6, 5), 3 * 5),
        ((2, 5), 10),
        ((1, 3, 5), 15),
    ],
    ids=["BSH", "BhSD", "scores", "flattened", "pooled", "no batch axis"],
)
def test_values_at_padding_are_left_out(shape: tuple[int, ...], count: int) -> None:
    assert select_values(np.ones(shape), KEEP).size == count


@pytest.mark.parametrize("axis", [-1, 2])
def test_rows_are_those_of_the_positions_that_count(axis: int) -> None:
    x = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    assert select_rows(x, axis, KEEP).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [12, 13, 14, 15]]


def test_heads_in_front_keep_their_channel_axis() -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 3, 4))
    rows = select_rows(x, 1, KEEP)
    assert rows.shape == (3 * 4, 5)
    np.testing.assert_array_equal(
        np.sort(rows[:, 2]), np.sort(x.transpose(0, 2, 1, 3)[KEEP][:, 2].ravel())
    )


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=9))
def test_every_token_is_seen_exactly_once(rows: list[list[bool]]) -> None:
    data = dataset([[int(flag) for flag in row] for row in rows])
    ids = data.feeds["input_ids"]
    seen: list[int] = []
    for batch in plan_batches(data, specs("batch", "sequence")).batches(2):
        seen += select_values(batch.feeds["input_ids"], batch.keep).tolist()
    assert sorted(seen) == sorted(ids[np.array(rows)].tolist())
