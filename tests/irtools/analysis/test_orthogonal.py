"""Orthogonal matrices by their algebra."""

from __future__ import annotations

import numpy as np
import pytest

from irtools.analysis.orthogonal import Rotation, hadamard


@pytest.mark.parametrize("order", [1, 2, 4, 12, 20, 24, 28, 36, 44, 48, 60, 64, 72, 312])
def test_hadamard_matrices_have_orthogonal_columns_of_ones(order: int) -> None:
    found = hadamard(order)
    assert np.array_equal(found.T @ found, order * np.eye(order))
    assert np.array_equal(np.abs(found), np.ones((order, order)))


@pytest.mark.parametrize("order", [3, 6, 92, 100])
def test_orders_that_neither_construction_has(order: int) -> None:
    with pytest.raises(ValueError, match=f"order {order}"):
        hadamard(order)


@pytest.mark.parametrize("width", [1, 2, 7, 33, 48, 100, 384, 576, 768, 896, 960])
def test_rotations_are_orthogonal(width: int) -> None:
    matrix = Rotation(width, seed=3).matrix
    assert np.allclose(matrix.T @ matrix, np.eye(width), atol=1e-12)


@pytest.mark.parametrize("width", [384, 576, 768, 896, 960, 1024, 2048])
def test_channels_are_spread_evenly_at_the_widths_of_real_models(width: int) -> None:
    assert np.allclose(np.abs(Rotation(width).turn(np.eye(width)[:1])), width**-0.5)


def test_blocks_mix_only_their_own_channels() -> None:
    order = tuple(reversed(range(12)))
    matrix = Rotation(12, seed=1, block=4, order=order).matrix
    assert np.allclose(matrix.T @ matrix, np.eye(12), atol=1e-12)
    # The last channel comes first, and is spread over the first four.
    assert np.allclose(np.abs(matrix[11]), [0.5] * 4 + [0.0] * 8)


def test_rows_are_turned_as_by_the_matrix() -> None:
    rotation = Rotation(24, seed=5)
    rows = np.random.default_rng(0).normal(size=(3, 2, 24))
    assert np.allclose(rotation.turn(rows), rows @ rotation.matrix)


def test_seeds_give_other_signs() -> None:
    assert not np.allclose(Rotation(16, 0).matrix, Rotation(16, 1).matrix)
    assert np.array_equal(Rotation(16, 1).matrix, Rotation(16, 1).matrix)
