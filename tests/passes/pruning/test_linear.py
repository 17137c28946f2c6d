"""Which layers are a plain x W + b, so that what remains of them can be refitted."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.passes.pruning.linear import LinearLayer, linear_layer

W = np.arange(16, dtype=np.float32).reshape(4, 4)


def layer(text: str, w: np.ndarray = W) -> LinearLayer | None:
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 20, "local" : 1]> {text}')
    (value,) = [v for v in model.graph.inputs if v.name == "w"]
    model.graph.inputs.remove(value)
    value.const_value = ir.tensor(w, name="w")
    model.graph.register_initializer(value)
    node = next(n for n in model.graph if value in n.inputs)
    return linear_layer(node)


GEMM = "g (float[n,4] x, float[4,4] w) => (float[n,4] y) <float[4] b = {{1, 2, 3, 4}}> {{ y = {} }}"


@pytest.mark.parametrize(
    ("op", "axis", "has_bias"),
    [
        ("Gemm(x, w, b)", 0, True),
        ("Gemm<transB=1>(x, w, b)", 1, True),
        ("Gemm<beta=2.0>(x, w, b)", 0, False),
        ("Gemm(x, w)", 0, False),
        ("MatMul(x, w)", 0, False),
    ],
)
def test_products_are_linear_layers(op: str, axis: int, has_bias: bool) -> None:
    found = layer(GEMM.format(op))
    assert found is not None
    assert (found.bias_node is not None) == has_bias
    # Rows are inputs, however the weight is stored.
    np.testing.assert_array_equal(found.weight(), W.T if axis else W)


def test_a_scaled_product_and_a_transposed_input_are_none() -> None:
    assert layer(GEMM.format("Gemm<alpha=0.5>(x, w, b)")) is None
    assert layer(GEMM.format("Gemm<transA=1>(x, w, b)")) is None


@pytest.mark.parametrize(("add", "has_bias"), [("Add", True), ("local.Add", False)])
def test_only_the_standard_add_brings_a_bias(add: str, has_bias: bool) -> None:
    text = f"""g (float[n,4] x, float[4,4] w) => (float[n,4] y) <float[4] b = {{1, 2, 3, 4}}>
    {{ m = MatMul(x, w)  y = {add}(m, b) }}"""
    found = layer(text)
    assert found is not None and (found.bias_node is not None) == has_bias


CONV = "g (float[n,4,3,3] x, float[{}] w) => (float[n,4,u,v] y) {{ y = Conv{}(x, w) }}"


@pytest.mark.parametrize(
    ("shape", "attributes", "linear"),
    [
        ((4, 4, 1, 1), "", True),
        ((4, 4, 1, 1), "<strides=[1,1], pads=[0,0,0,0]>", True),
        ((4, 2, 1, 1), "<group=2>", False),
        ((4, 4, 1, 1), "<strides=[2,2]>", False),
        ((4, 4, 1, 1), "<pads=[1,1,1,1]>", False),
        ((4, 4, 3, 3), "", False),
    ],
)
def test_a_convolution_of_single_positions_is_one(
    shape: tuple[int, ...], attributes: str, linear: bool
) -> None:
    text = CONV.format(",".join(map(str, shape)), attributes)
    found = layer(text, np.ones(shape, np.float32))
    assert (found is not None) == linear
