from __future__ import annotations

import numpy as np
import pytest

from irtools.errors import DataError
from irtools.targets.signature import InputSlot, check_feeds, wanted_outputs
from irtools.words import one_line

_X = InputSlot("x", np.dtype(np.float32), (None, 3))
_S = InputSlot("s", np.dtype(object), (None,))
_OPEN = InputSlot("any", None, None)
_EXTRA = InputSlot("w", np.dtype(np.float32), None, required=False)


def test_feeds_come_in_the_order_of_the_inputs() -> None:
    feeds = {"any": np.array(1), "x": np.ones((2, 3), np.float32)}
    assert list(check_feeds([_X, _OPEN, _EXTRA], feeds)) == ["x", "any"]


def test_strides_are_straightened_and_scalars_stay_scalars() -> None:
    turned = np.ones((3, 2), np.float32).T
    assert check_feeds([_X], {"x": turned})["x"].flags.c_contiguous
    scalar = InputSlot("x", np.dtype(np.float32), ())
    assert check_feeds([scalar], {"x": np.float32(1)})["x"].shape == ()  # type: ignore[dict-item]


@pytest.mark.parametrize("dtype", [object, "U3", "S3"])
def test_strings_of_any_kind_are_strings(dtype: object) -> None:
    check_feeds([_S], {"s": np.array(["a", "b"]).astype(dtype)})  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "no data for input 'x'; got nothing"),
        ({"x": np.ones((2, 3))}, "input 'x' wants float32, got float64"),
        ({"x": np.ones((2, 3, 1), np.float32)}, r"wants shape \[\?x3\], got \[2x3x1\]"),
        ({"x": np.ones((2, 3), np.float32), "y": np.ones(1)}, "no input 'y'; its inputs are 'x'"),
    ],
)
def test_what_does_not_fit_is_named(feeds: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_feeds([_X], feeds)


def test_outputs() -> None:
    assert wanted_outputs(("a", "b"), None) == ("a", "b")
    assert wanted_outputs(("a", "b"), ["b"]) == ("b",)
    with pytest.raises(DataError, match="no output 'c'; its outputs are 'a', 'b'"):
        wanted_outputs(("a", "b"), ["c"])


def test_messages_become_one_printable_line() -> None:
    assert one_line("a\n  b\t\x1b[31mc") == "a b \\x1b[31mc"
    assert one_line("x" * 50, limit=10) == "xxxxxxx..."
