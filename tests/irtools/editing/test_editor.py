"""The editor: fresh names, provenance, replacing, and dropping what nothing reads."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.editing import REPLACED, RULE, SCOPES, Editor, Place, can_forward, require_constant
from irtools.model import print_model, verify

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'


def model(body: str, outputs: str = "float[N,4] y", weights: str = "") -> ir.Model:
    made = ir.from_onnx_text(f"{HEAD} g (float[N,4] x) => ({outputs}) <{weights}> {{ {body} }}")
    for node in made.graph:
        node.name = f"/layer.0/{node.outputs[0].name}"
        node.metadata_props[SCOPES] = "['', 'layer.0', 'op']"
        node.metadata_props["stack"] = "model.py"
    return made


def node_of(made: ir.Model, op_type: str) -> ir.Node:
    (found,) = (node for node in made.graph.all_nodes() if node.op_type == op_type)
    return found


def test_a_node_next_to_another_says_which_rule_made_it_and_in_which_module() -> None:
    made = model("a = Relu(x)  y = Neg(a)")
    editor = Editor(made, "my-pass")
    neg = node_of(made, "Neg")
    value = editor.before(neg, "Abs", [neg.inputs[0]])
    neg.replace_input_with(0, value)
    abs_ = node_of(made, "Abs")
    assert (abs_.name, value.name) == ("/layer.0/Abs", "/layer.0/Abs_output")
    assert abs_.metadata_props == {RULE: "my-pass", SCOPES: "['', 'layer.0', 'op']"}
    assert [node.op_type for node in made.graph] == ["Relu", "Abs", "Neg"]
    verify(made)


def test_a_replacement_takes_over_name_metadata_and_outputs() -> None:
    made = model("a = Relu(x)  y = Neg(a)")
    neg = node_of(made, "Neg")
    new = Editor(made, "p").replace(neg, "Abs", [neg.inputs[0]])
    assert (new.name, new.outputs[0].name) == ("/layer.0/y", "y")
    assert new.metadata_props["stack"] == "model.py" and REPLACED not in new.metadata_props
    assert made.graph.outputs[0] is new.outputs[0] and neg.graph is None
    verify(made)


def test_several_outputs_are_replaced_each() -> None:
    made = model("a, b = Split<num_outputs=2, axis=1>(x)  y = Concat<axis=1>(b, a)")
    split = node_of(made, "Split")
    new = Editor(made, "p").replace(
        split, "Halves", [split.inputs[0]], {"axis": 1}, domain="com.other"
    )
    assert [value.name for value in new.outputs] == ["a", "b"]
    assert made.graph.opset_imports["com.other"] == 1


@pytest.mark.parametrize("where", ["main", "branch"])
def test_constants_have_fresh_names_and_are_nodes_where_asked(where: str) -> None:
    made = model("a = Relu(x)  y = Neg(a)", weights="float a_1 = {1.0}")
    editor = Editor(made, "p")
    anchor = node_of(made, "Neg") if where == "branch" else None
    value = editor.constant("a", np.zeros((), np.float32), before=anchor)
    assert value.name == "a_2"
    assert value.is_initializer() == (where == "main")
    assert require_constant(value).numpy().shape == ()
    assert (value.producer() is not None) == (where == "branch")


def test_a_shared_tensor_is_not_written_into() -> None:
    made = model("y = Relu(x)")
    tensor = ir.tensor(np.ones(2, np.float32), name="shared")
    value = Editor(made, "p").constant("mine", tensor)
    assert (value.name, tensor.name) == ("mine", "shared")


def test_the_output_of_a_graph_moves_and_other_readers_stay() -> None:
    made = model("y = Relu(x)  z = Neg(y)", "float[N,4] y, float[N,4] z")
    editor = Editor(made, "p")
    old = node_of(made, "Relu").outputs[0]
    new = editor.after(old, "Identity", [old], outputs={"copy": ir.DataType.FLOAT})
    editor.replace_output(old, new, "y_inner")
    assert [value.name for value in made.graph.outputs] == ["y", "z"]
    assert made.graph.outputs[0] is new and old.name == "y_inner"
    assert node_of(made, "Neg").inputs[0] is old
    verify(made)


def test_forwarding_keeps_the_public_name() -> None:
    made = model("a = Relu(x)  y = Identity(a)")
    editor = Editor(made, "p")
    identity = node_of(made, "Identity")
    source = node_of(made, "Relu").outputs[0]
    assert can_forward(identity.outputs[0], source)
    assert not can_forward(identity.outputs[0], made.graph.inputs[0])
    editor.forward(identity.outputs[0], source)
    editor.drop_unread(identity)
    assert made.graph.outputs[0] is source and source.name == "y"
    verify(made)


def test_what_was_read_by_the_dropped_alone_goes_too() -> None:
    weights = "float[4] w = {1.0,2.0,3.0,4.0}, float[4] both = {1.0,2.0,3.0,4.0}"
    made = model("a = Add(x, both)  b = Mul(a, w)  c = Neg(b)  y = Sub(x, both)", weights=weights)
    Editor(made, "p").drop_unread(node_of(made, "Neg"))
    assert [node.op_type for node in made.graph] == ["Sub"]
    assert list(made.graph.initializers) == ["both"]


def test_a_weight_goes_with_the_dead_nodes_behind_it() -> None:
    made = model("t = Transpose(w)  y = Relu(x)", weights="float[2,2] w = {1.0,2.0,3.0,4.0}")
    Editor(made, "p").drop_unread(made.graph.initializers["w"])
    assert [node.op_type for node in made.graph] == ["Relu"] and not made.graph.initializers


def test_what_a_caller_may_override_or_reads_stays() -> None:
    made = ir.from_onnx_text(
        f"{HEAD} g (float[4] x, float[4] w) => (float[4] y) "
        "<float[4] w = {1.0,2.0,3.0,4.0}> { a = Add(x, w)  y = Relu(x) }"
    )
    Editor(made, "p").drop_unread(node_of(made, "Add"))
    assert list(made.graph.initializers) == ["w"]
    Editor(made, "p").drop_unread(node_of(made, "Relu"))
    assert [node.op_type for node in made.graph] == ["Relu"]


def test_shared_nodes_are_made_once_in_a_graph() -> None:
    made = model("a = Relu(x)  y = Neg(a)")
    editor = Editor(made, "p")
    for node in tuple(made.graph):
        place = Place(editor, node)
        node.replace_input_with(
            0, place.shared("Add", [made.graph.inputs[0], place.number(1, ir.DataType.FLOAT)])
        )
    assert [node.op_type for node in made.graph] == ["Constant", "Add", "Relu", "Neg"]
    verify(made)


def test_an_analysis_may_keep_up() -> None:
    made = model("a = Relu(x)  y = Neg(a)")
    seen: list[tuple[ir.Value, ir.Value]] = []
    editor = Editor(made, "p", adopt=lambda new, old: seen.append((new, old)))
    old = node_of(made, "Relu").outputs[0]
    new = editor.before(node_of(made, "Relu"), "Abs", [made.graph.inputs[0]])
    editor.by("rule").substitute(old, new)
    assert seen == [(new, old)] and new.name == "a"
    assert "Relu" in print_model(made)
