"""The pass `fold-index-grids`: what it reads as it is, what it leaves, and the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from irtools.passes.cleanup.index_grids import FoldIndexGrids
from irtools.passmanager import PassContext

_NUMBERS = "int64 zero = {0}, int64 one = {1}, int64[1] i0 = {0}, int64[1] i1 = {1}"
_MORE = (
    "int64[1] i2 = {2}, int64[1] i3 = {3}, int64[1] last = {-1}, int64 two = {2}, int64 m1 = {-1}"
)
_SIZES = """
  b1 = Shape<start=0, end=1>(m)  b = Squeeze(b1)  s1 = Shape<start=1, end=2>(m)  s = Squeeze(s1)"""
_GRID = """
  rows = Range(zero, b, one)  r1 = Unsqueeze(rows, i1)  r2 = Unsqueeze(r1, i2)
  r3 = Unsqueeze(r2, i3)
  columns = Range(zero, s, one)  all = Concat<axis=0>(b1, i1, i1, s1)
  re = Expand(r3, all)  ce = Expand(columns, all)
  rg = Unsqueeze(re, last)  cg = Unsqueeze(ce, last)  grid = Concat<axis=-1>(rg, cg)"""
_PLACES = "  places = Range(zero, s, one)  q = Unsqueeze(places, i1)"
_KEY = "  k1 = Unsqueeze(m, i1)  k = Unsqueeze(k1, i1)"


def _graph(body: str, opset: int = 20) -> str:
    return f"""<ir_version: 10, opset_import: ["" : {opset}]>
    g (bool[N,S] m) => (bool[A,B,C,D] y) <{_NUMBERS}, {_MORE}> {{{_SIZES}{body} }}"""


_WHOLE = _graph(f"{_GRID}  y = GatherND(m, grid)")
_FLAT = _graph("""
  rows = Range(zero, b, one)  r1 = Unsqueeze(rows, i1)  r2 = Unsqueeze(r1, i2)
  r3 = Unsqueeze(r2, i3)
  columns = Range(zero, s, one)  from = Mul(r3, s)  indices = Add(from, columns)
  flat = Reshape(m, last)  y = Gather(flat, indices)""")
_IDLE = _graph(f"{_PLACES}{_KEY}  always = GreaterOrEqual(q, zero)  y = And(always, k)")
_IDLE_LESS = _graph(f"{_PLACES}{_KEY}  always = Less(m1, q)  y = And(k, always)")
_IDLE_CHOICE = _graph(
    f"{_PLACES}{_KEY}  always = GreaterOrEqual(q, zero)  n = Not(k)  y = Where(always, k, n)"
)

_FOLDED = {
    "pairs": _WHOLE,
    "numbers": _FLAT,
    "a test": _IDLE,
    "another test": _IDLE_LESS,
    "a choice": _IDLE_CHOICE,
}
_KEPT = {
    "in another order": _WHOLE.replace("Concat<axis=-1>(rg, cg)", "Concat<axis=-1>(cg, rg)"),
    "from the second": _WHOLE.replace("Range(zero, s, one)", "Range(one, s, one)"),
    "the diagonal": _WHOLE.replace("[N,S] m", "[N,N] m")
    .replace("(rg, cg)", "(cg, cg)")
    .replace("(b1, i1, i1, s1)", "(i1, i1, i1, s1)"),
    "every second": _WHOLE.replace("Range(zero, s, one)", "Range(zero, s, two)"),
    "of another size": _WHOLE.replace("Range(zero, s, one)", "Range(zero, b, one)"),
    "for several batches": _WHOLE.replace("(m, grid)", "<batch_dims=1>(m, grid)"),
    "repeated": _WHOLE.replace("Concat<axis=0>(b1, i1, i1, s1)", "Concat<axis=0>(b1, s1, i1, s1)"),
    "steps of another size": _FLAT.replace("Mul(r3, s)", "Mul(r3, b)"),
    "a test of some": _IDLE.replace("GreaterOrEqual(q, zero)", "Greater(q, zero)"),
    "a test that is turned": _IDLE.replace("GreaterOrEqual(q, zero)", "LessOrEqual(q, zero)"),
    "a test that may fail": _IDLE.replace("GreaterOrEqual(q, zero)", "LessOrEqual(q, s)"),
    "a choice that is turned": _IDLE_CHOICE.replace("GreaterOrEqual(q, zero)", "Less(q, zero)"),
    "an old Unsqueeze": _WHOLE.replace('"" : 20', '"" : 12'),
}


def _numbers(model: ir.Model, batch: int, length: int) -> np.ndarray:
    mask = np.random.default_rng(0).random((batch, length)) < 0.5
    return np.asarray(ReferenceEvaluator(ir.to_proto(model)).run(None, {"m": mask})[0])


def _operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("name", _FOLDED)
def test_reads_all_as_it_is(name: str, make_context: Callable[[], PassContext]) -> None:
    before, model = (ir.from_onnx_text(_FOLDED[name]) for _ in range(2))
    result = FoldIndexGrids().run(model, make_context())
    assert result.counters["num-folded-grids"] == 1
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    # Nothing counts any more: sizes are read from the mask.
    assert not {"Gather", "GatherND", "Range", "And", "Where", "Not"} & {*_operators(model)}
    for size in ((1, 1), (1, 5), (3, 1), (2, 7), (2, 0)):
        assert np.array_equal(_numbers(before, *size), _numbers(model, *size))
    assert not FoldIndexGrids().run(model, make_context()).modified


def test_the_whole_is_one_node(make_context: Callable[[], PassContext]) -> None:
    model = ir.from_onnx_text(_WHOLE)
    FoldIndexGrids().run(model, make_context())
    (node,) = (node for node in model.graph if node.outputs[0].is_graph_output())
    assert node.op_type == "Unsqueeze" and node.inputs[0] is model.graph.inputs[0]


@pytest.mark.parametrize("name", _KEPT)
def test_leaves(name: str, make_context: Callable[[], PassContext]) -> None:
    model = ir.from_onnx_text(_KEPT[name])
    printed = _operators(model)
    assert not FoldIndexGrids().run(model, make_context()).modified
    assert _operators(model) == printed
