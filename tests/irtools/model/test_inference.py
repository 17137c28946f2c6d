"""Shape inference that sees no weights and breaks no types."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irtools.model import Interface, infer_shapes

TEXT = """
<ir_version: 10, opset_import: ["" : 17]>
agraph (float[N, 4] x, bool c) => (y)
<float[4, 3] w = {1,2,3,4,5,6,7,8,9,10,11,12}>
{
    h = MatMul (x, w)
    s = Shape (h)
    r = Reshape (h, s)
    q = SequenceConstruct (h, r)
    i = If (c) <
        then_branch = t () => (a) { b = Relu (r)  a = Neg (b) },
        else_branch = e () => (d) { d = Neg (r) }
    >
    y = Identity (i)
}
"""


def make() -> ir.Model:
    return ir.from_onnx_text(TEXT)


def values(model: ir.Model) -> dict[str, ir.Value]:
    return {v.name or "": v for node in model.graph.all_nodes() for v in node.outputs}


def test_inner_values_get_shapes_in_subgraphs_too() -> None:
    model = make()
    assert infer_shapes(model) > 0
    found = values(model)
    assert str(found["h"].shape) == "[N,3]" and found["h"].dtype == ir.DataType.FLOAT
    assert str(found["r"].shape) == "[N,3]"
    assert found["b"].dtype == ir.DataType.FLOAT and found["b"].shape is not None


def test_second_run_changes_nothing() -> None:
    model = make()
    infer_shapes(model)
    assert infer_shapes(model) == 0
    assert infer_shapes(model, refresh=True) == 0


def test_interface_and_tensors_are_untouched() -> None:
    model = make()
    before, tensor = Interface.of(model), model.graph.initializers["w"].const_value
    infer_shapes(model)
    assert Interface.of(model) == before
    assert model.graph.initializers["w"].const_value is tensor


def test_sequence_types_are_kept() -> None:
    model = make()
    declared = ir.SequenceType(ir.TensorType(ir.DataType.FLOAT))
    values(model)["q"].type = declared
    infer_shapes(model)
    assert values(model)["q"].type == declared


def test_refresh_replaces_stale_sizes() -> None:
    model = make()
    infer_shapes(model)
    weight = model.graph.initializers["w"]
    weight.const_value = ir.Tensor(np.zeros((4, 2), np.float32), name="w")
    weight.shape = ir.Shape([4, 2])
    infer_shapes(model, refresh=True)
    assert str(values(model)["h"].shape) == "[N,2]"


def test_weights_are_not_read() -> None:
    """An inference over terabytes of weights needs none of them."""
    model = make()
    shape = ir.Shape([4, 2**38])
    huge = ir.ExternalTensor("absent", 0, 2**42, ir.DataType.FLOAT, shape=shape, name="w")
    weight = model.graph.initializers["w"]
    weight.const_value, weight.shape = huge, shape
    infer_shapes(model)
    assert str(values(model)["h"].shape) == f"[N,{2**38}]"


def test_custom_operators_keep_what_they_declare() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 17, "my" : 1]>\n'
        "agraph (float[N] x) => (float[N] y) { h = my.Op (x)  y = Neg (h) }"
    )
    value = values(model)["h"]
    value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["N"])
    infer_shapes(model, refresh=True)
    assert str(value.shape) == "[N]"
