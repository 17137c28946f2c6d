"""The verifier: each rule broken once on a sound model, and the culprit named."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from irtools.errors import LimitError, VerificationError
from irtools.model import Interface, verify

TEXT = """
<ir_version: 10, opset_import: ["" : 17, "local" : 1]>
agraph (float[N, 4] x, bool c) => (float[N, 3] y)
<float[4, 3] w = {1,2,3,4,5,6,7,8,9,10,11,12}, float[3] b = {1,2,3}>
{
    h = MatMul (x, w)
    g = local.F (h)
    i = If (c) <
        then_branch = t () => (float[N, 3] r) { r = Relu (g) },
        else_branch = e () => (float[N, 3] q) { q = Neg (g) }
    >
    y = Add (i, b)
}
<domain: "local", opset_import: ["" : 17]>
F (a) => (z) { z = Neg (a) }
"""


def make() -> ir.Model:
    return ir.from_onnx_text(TEXT)


def node(model: ir.Model, op: str) -> ir.Node:
    return next(n for n in model.graph.all_nodes() if n.op_type == op)


def test_sound_model_passes() -> None:
    model = make()
    verify(model, interface=Interface.of(model))


def _replace_weight(model: ir.Model, array: np.ndarray) -> None:
    model.graph.initializers["w"].const_value = ir.Tensor(array, name="w")


def _orphan(model: ir.Model) -> None:
    node(model, "Add").replace_input_with(0, ir.Value(name="ghost"))


def _orphan_in_function(model: ir.Model) -> None:
    model.functions[("local", "F", "")][0].replace_input_with(0, ir.Value(name="ghost"))


def _impostor(model: ir.Model) -> None:
    node(model, "Add").replace_input_with(0, ir.Value(name="i"))


def _unsort(model: ir.Model) -> None:
    add = node(model, "Add")
    model.graph.remove(add)
    model.graph.insert_before(model.graph[0], add)


def _cycle(model: ir.Model) -> None:
    node(model, "MatMul").replace_input_with(0, node(model, "Add").outputs[0])


def _recursion(model: ir.Model) -> None:
    body = model.functions[("local", "F", "")]
    inner = body[0]
    inner.domain, inner.op_type = "local", "F"


def _branch_returns_outer(model: ir.Model) -> None:
    branch = node(model, "If").attributes["then_branch"].as_graph()
    branch.outputs[0] = node(model, "MatMul").outputs[0]


def _huge(model: ir.Model) -> None:
    weight = model.graph.initializers["w"]
    weight.shape = None
    shape = ir.Shape([2**41, 1])
    weight.const_value = ir.LazyTensor(lambda: ir.tensor([1.0]), ir.DataType.FLOAT, shape, name="w")


def _two_shapes(model: ir.Model) -> None:
    tensor = ir.Tensor(np.zeros((4, 3), np.float32), name="w")
    tensor._shape = ir.Shape([3, 4])
    weight = model.graph.initializers["w"]
    weight.shape, weight.const_value = None, tensor


def _two_names(model: ir.Model) -> None:
    spare = ir.val("spare", const_value=ir.tensor(np.zeros(1, np.float32), name="spare"))
    model.graph.register_initializer(spare)
    spare._name = "other"


def _default(model: ir.Model, *, overridable: bool) -> None:
    """Make the weight an input with a default, or take its default away."""
    weight = model.graph.initializers["w"]
    model.graph.inputs.append(weight)
    if not overridable:
        del model.graph.initializers["w"]


def _no_name(model: ir.Model) -> None:
    node(model, "F").outputs[0].name = ""


BROKEN: dict[str, tuple[Callable[[ir.Model], object], str]] = {
    "no outputs": (lambda m: m.graph.outputs.clear(), "no outputs"),
    "output twice": (lambda m: m.graph.outputs.append(m.graph.outputs[0]), "twice"),
    "orphan": (_orphan, "'ghost'"),
    "orphan in a function": (_orphan_in_function, "'ghost'"),
    "impostor": (_impostor, "not the one of that name"),
    "unsorted": (_unsort, "not sorted"),
    "cycle": (_cycle, "cycle"),
    "name clash": (lambda m: setattr(node(m, "Relu").outputs[0], "name", "h"), "'h'"),
    "nameless value": (_no_name, "without a name"),
    "branch returns outer": (_branch_returns_outer, "outer"),
    "unknown operator": (lambda m: setattr(node(m, "Relu"), "op_type", "Rely"), "Rely"),
    "unknown domain": (lambda m: setattr(node(m, "Relu"), "domain", "my"), "'my'"),
    "missing function": (lambda m: setattr(node(m, "F"), "op_type", "G"), "'local::G'"),
    "missing import": (lambda m: m.graph.opset_imports.pop("local"), "import"),
    "recursion": (_recursion, "calls itself"),
    "old opset": (lambda m: m.graph.opset_imports.update({"": 6}), "opset 6"),
    "new opset": (lambda m: m.graph.opset_imports.update({"": 27}), "opset 27"),
    "new ir": (lambda m: setattr(m, "ir_version", 14), "IR version 14"),
    "lost weight": (lambda m: setattr(m.graph.initializers["w"], "const_value", None), "no tensor"),
    "weight of other type": (lambda m: _replace_weight(m, np.zeros((4, 3), np.float16)), "FLOAT16"),
    "weight of other shape": (lambda m: _replace_weight(m, np.zeros((3, 4), np.float32)), "'w'"),
    "attribute": (lambda m: node(m, "Relu").attributes.add(ir.AttrInt64("axis", 1)), "axis"),
    "size beyond belief": (_huge, "out of range"),
    "tensor of two shapes": (_two_shapes, "says its shape is"),
    "weight of two names": (_two_names, "registered under another name"),
    "too few inputs": (lambda m: node(m, "MatMul").resize_inputs(1), "1 input"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_rule_is_named(name: str) -> None:
    edit, needle = BROKEN[name]
    model = make()
    edit(model)
    with pytest.raises(VerificationError, match=needle) as caught:
        verify(model)
    assert str(caught.value).isprintable()


CHANGED: dict[str, Callable[[ir.Model], object]] = {
    "input renamed": lambda m: setattr(m.graph.inputs[0], "name", "x2"),
    "input dropped": lambda m: m.graph.inputs.append(ir.Value(name="extra")),
    "output renamed": lambda m: setattr(m.graph.outputs[0], "name", "y2"),
    "output type": lambda m: setattr(m.graph.outputs[0], "type", ir.TensorType(ir.DataType.INT8)),
    "size frozen": lambda m: setattr(m.graph.inputs[0], "shape", ir.Shape([1, 4])),
    "size renamed": lambda m: setattr(m.graph.inputs[0], "shape", ir.Shape(["M", 4])),
    "weight made an input": lambda m: m.graph.inputs.append(m.graph.initializers["w"]),
    "metadata lost": lambda m: m.metadata_props.clear(),
}


@pytest.mark.parametrize("name", CHANGED)
def test_changed_interface_is_noticed(name: str) -> None:
    model = make()
    model.metadata_props["license"] = "Apache-2.0"
    before = Interface.of(model)
    CHANGED[name](model)
    verify(model)
    with pytest.raises(VerificationError):
        verify(model, interface=before)


def test_a_default_that_is_lost_is_noticed() -> None:
    before, after = make(), make()
    _default(before, overridable=True)
    _default(after, overridable=False)
    with pytest.raises(VerificationError, match="inputs with a default changed: 'w'"):
        verify(after, interface=Interface.of(before))


def _doubling(levels: int) -> ir.Model:
    calls = "\n".join(
        f'<domain: "local", opset_import: ["" : 17, "local" : 1]>\n'
        f"F{i} (a) => (z) {{ m = local.F{i - 1} (a)\n z = local.F{i - 1} (m) }}"
        for i in range(1, levels)
    )
    return ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 17, "local" : 1]>\n'
        f"agraph (float[N] x) => (float[N] y) {{ y = local.F{levels - 1} (x) }}\n"
        '<domain: "local", opset_import: ["" : 17]>\nF0 (a) => (z) { z = Neg (a) }\n' + calls
    )


def test_doubling_functions_are_counted_not_inlined() -> None:
    verify(_doubling(18))
    with pytest.raises(LimitError, match="1000000"):
        verify(_doubling(24))


def _chain(length: int) -> ir.Model:
    value = x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["N"]))
    nodes = []
    for i in range(length):
        nodes.append(ir.node("Neg", [value], name=f"n{i}"))
        value = nodes[-1].outputs[0]
        value.name = f"v{i}"
    graph = ir.Graph([x], [value], nodes=nodes, opset_imports={"": 17})
    return ir.Model(graph, ir_version=10)


def test_time_grows_with_the_nodes_and_nothing_recurses() -> None:
    """Ten times the nodes must not take much more than ten times as long."""
    seconds = []
    for length in (1_000, 10_000):
        model = _chain(length)
        best = min(_seconds(model) for _ in range(3))
        seconds.append(best)
    assert seconds[1] < 30 * seconds[0]


def _seconds(model: ir.Model) -> float:
    before = time.process_time()
    verify(model)
    return time.process_time() - before
