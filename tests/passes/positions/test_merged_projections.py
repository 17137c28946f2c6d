"""Query, key and value as one product, together with passes that follow positions and heads."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset
from irtools.model import Interface, Model, verify
from irtools.passmanager import PassContext, Pipeline

from .conftest import FIRST, FUSED, WRITTEN, block, decibels, feeds
from .test_unpad_orders import answer

MERGED = "merge-projections:when=always"
STATIC = "int8:mode=static:min-size=0:smooth=false:method=rtn:least-sqnr=none"
EXACT = 110.0


def made(model: ir.Model, text: str, target: str = "ort-cpu:isa=vnni") -> tuple[ir.Model, list]:
    """Run a pipeline, with data; returns the model and the counters of each pass."""
    after, counters = model.clone(), []
    for step in Pipeline.parse(text):
        data = Dataset(feeds(after, 16, 9))
        ctx = PassContext.for_model(Model(after), target, calibration=data, threads=1)
        counters.append(step.run(after, ctx).counters)
        verify(after, interface=Interface.of(model))
    return after, counters


@pytest.mark.parametrize("form", [WRITTEN, FUSED], ids=["written", "fused"])
@pytest.mark.parametrize(
    ("order", "merged"),
    [
        (f"fuse,{MERGED}", 3),
        (f"{MERGED},fuse", 3),
        (f"sink,{MERGED}", 2),
        (f"{MERGED},sink", 3),
        (f"fuse,{MERGED},unpad", 3),
        (f"fuse,unpad,{MERGED}", 3),
        (f"fuse,cleanup,hoist-shapes,sink,{MERGED},unpad", 2),
    ],
)
def test_any_order(form: str, order: str, merged: int) -> None:
    before = block(form, FIRST)
    after, counters = made(before, f"hoist-shapes,{order}")
    assert sum(c.get("num-merged-products", 0) for c in counters) == merged
    arrays = feeds(before, 5, 7)
    assert decibels(answer(before, arrays), answer(after, arrays)) >= EXACT


def test_attention_is_fused_all_the_same() -> None:
    after, _ = made(block(WRITTEN, FIRST), f"{MERGED},fuse")
    assert [node.op_type for node in after.graph].count("Attention") == 1


@pytest.mark.parametrize("order", [f"{STATIC},{MERGED}", f"{MERGED},{STATIC}"])
def test_int8_is_that_of_three(order: str) -> None:
    """Ranges are of one input, scales of columns: the same codes, in either order."""
    before, arrays = block(WRITTEN, FIRST), feeds(block(WRITTEN, FIRST), 5, 7)
    three, _ = made(before, STATIC)
    one, counters = made(before, order)
    assert sum(c.get("num-merged-products", 0) for c in counters) == 3
    np.testing.assert_array_equal(answer(one, arrays), answer(three, arrays))


def test_heads_are_pruned_from_one_product() -> None:
    """Pruning sees heads through the Split: it takes as much from one product as from three."""
    before = block(WRITTEN, FIRST)
    three, of_three = made(before, "fuse,prune:ratio=0.5")
    one, of_one = made(before, f"fuse,{MERGED},prune:ratio=0.5")
    assert of_one[-1]["num-heads-removed"] == of_three[-1]["num-heads-removed"] > 0
    arrays = feeds(before, 5, 7)
    assert decibels(answer(three, arrays), answer(one, arrays)) >= EXACT
