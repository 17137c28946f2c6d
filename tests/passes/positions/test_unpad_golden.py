"""What `unpad` writes, line by line, and the twins of it that must stay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from irtools.model import Model, print_model
from irtools.passes.positions.unpad import Unpad
from irtools.passmanager import PassContext
from irtools.testing import check_pass, read_model

from .conftest import FIRST, FUSED, WRITTEN, block

MEAN = """
<ir_version: 10, opset_import: ["" : 18]>
mean (
  float[N,S,4] x, int64[N,S] mask, float[4,2] w, int64[1] second, int64[1] third
) => (float[N,2] y) {{
  h = MatMul (x, w)
  flags = Cast <to = 1> (mask)
  column = Unsqueeze (flags, third)
  {reading}
}}
"""
HIDDEN = "open = Mul (h, column)  y = ReduceSum <keepdims = 0> (open, second)"
GOLDEN = """\
mask_rows = Reshape(mask, mask_rows_shape)
is_token = Cast<to=9>(mask)
token_flags = Cast<to=7>(is_token)
later_flags = Slice(token_flags, token_constant_3, token_constant_4, token_constant_3)
first_and_flags = Pad(later_flags, token_constant_5, token_constant_1)
flat_token_flags = Reshape(first_and_flags, token_constant_2)
token_index = NonZero(flat_token_flags)
mask_tokens = Gather<axis=0>(mask_rows, token_index)
x_rows = Reshape(x, x_rows_shape)
x_tokens = Gather<axis=0>(x_rows, token_index)
mask_sizes = Shape(mask)
is_token_row = Reshape(is_token, seen_shape)
token_number = CumSum(flat_token_flags, token_constant)
flat_token_at = Sub(token_number, token_constant_1)
token_at = Reshape(flat_token_at, mask_sizes)
h = MatMul(x_tokens, w)
flags = Cast<to=1>(mask_tokens)
column = Unsqueeze(flags, third)
open = Mul(h, column)
open_rows = Reshape(open, open_rows_shape)
open_positions = Gather<axis=0>(open_rows, token_at)
open_filled = Where(is_token_row, open_positions, at_padding)
y = ReduceSum<keepdims=0>(open_filled, second)"""


def mean(reading: str) -> Model:
    weights = {
        "w": np.ones((4, 2), np.float32),
        "second": np.array([1]),
        "third": np.array([2]),
    }
    return read_model(MEAN.format(reading=reading), weights)


def test_fires(make_context: Callable[..., PassContext]) -> None:
    model = mean(HIDDEN)
    assert Unpad().run(model.ir, make_context()).modified
    found = [line.strip() for line in print_model(model.ir).splitlines()]
    nodes = [line.partition('  "')[0] for line in found if " = " in line and ": " not in line]
    assert "\n".join(nodes) == GOLDEN


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        (
            "s = Add (h, column)  y = ReduceSum <keepdims = 0> (s, second)",
            "padding is computed: all positions of s are read by ReduceSum at y",
        ),
        (
            "y = ReduceMax <keepdims = 0> (h, second)",
            "padding is computed: all positions of h are read by ReduceMax at y",
        ),
    ],
    ids=["padding is summed up", "padding may be the largest"],
)
def test_stays(reading: str, reason: str, make_context: Callable[..., PassContext]) -> None:
    model = mean(reading)
    text = model.text()
    done = Unpad().run(model.ir, make_context())
    assert not done.modified and done.notes == (reason,)
    assert model.text() == text


def test_contract() -> None:
    states = "y = Identity(hidden)"
    models = {
        "written": Model(block(WRITTEN, FIRST)),
        "fused": Model(block(FUSED, FIRST)),
        "states": Model(block(FUSED, states, "float[N,S,16] y")),
    }
    assert set(check_pass(Unpad(), models)) == set(models)
