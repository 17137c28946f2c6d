"""Which sizes of outputs depend on the values of the inputs."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from irtools.analysis.data_sizes import DataSizes, steady_values

_HEAD = '<ir_version: 10, opset_import: ["" : 20]>'

_BY_VALUE = {
    "NonZero": "g (float[n] x) => (int64[1, k] y) { y = NonZero (x) }",
    "Compress": """g (float[n] x) => (float[k] y) {
        zero = Constant <value = float {0}> ()
        c = Greater (x, zero)
        y = Compress <axis = 0> (x, c)
    }""",
    "computed Range": """g (float[n] x) => (int64[k] y) {
        zero = Constant <value = int64 {0}> ()
        one = Constant <value = int64 {1}> ()
        most = ReduceMax <keepdims = 0> (x)
        n = Cast <to = 7> (most)
        y = Range (zero, n, one)
    }""",
    "TopK by a count": """g (float[n] x) => (float[k] y) {
        at = NonZero (x)
        s = Shape <start = 1> (at)
        y, i = TopK (x, s)
    }""",
    "branches": """g (float[4] x) => (float[k] y) {
        s = ReduceSum <keepdims = 0> (x)
        c = Cast <to = 9> (s)
        y = If (c) <
            then_branch = a () => (float[4] p) { p = Neg (x) },
            else_branch = b () => (float[1] q) { q = ReduceMax (x) }
        >
    }""",
    "a loop that stops": """g (float[4] x, bool go) => (float[k, 4] y) {
        most = Constant <value = int64 {9}> ()
        y = Loop (most, go) <body = b (int64 i, bool c) => (bool d, float[4] r) {
            r = Neg (x)
            s = ReduceSum <keepdims = 0> (x)
            d = Cast <to = 9> (s)
        }>
    }""",
}

_BY_SIZE = {
    "rows put back to where they were": """g (float[n, 4] x, int64[n] flags)
        => (float[n, 4] y) <float[k, 4] rows> {
        zero = Constant <value = int64 {0}> ()
        at = NonZero (flags)
        axes = Constant <value_ints = [0]> ()
        row = Squeeze (at, axes)
        rows = Gather (x, row)
        place = CumSum <exclusive = 1> (flags, zero)
        y = Gather (rows, place)
    }""",
    "Reshape by the shape": """g (float[n, 4] x) => (float[m] y) {
        s = Size (x)
        a = Constant <value_ints = [0]> ()
        t = Unsqueeze (s, a)
        y = Reshape (x, t)
    }""",
    "Range over the length": """g (float[n] x) => (int64[k] y) {
        zero = Constant <value = int64 {0}> ()
        one = Constant <value = int64 {1}> ()
        s = Shape (x)
        a = Constant <value_ints = [0]> ()
        n = Squeeze (s, a)
        y = Range (zero, n, one)
    }""",
    "plain": "g (float[n, 4] x) => (float[n, 4] y) { y = Relu (x) }",
}


@pytest.mark.parametrize("name", list(_BY_VALUE))
def test_what_is_found_decides(name: str) -> None:
    sizes = DataSizes.of(ir.from_onnx_text(f"{_HEAD}\n{_BY_VALUE[name]}"))
    assert "y" in sizes
    found = {"NonZero": (1, 7), "a loop that stops": (7, 4)}.get(name, (7,))
    axis = found.index(7)
    assert sizes.free_axes("y", found, {"x": (9,)}) == {axis}


@pytest.mark.parametrize("name", list(_BY_SIZE))
def test_sizes_of_inputs_are_no_data(name: str) -> None:
    sizes = DataSizes.of(ir.from_onnx_text(f"{_HEAD}\n{_BY_SIZE[name]}"))
    assert not sizes.shapes
    assert sizes.free_axes("y", (3,), {"x": (3, 4)}) == frozenset()


def test_a_declared_name_counts_where_it_is_true() -> None:
    text = f"{_HEAD} g (float[n] x) => (int64[1, n] y) {{ y = NonZero (x) }}"
    sizes = DataSizes.of(ir.from_onnx_text(text))
    assert sizes.free_axes("y", (1, 9), {"x": (9,)}) == frozenset()
    assert sizes.free_axes("y", (1, 5), {"x": (9,)}) == {1}


def test_outputs_without_a_batch_and_what_they_are_chosen_from() -> None:
    text = f"""{_HEAD} g (float[n] x) => (float[k] y, float[n] z) {{
        z = Neg (x)
        at = NonZero (z)
        zero = Constant <value = int64 {{0}}> ()
        row = Gather (at, zero)
        y = Gather (z, row)
    }}"""
    sizes = DataSizes.of(ir.from_onnx_text(text))
    assert set(sizes.shapes) == {"y"}
    assert sizes.without_batch() == {"y"}
    assert steady_values(ir.from_onnx_text(text)) == ("z",)


_CHOICES = {
    "boxes of the best scores": (
        "float[n,9] s, float[n,9,4] b",
        "float[n,3] v, float[n,3,4] y",
        "k = Constant <value = int64[1] {3}> () score = Neg (s) box = Abs (b) "
        "v, at = TopK (score, k) y = Gather <axis = 1> (box, at)",
        ("v", "box", "score"),
    ),
    "the class alone": ("float[n,9] x", "int64[n,1] y", "z = Neg (x) y = ArgMax (z)", ("z",)),
    "a place by ids, which nothing rounds": (
        "int64[n,9] ids, float[n,9,4] x",
        "float[n,9,4] y",
        "z = Neg (x) at = ArgMax (ids) y = Gather <axis = 1> (z, at)",
        None,
    ),
    "peaks of a map": (
        "float[n,1,9,9] x",
        "float[n,1,9,9] y",
        "z = Neg (x) p = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (z) "
        "same = Equal (z, p) m = Cast <to = 1> (same) y = Mul (p, m)",
        ("z", "p"),
    ),
    "a comparison with a constant": (
        "float[n,9] x",
        "float[n,9] y",
        "zero = Constant <value = float {0}> () z = Neg (x) same = Equal (z, zero) "
        "y = Where (same, x, z)",
        None,
    ),
    "scores alone": ("float[n,9] x", "float[n,9] y", "y = Softmax (x)", None),
}


@pytest.mark.parametrize("case", _CHOICES)
def test_what_can_be_compared_after_rounding(case: str) -> None:
    inputs, outputs, body, steady = _CHOICES[case]
    model = ir.from_onnx_text(f"{_HEAD} g ({inputs}) => ({outputs}) {{ {body} }}")
    found = steady_values(model)
    assert found == steady if steady is None else set(found or ()) == set(steady)
