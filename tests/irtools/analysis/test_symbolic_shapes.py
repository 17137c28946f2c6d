"""What the analysis of shapes proves, and what it must not claim."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from irtools.analysis.shapes import SymbolicShapes

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'

CASES = {
    "broadcast keeps names": (
        "g (float[B,S,8] x, float[8] b) => (float[?,?,?] y) { y = Add(b, x) }",
        "B, S, 8",
    ),
    "a number above one decides": (
        "g (float[N,4] x, float[5,1] b) => (float[?,?] y) { y = Add(x, b) }",
        "5, 4",
    ),
    "a slice of a table to the length of the input": (
        "g (float[B,S,8] x, float[1,512,8] t) => (float[?,?,?] y) "
        "<int64[1] zero = {0}, int64[1] one = {1}> "
        "{ n = Shape<start=1, end=2>(x)  p = Slice(t, zero, n, one)  y = Add(x, p) }",
        "B, S, 8",
    ),
    "a name that is a product is one": (
        'g (float[B,4,S] x, float["4*B",S] z) => (float[?,?] y) <int64[2] m = {-1, 1}> '
        "{ n = Shape<start=2>(x)  f = Constant<value_ints=[-1]>()  t = Concat<axis=0>(f, n) "
        "  a = Reshape(x, t)  y = Add(a, z) }",
        "4*B, S",
    ),
    "windows over a sound, one after the other": (
        "g (float[B,1,S] x, float[8,1,10] a, float[8,8,3] b) => (float[?,?,?] y) "
        "{ c = Conv<strides=[5]>(x, a)  y = Conv<strides=[2]>(c, b) }",
        "B, 8, -1 + (S//10)",
    ),
    "a window that keeps the size": (
        "g (float[N,4,H,W] x, float[8,4,3,3] w) => (float[?,?,?,?] y) "
        "{ c = Conv<pads=[1,1,1,1]>(x, w)  y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c) }",
        "N, 8, (H//2), (W//2)",
    ),
    "a size that exporters compute from the length of a sound": (
        "g (float[B,S] x) => (float[?,?] y) <int64 ten = {10}, int64 m = {-1}, int64[1] r = {-1}> "
        "{ n = Shape<start=1, end=2>(x)  s = Squeeze(n)  d = Div(s, ten)  k = Add(d, m) "
        "  f = Reshape(k, r)  b = Shape<end=1>(x)  t = Concat<axis=0>(b, f)  z = CastLike(m, x) "
        "  y = Expand(z, t) }",
        "B, -1 + (S//10)",
    ),
    "a resize to sizes": (
        "g (float[N,4,H,6] x) => (float[?,?,?,?] y) <int64[2] s = {7, 8}> "
        "{ n = Shape<end=2>(x)  t = Concat<axis=0>(n, s)  y = Resize(x, , , t) }",
        "N, 4, 7, 8",
    ),
    "a resize by scales of which some are one": (
        "g (float[N,4,H,6] x) => (float[?,?,?,?] y) <float[4] s = {1.0, 1.0, 2.0, 1.0}> "
        "{ y = Resize(x, , s) }",
        "N, 4, ?y.2, 6",
    ),
    "the rest of a reshape": (
        "g (float[B,S,12] x) => (float[?,?,?,?] y) <int64[1] m = {-1}, int64[1] h = {4}> "
        "{ l = Shape<end=2>(x)  s = Concat<axis=0>(l, m, h)  y = Reshape(x, s) }",
        "B, S, 3, 4",
    ),
    "sizes multiplied and taken apart again": (
        "g (float[B,S,8] x) => (float[?,?,?] y) <int64[2] f = {-1, 8}> "
        "{ s = Shape(x)  a = Reshape(x, f)  y = Reshape(a, s) }",
        "B, S, 8",
    ),
    "a pad of two axes": (
        "g (float[N,4,H,6] x) => (float[?,?,?,?] y) <int64[8] p = {0, 0, 1, 2, 0, 0, 3, 4}> "
        "{ y = Pad(x, p) }",
        "N, 4, 4 + H, 12",
    ),
    "a pad as TorchScript writes it: pairs from the last axis, turned round": (
        "g (float[N,4,H,6] x) => (float[?,?,?,?] y) <int64[8] p = {3, 4, 1, 2, 0, 0, 0, 0}, "
        "int64[2] pairs = {-1, 2}, int64[1] last = {-1}, int64[1] zero = {0}, "
        "int64[1] front = {-9223372036854775807}, int64[1] flat = {-1}> "
        "{ a = Reshape(p, pairs)  b = Slice(a, last, front, zero, last) "
        "  c = Transpose<perm = [1, 0]>(b)  d = Reshape(c, flat)  y = Pad(x, d) }",
        "N, 4, 3 + H, 13",
    ),
    "expand by where over -1, as torch writes it": (
        "g (float[B,1] x, float[B,S] z) => (float[?,?] y) "
        "<int64[1] m = {-1}, int64[2] ones = {1, 1}, int64[2] minus = {-1, -1}> "
        "{ n = Shape<start=1>(z)  t = Concat<axis=0>(m, n)  e = Equal(t, minus) "
        "  w = Where(e, ones, t)  y = Expand(x, w) }",
        "B, S",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_proves(case: str) -> None:
    source, expected = CASES[case]
    model = ir.from_onnx_text(f"{HEAD} {source}")
    shape = SymbolicShapes.of(model).shape(model.graph.outputs[0])
    assert shape is not None
    assert ", ".join(map(str, shape)) == expected


def test_a_convolution_of_unknown_rank_has_the_rank_of_its_weight() -> None:
    model = ir.from_onnx_text(
        f"{HEAD} g (float[B,4,9,9] x, int64[n] s, float[8,4,3,3] w) => (y) "
        "{ t = Reshape(x, s)  y = Conv(t, w) }"
    )
    shape = SymbolicShapes.of(model).shape(model.graph.outputs[0])
    assert shape is not None and len(shape) == 4 and shape[1] == 8
    assert not any(isinstance(shape[axis], int) for axis in (0, 2, 3))


def test_unnamed_sizes_differ() -> None:
    model = ir.from_onnx_text(
        f"{HEAD} g (float[?] a, float[?] b) => (float[?] y) {{ y = Add(a, b) }}"
    )
    facts = SymbolicShapes.of(model)
    a, b = model.graph.inputs
    assert facts.shape(a) != facts.shape(b)
    assert facts.shape(model.graph.outputs[0]) not in (facts.shape(a), facts.shape(b))


def test_a_weight_that_may_be_overridden_is_not_known() -> None:
    model = ir.from_onnx_text(
        f"{HEAD} g (float[N,4] x, int64[2] s = {{2, -1}}) => (float[?,?] y) {{ y = Reshape(x, s) }}"
    )
    facts = SymbolicShapes.of(model)
    assert facts.integers(model.graph.inputs[1]) is None
    assert facts.rank(model.graph.outputs[0]) == 2


@pytest.mark.parametrize(
    "body",
    [
        "y = Transpose <perm = [0, 5]> (x)",
        "y = Concat <axis = 7> (x, s)",
        "y = com.microsoft.Attention ()",
        "y = com.microsoft.QGemm (x)",
        "p = Constant <value_ints = [1, 1]> ()  a = Constant <value_ints = [9]> ()  "
        "y = Pad (x, p, , a)",
    ],
)
def test_a_node_that_does_not_fit_its_inputs_has_no_known_shape(body: str) -> None:
    head = '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>'
    model = ir.from_onnx_text(f"{head} g (float[n,4] x, float s) => (float[?,?] z) {{ {body} }}")
    last = list(model.graph)[-1].outputs[0]
    assert SymbolicShapes.of(model).shape(last) is None
