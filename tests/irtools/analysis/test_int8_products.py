"""Products by signed 8-bit weights, in every spelling of them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.int8_products import int8_products, saturating_products

_FULL = np.array([[127, -127], [127, 5], [3, -90], [-7, -90]], np.int8)
_SAFE = np.array([[127, -127], [-127, 5], [3, -64], [125, -64]], np.int8)

_X = "xq = QuantizeLinear(x, s, z)  xd = DequantizeLinear(xq, s, z)"
_HEAD = '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>'
_SCALARS = "<float s = {0.03}, uint8 z = {128}, float t = {0.1}, int8 k = {0}>"

MATRICES = {
    "qdq": f"g (float[n,4] x) => (float[n,2] y) {_SCALARS} "
    f"{{ {_X}  w = DequantizeLinear(q, s)  y = MatMul(xd, w) }}",
    "moved on the way": f"g (float[n,4] x) => (float[n,2] y) {_SCALARS} "
    f"{{ {_X}  m = Identity(xd)  w = DequantizeLinear(q, s)  y = MatMul(m, w) }}",
    "gemm": f"g (float[n,4] x) => (float[n,2] y) {_SCALARS} "
    f"{{ {_X}  w = DequantizeLinear(q, s)  y = Gemm(xd, w) }}",
    "integers": f"g (float[n,4] x) => (int32[n,2] y) {_SCALARS} "
    "{ a, b, c = DynamicQuantizeLinear(x)  y = MatMulInteger(a, q, c) }",
    "qlinear": f"g (uint8[n,4] x) => (uint8[n,2] y) {_SCALARS} "
    "{ y = QLinearMatMul(x, s, z, q, s, k, t, z) }",
    "fused": f"g (float[n,4] x) => (float[n,2] y) {_SCALARS} "
    "{ y = com.microsoft.DynamicQuantizeMatMul(x, q, s) }",
    "in a branch": "g (bool c, float[n,4] x) => (float[n,2] y) { y = If(c) <"
    f"then_branch = t () => (float[n,2] u) {_SCALARS} "
    f"{{ {_X}  w = DequantizeLinear(q, s)  u = MatMul(xd, w) }}, "
    "else_branch = e () => (float[n,2] v) <int64[2] a = {0, 2}> { v = Transpose(x) }> }",
}
TRANSPOSED = {
    "transposed": f"g (float[n,4] x) => (float[n,2] y) {_SCALARS} "
    f"{{ {_X}  w = DequantizeLinear(q, s)  t2 = Transpose(w)  y = MatMul(xd, t2) }}",
    "transB": f"g (float[n,4] x) => (float[n,2] y) {_SCALARS} "
    f"{{ {_X}  w = DequantizeLinear(q, s)  y = Gemm<transB=1>(xd, w) }}",
}
OTHERS = {
    "float activations": f"g (float[n,4] x) => (float[n,2] y) {_SCALARS} "
    "{ w = DequantizeLinear(q, s)  y = MatMul(x, w) }",
    "a lookup": f"g (int64[n] x) => (int8[n,2] y) {_SCALARS} {{ y = Gather(q, x) }}",
    "an input": f"g (float[n,4] x, int8[4,2] p) => (float[n,2] y) {_SCALARS} "
    f"{{ {_X}  w = DequantizeLinear(p, s)  y = MatMul(xd, w) }}",
}


def _model(text: str, **constants: np.ndarray) -> ir.Model:
    model = ir.from_onnx_text(f"{_HEAD} {text}")
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in graph:
            for index, value in enumerate(node.inputs):
                if value is None or value.name not in constants or value.producer() is not None:
                    continue
                known = model.graph.initializers.get(value.name)
                if known is None:
                    array = constants[value.name]
                    known = ir.Value(name=value.name, const_value=ir.Tensor(array, name=value.name))
                    known.dtype, known.shape = known.const_value.dtype, ir.Shape(array.shape)
                    model.graph.register_initializer(known)
                node.replace_input_with(index, known)
    return model


@pytest.mark.parametrize("name", MATRICES)
def test_products_by_matrices(name: str) -> None:
    model = _model(MATRICES[name], q=_FULL)
    (found,) = int8_products(model)
    assert found.weight.name == "q" and found.axis == 1
    assert [product.node for product in saturating_products(model)] == [found.node]
    assert saturating_products(_model(MATRICES[name], q=_SAFE)) == ()
    halves = np.clip(_FULL, -64, 64).astype(np.int8)
    assert saturating_products(_model(MATRICES[name], q=halves)) == ()


@pytest.mark.parametrize("name", TRANSPOSED)
def test_products_by_transposed_matrices(name: str) -> None:
    model = _model(TRANSPOSED[name], q=np.ascontiguousarray(_FULL.T))
    (found,) = int8_products(model)
    assert found.axis == 0
    assert len(saturating_products(model)) == 1
    safe = np.ascontiguousarray(_SAFE.T)
    assert saturating_products(_model(TRANSPOSED[name], q=safe)) == ()


@pytest.mark.parametrize("name", [*MATRICES, "float activations"])
def test_unsigned_weights_do_not_saturate(name: str) -> None:
    unsigned = (_FULL.astype(np.int16) + 128).astype(np.uint8)
    text = (MATRICES | OTHERS)[name].replace("int8 k = {0}", "uint8 k = {128}")
    assert list(int8_products(_model(text, q=unsigned))) == []


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_int8_product(name: str) -> None:
    assert list(int8_products(_model(OTHERS[name], q=_FULL))) == []


@pytest.mark.parametrize("name", ["qlinear", "by the zero point"])
def test_signed_activations_of_operators_on_integers_do_not_count(name: str) -> None:
    """Their kernels take both sides as s8; pairs of Q and DQ the runtime makes u8 by itself."""
    text = MATRICES["qlinear"].replace("uint8 z = {128}", "int8 z = {0}")
    if name == "qlinear":
        text = text.replace("uint8[n", "int8[n")
    model = _model(text, q=_FULL)
    assert len(list(int8_products(model))) == 1 and saturating_products(model) == ()


def test_weights_that_are_quantized_in_the_graph() -> None:
    """As training with fake quantization leaves them: float32 W -> Q -> DQ."""
    text = (
        f"g (float[n,4] x) => (float[n,2] y) {_SCALARS} "
        f"{{ {_X}  wq = QuantizeLinear(f, p, k)  w = DequantizeLinear(wq, p, k) "
        "y = MatMul(xd, w) }"
    )
    step = np.array(0.5, np.float32)
    model = _model(text, f=_FULL.astype(np.float32) * step, p=step)
    (found,) = int8_products(model)
    np.testing.assert_array_equal(found.integers, _FULL)
    assert len(saturating_products(model)) == 1
    unsigned = text.replace("int8 k = {0}", "uint8 k = {0}")
    assert list(int8_products(_model(unsigned, f=_FULL.astype(np.float32), p=step))) == []


@pytest.mark.parametrize(
    ("inputs", "outputs", "group", "saturates"),
    [
        (4, 4, 1, True),
        (4, 4, 2, True),
        (4, 4, 4, False),  # depthwise kernels widen before they add
        (4, 8, 4, True),  # two output channels each: no depthwise kernel
        (1, 4, 1, True),  # a picture in grey, or sound
        (1, 1, 1, True),
    ],
)
def test_convolutions(inputs: int, outputs: int, group: int, saturates: bool) -> None:
    text = (
        f"g (float[n,{inputs},8,8] x) => (float[n,{outputs},6,6] y) {_SCALARS} "
        f"{{ {_X}  w = DequantizeLinear(q, s)  y = Conv<group={group}>(xd, w) }}"
    )
    kernel = np.full((outputs, inputs // group, 3, 3), 100, np.int8)
    model = _model(text, q=kernel)
    (found,) = int8_products(model)
    assert found.is_convolution and found.axis == 0
    assert len(saturating_products(model)) == saturates
