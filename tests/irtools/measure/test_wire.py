from __future__ import annotations

import pickle

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irtools.measure.wire import decode, encode

_LEAVES = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
_ANSWERS = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=50)
@given(_ANSWERS)
def test_plain_answers_come_back(answer: object) -> None:
    assert decode(encode(answer)) == answer


@pytest.mark.parametrize("dtype", ["f4", "f8", "i1", "u1", "i8", "?", "f2"])
def test_arrays_come_back(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    found = decode(encode({"times": [array, array[:0]], "text": "x"}))
    np.testing.assert_array_equal(found["times"][0], array)
    assert found["times"][0].dtype == array.dtype
    assert found["times"][1].shape == (0, 3)


def test_strings_in_arrays_come_back() -> None:
    found = decode(encode(np.array(["a", "bc"], dtype=object)))
    assert found.tolist() == ["a", "bc"]


def test_numbers_that_files_do_not_know_come_back_as_their_values() -> None:
    found = decode(encode(np.array([1.5, -2.0], ml_dtypes.bfloat16)))
    assert found.dtype == np.float32 and found.tolist() == [1.5, -2.0]


def test_pickles_are_not_read() -> None:
    with pytest.raises(ValueError, match="no answer"):
        decode(pickle.dumps({"answer": 1}))


@pytest.mark.parametrize("cut", [0, 1, 50, 200])
def test_truncated_answers_are_refused(cut: int) -> None:
    with pytest.raises(ValueError, match="no answer"):
        decode(encode({"answer": list(range(100))})[:cut])


def test_objects_are_refused() -> None:
    with pytest.raises(TypeError):
        encode({"answer": object()})
