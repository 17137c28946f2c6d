from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from irtools.analysis.channels import IndexMap

maps = st.builds(
    IndexMap,
    units=st.integers(1, 9),
    inner=st.integers(1, 4),
    outer=st.integers(1, 3),
    offset=st.integers(0, 5),
)


@given(maps, st.data())
def test_indices_and_unit_of_are_inverse(mapping: IndexMap, data: st.DataObject) -> None:
    units = data.draw(st.sets(st.integers(0, mapping.units - 1)))
    indices = mapping.indices(units)
    assert {mapping.unit_of(int(i)) for i in indices} == units
    assert len(indices) == len(set(indices.tolist())) == len(units) * mapping.inner * mapping.outer
    assert (np.diff(indices) > 0).all() if len(indices) > 1 else True


@given(maps)
def test_units_cover_the_axis_without_overlap(mapping: IndexMap) -> None:
    whole = np.sort(mapping.matrix().reshape(-1))
    assert mapping.size is not None
    np.testing.assert_array_equal(whole, np.arange(mapping.size) + mapping.offset)
    assert mapping.unit_of(mapping.offset - 1) is None
    assert mapping.unit_of(mapping.offset + mapping.size) is None


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 3))
def test_grouped_units_hold_their_old_units(outer: int, units: int, inner: int, width: int) -> None:
    fine = IndexMap(outer * units * inner, width)
    coarse = fine.grouped(outer, units, inner)
    for unit in range(units):
        old = [(o * units + unit) * inner + i for o in range(outer) for i in range(inner)]
        np.testing.assert_array_equal(coarse.indices([unit]), fine.indices(old))


def test_heads_in_a_packed_matrix() -> None:
    packed = IndexMap(units=4, inner=2, outer=3)
    assert packed.indices([1]).tolist() == [2, 3, 10, 11, 18, 19]


@given(maps, st.integers(0, 7), st.integers(0, 7))
def test_shifts_add_up(mapping: IndexMap, first: int, second: int) -> None:
    moved = mapping.shifted(first).shifted(second)
    np.testing.assert_array_equal(moved.matrix(), mapping.matrix() + first + second)


@given(maps)
def test_open_repetitions_follow_from_the_length_of_an_axis(mapping: IndexMap) -> None:
    assert mapping.size is not None
    length = mapping.offset + mapping.size
    still_open = replace(mapping, outer=None)
    assert still_open.fitted(length) == mapping
    assert still_open.fitted(mapping.offset) is None
    whole = mapping.units * mapping.inner
    assert whole == 1 or still_open.fitted(length + 1) is None
    assert mapping.fitted(length + 1) is mapping
