"""The pass `delay-expand`: what goes, what moves, what stays, and the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from irtools.passes.cleanup.expands import DelayExpand
from irtools.passmanager import PassContext


def _graph(body: str) -> str:
    return f"""<ir_version: 10, opset_import: ["" : 20]>
    g (float[N,1,S] x, float[N,S,S] z) => (float[A,B,C] y)
    <int64[1] one = {{1}}, float low = {{-3.5}}, float zero = {{0}}> {{
      s = Shape<start=2, end=3>(x)  square = Concat<axis=0>(one, s, one)
      {body} }}"""


_REMOVED = {
    "first": "e = Expand(x, square)  y = Add(e, z)",
    "second": "e = Expand(x, square)  y = Sub(z, e)",
    "one of three": "e = Expand(x, square)  c = Greater(e, zero)  y = Where(c, e, z)",
    "read by two": "e = Expand(x, square)  a = Mul(e, z)  y = Add(e, a)",
    "of a lower rank": "s2 = Concat<axis=0>(s, s)  e = Expand(zero, s2)  y = Add(z, e)",
}
_DELAYED = {
    "a choice": "c = Greater(x, zero)  e = Expand(c, square)  y = Where(e, zero, low)",
    "two steps": "e = Expand(x, square)  a = Neg(e)  y = Mul(a, low)",
    "a choice by itself": (
        "c = Greater(x, zero)  e = Expand(c, square)  f = Expand(x, square)  y = Where(e, f, low)"
    ),
    "a cast": "c = Greater(x, zero)  e = Expand(c, square)  y = Cast<to=1>(e)",
}
_KEPT = {
    "read elsewhere": "e = Expand(x, square)  a = Neg(e)  b = Abs(e)  y = MatMul(a, b)",
    "by a product": "e = Expand(x, square)  y = MatMul(e, z)",
    "nothing to expand": "y = Add(x, z)",
}


def _run(model: ir.Model, batch: int, length: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.normal(size=(batch, 1, length)).astype(np.float32),
        "z": rng.normal(size=(batch, length, length)).astype(np.float32),
    }
    return np.asarray(ReferenceEvaluator(ir.to_proto(model)).run(None, feeds)[0])


def _same(before: ir.Model, after: ir.Model) -> None:
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    for size in ((1, 1), (1, 4), (3, 5), (2, 0)):
        first, second = _run(before, *size), _run(after, *size)
        assert first.shape == second.shape and np.array_equal(first, second)


@pytest.mark.parametrize("name", _REMOVED)
def test_what_broadcasts_needs_no_copy(name: str, make_context: Callable[[], PassContext]) -> None:
    before, model = (ir.from_onnx_text(_graph(_REMOVED[name])) for _ in range(2))
    assert DelayExpand().run(model, make_context()).counters["num-removed-expands"] > 0
    while DelayExpand().run(model, make_context()).modified:
        pass
    assert "Expand" not in [node.op_type for node in model.graph]
    _same(before, model)


@pytest.mark.parametrize("name", _DELAYED)
def test_expands_last(name: str, make_context: Callable[[], PassContext]) -> None:
    before, model = (ir.from_onnx_text(_graph(_DELAYED[name])) for _ in range(2))
    delayed = 0
    while (result := DelayExpand().run(model, make_context())).modified:
        delayed += result.counters["num-delayed-expands"]
    assert delayed > 0
    operators = [node.op_type for node in model.graph]
    assert operators[-1] == "Expand" and operators.count("Expand") == 1
    _same(before, model)


@pytest.mark.parametrize("name", _KEPT)
def test_leaves(name: str, make_context: Callable[[], PassContext]) -> None:
    model = ir.from_onnx_text(_graph(_KEPT[name]))
    assert not DelayExpand().run(model, make_context()).modified
