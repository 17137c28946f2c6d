"""Lengths beyond which a model looks for a position that its table does not hold."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from irtools.analysis.positions import PositionLimit, longest_sequence

_ROWS = 12
_WANTED = 64


def model(counting: str, inputs: str = "int64[batch, sequence] attention_mask") -> ir.Model:
    """A model that gathers `places` from a table of 12 rows."""
    numbers = ", ".join(["0.0"] * 2 * _ROWS)
    return ir.from_onnx_text(f"""
    <ir_version: 10, opset_import: ["" : 20]>
    g ({inputs}) => (float[a, b, c] y)
    <float[{_ROWS}, 2] table = {{{numbers}}}, int64 zero = {{0}}, int64 one = {{1}},
     int64 two = {{2}}> {{ {counting} y = Gather (table, places) }}
    """)


LENGTH = "shape = Shape (attention_mask) s = Gather (shape, one)"
CASES = {
    "a mask, counted": ("places = CumSum (attention_mask, one)", 11),
    "counted over the batch, which is of two": ("places = CumSum (attention_mask, zero)", None),
    "counted downward and taken away": (
        "d = Sub (attention_mask, one) n = CumSum (d, one) places = Sub (two, n)",
        9,
    ),
    "a range of every second": (f"{LENGTH} places = Range (zero, s, two)", 12),
    "a range downward: nothing is known": (
        f"{LENGTH} minus = Sub (zero, one) places = Range (s, zero, minus)",
        None,
    ),
    "twice the place": (f"{LENGTH} r = Range (zero, s, one) places = Mul (r, two)", 6),
    "one of two, whatever the condition": (
        f"{LENGTH} r = Range (zero, s, one) f = Greater (r, two) places = Where (f, r, two)",
        12,
    ),
    "joined to others": (
        f"{LENGTH} r = Range (zero, s, one) m = Add (r, two) places = Concat <axis = 0> (r, m)",
        10,
    ),
    "cut off below the table's end": (
        f"{LENGTH} r = Range (zero, s, one) t = Add (two, two) places = Clip (r, zero, t)",
        None,
    ),
    "cut off at the bottom": (
        f"{LENGTH} r = Range (zero, s, one) t = Add (two, two) places = Clip (r, t)",
        12,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_longest_sequence_of(case: str) -> None:
    counting, length = CASES[case]
    wanted = None if length is None else PositionLimit(length, "table", _ROWS)
    assert longest_sequence(model(counting), _WANTED, 2) == wanted


@pytest.mark.parametrize(("wanted", "binding"), [(10, False), (11, False), (12, True)])
def test_a_limit_is_told_where_more_is_wanted(wanted: int, binding: bool) -> None:
    found = longest_sequence(model("places = CumSum (attention_mask, one)"), wanted, 2)
    assert (found is not None) == binding


def test_settled_sizes_stay_as_they_are() -> None:
    """Seven places are taken by a cache; five are left for the sequence."""
    counting = (
        "a = Shape (attention_mask) s = Gather (a, one) b = Shape (cache) p = Gather (b, one) "
        "total = Add (s, p) places = Range (zero, total, one)"
    )
    inputs = "int64[batch, sequence] attention_mask, float[batch, past] cache"
    found = longest_sequence(model(counting, inputs), _WANTED, 2, {"past": 7})
    assert found == PositionLimit(5, "table", _ROWS)


def test_the_smallest_of_several_tables_counts() -> None:
    counting = (
        "n = CumSum (attention_mask, one) two_more = Add (n, two) "
        "x = Gather (table, two_more) places = Identity (n)"
    )
    assert longest_sequence(model(counting), _WANTED, 2) == PositionLimit(9, "table", _ROWS)


def test_tables_of_what_does_not_grow_are_no_limit() -> None:
    counting = "places = Add (attention_mask, two)"
    assert longest_sequence(model(counting), _WANTED, 2) is None
