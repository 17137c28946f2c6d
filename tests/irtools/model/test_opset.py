"""Raising the opset: the same numbers as before, or the model left as it was."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from irtools.model import Model, opset_of, raise_opset


def make(body: str, opset: int, *, extra: str = "", head: str = "float[2, 6] x") -> Model:
    text = f"""<ir_version: 7, opset_import: ["" : {opset}]>
    agraph ({head}) => (float[K] y) {extra} {{ {body} }}"""
    proto = onnx.parser.parse_model(text)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return Model.from_proto(proto)


def run(model: Model) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = model.to_proto().SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    return session.run(None, {"x": x})[0]


SAME = {
    "squeeze": ("u = Unsqueeze <axes = [1]> (x)  y = Squeeze <axes = [1]> (u)", 11),
    "squeeze all": ("u = Unsqueeze <axes = [0]> (x)  y = Squeeze (u)", 12),
    "split": ("a, b = Split <axis = 1, split = [2, 4]> (x)  y = Neg (b)", 11),
    "split equal": ("a, b = Split <axis = 1> (x)  y = Sub (a, b)", 13),
    "reduce sum": ("y = ReduceSum <axes = [1], keepdims = 0> (x)", 11),
    "reduce mean": ("y = ReduceMean <axes = [-1]> (x)", 13),
    "reduce mean of all": ("y = ReduceMean <keepdims = 0> (x)", 17),
    "softmax over the last axis": ("y = Softmax <axis = -1> (x)", 11),
    "softmax by default": ("y = Softmax (x)", 12),
    "dropout": ("y = Dropout <ratio = 0.3> (x)", 11),
    "reshape": ("s = Constant <value_ints = [3, -1]> ()  y = Reshape (x, s)", 13),
    "layernorm parts": (
        "m = ReduceMean <axes = [-1]> (x) d = Sub (x, m) s = Mul (d, d) "
        "v = ReduceMean <axes = [-1]> (s) r = Sqrt (v) y = Div (d, r)",
        14,
    ),
    "clip, cast, shape": (
        "s = Shape (x) f = Cast <to = 1> (s) r = ReduceMax <axes = [0], keepdims = 0> (f) "
        "c = Clip (x) y = Mul (c, r)",
        12,
    ),
}


@pytest.mark.parametrize("to", [18, 20, 21, 23])
@pytest.mark.parametrize("name", SAME)
def test_same_numbers_after(name: str, to: int) -> None:
    body, opset = SAME[name]
    model = make(body, opset)
    expected, interface = run(model), model.interface
    change = raise_opset(model.ir, to)
    assert change, change.reason
    assert (change.before, change.after, opset_of(model.ir)) == (opset, to, to)
    model.verify(interface=interface)
    np.testing.assert_array_equal(run(model), expected)


LEFT = {
    "softmax over several axes": (
        "u = Unsqueeze <axes = [2]> (x) y = Softmax <axis = 1> (u)",
        12,
        "Softmax",
    ),
    "too old": ("y = Neg (x)", 9, "older than 11"),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_would_change_is_left_alone(name: str) -> None:
    body, opset, reason = LEFT[name]
    model = make(body, opset)
    text = model.text()
    change = raise_opset(model.ir, 20)
    assert not change and reason in change.reason
    assert change.after == opset and model.text() == text


@pytest.mark.parametrize(
    ("body", "head", "opset"),
    [
        # The modes have other names, and the signature is the same.
        (
            'y = GridSample <mode = "bilinear"> (x, g)',
            "float[1, 1, 4, 4] x, float[1, 2, 2, 2] g",
            16,
        ),
        # A new attribute whose default is not the old behaviour.
        ("y = RoiAlign (x, r, b)", "float[1, 1, 4, 4] x, float[1, 4] r, int64[1] b", 15),
        # Another default of an attribute.
        ("y = Hardmax (x)", "float[2, 3, 4] x", 12),
        # An attribute became an input.
        ("y = DFT <axis = 1> (x)", "float[1, 4, 1] x", 17),
    ],
)
def test_operators_that_changed_their_meaning_stop_everything(
    body: str, head: str, opset: int
) -> None:
    model = make(body, opset, head=head)
    text = model.text()
    assert f"{body.split()[2]} node" in raise_opset(model.ir, 20).reason
    assert model.text() == text


def test_a_function_that_is_newer_keeps_its_opset() -> None:
    text = """<ir_version: 8, opset_import: ["" : 13, "local" : 1]>
    agraph (float[2, 6] x) => (float[2, 6] y) { y = local.F (x) }
    <domain: "local", opset_import: ["" : 20]>
    F (a) => (z) { z = Gelu (a) }"""
    model = Model.from_proto(onnx.parser.parse_model(text))
    assert raise_opset(model.ir, 18)
    assert model.ir.functions[("local", "F", "")].opset_imports[""] == 20
    assert opset_of(model.ir) == 18


def test_newer_than_what_runtimes_read_is_refused() -> None:
    model = make("y = Neg (x)", 17)
    assert "27" in raise_opset(model.ir, 27).reason


@pytest.mark.parametrize("to", [11, 17])
def test_nothing_to_do(to: int) -> None:
    model = make("y = Neg (x)", 17)
    text = model.text()
    assert raise_opset(model.ir, to) and model.text() == text


def test_versions_are_stamped_together() -> None:
    model = make("y = Neg (x)", 17)
    raise_opset(model.ir, 23)
    assert model.ir.ir_version == 11


def test_subgraphs_and_functions_are_converted() -> None:
    text = """<ir_version: 8, opset_import: ["" : 13, "local" : 1]>
    agraph (float[2, 6] x) => (float[2, 1] y) {
        c = Constant <value = bool {1}> ()
        h = If (c) <
            then_branch = t () => (float[2, 1] r) { r = ReduceMax <axes = [1]> (x) },
            else_branch = e () => (float[2, 1] q) { q = ReduceMin <axes = [1]> (x) }
        >
        y = local.F (h)
    }
    <domain: "local", opset_import: ["" : 13]>
    F (a) => (z) { z = ReduceMean <axes = [1]> (a) }"""
    model = Model.from_proto(onnx.parser.parse_model(text))
    expected = run(model)
    change = raise_opset(model.ir, 20)
    assert change.rewritten == 3
    model.verify()
    assert model.ir.functions[("local", "F", "")].opset_imports[""] == 20
    np.testing.assert_array_equal(run(model), expected)


def test_one_bad_node_leaves_every_node() -> None:
    body = (
        "m = ReduceMean <axes = [1]> (x) u = Unsqueeze <axes = [2]> (m) y = Softmax <axis = 1> (u)"
    )
    model = make(body, 12)
    text = model.text()
    assert not raise_opset(model.ir, 18)
    assert model.text() == text


def test_group_normalization_keeps_its_meaning() -> None:
    """Opset 21 scales per channel; the signature did not change, so only a list can know."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, 4, 2]))
    s, b = (
        ir.Value(name=n, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2])) for n in "sb"
    )
    node = ir.node("GroupNormalization", [x, s, b], attributes={"num_groups": 2}, name="gn")
    node.outputs[0].name = "y"
    graph = ir.Graph([x, s, b], node.outputs, nodes=[node], opset_imports={"": 18})
    model = ir.Model(graph, ir_version=8)
    assert raise_opset(model, 20)
    assert "GroupNormalization" in raise_opset(model, 21).reason
