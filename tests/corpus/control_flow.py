"""If, Loop, Scan, sequences and functions: weights inside of bodies and captured by them."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from .models import Register
from .writer import Arrays, Built, Writer

MODELS = Register("control-flow")


@MODELS.add(quick=True)
def loop_with_scan_output() -> Built:
    """A cell stepped over time; its weights are outside of the loop."""
    w = Writer("loop_with_scan_output", 13)
    x = w.input("x", ("time", "batch", 96), w.normal(7, 2, 96))
    weight, recurrent = w.matrix(96, 96), w.matrix(96, 96)
    steps = w.node("Gather", w.node("Shape", x), w.const(np.asarray(0)), axis=0)
    start = w.node("ReduceMean", x, axes=[0], keepdims=0)
    body = w.body("step")
    number, going = body.formal((), np.int64), body.formal((), np.bool_)
    state = body.formal(("batch", 96))
    now = body.node("Gather", x, number, axis=0)
    added = body.node(
        "Add", body.node("MatMul", now, weight), body.node("MatMul", state, recurrent)
    )
    new = body.node("Tanh", added)
    body.output(body.node("Identity", going), (), np.bool_)
    body.output(new, ("batch", 96))
    body.output(body.node("Relu", new), ("batch", 96))
    last, every = w.split("Loop", steps, "", start, outputs=2, body=body.graph())
    w.named_output("last", last, ("batch", 96))
    w.named_output("every", every, ("time", "batch", 96))
    return w.build({"x": w.normal(3, 4, 96)})


@MODELS.add()
def loop_with_weights_of_its_own() -> Built:
    """The body holds its weights; the same layer is applied a fixed number of times."""
    w = Writer("loop_with_weights_of_its_own", 16)
    x = w.input("x", ("batch", 128), w.normal(3, 128))
    body = w.body("refine")
    body.formal((), np.int64)
    going, value = body.formal((), np.bool_), body.formal(("batch", 128))
    hidden = body.linear(value, 128, 160, "Relu")
    body.output(body.node("Identity", going), (), np.bool_)
    body.output(body.node("Add", value, body.linear(hidden, 160, 128)), ("batch", 128))
    done = w.node("Loop", w.const(np.asarray(3, np.int64)), "", x, body=body.graph())
    w.output(w.node("Softmax", done, axis=1), ("batch", 128))
    return w.build()


@MODELS.add(quick=True)
def scan_with_two_states() -> Built:
    """An LSTM cell by hand in Scan, gates cut out by Split: recurrent models of CNTK and MATLAB."""
    w = Writer("scan_with_two_states", 11)
    x = w.input("x", ("time", 2, 64), w.normal(11, 2, 64))
    weight, recurrent, bias = w.matrix(64, 256), w.matrix(64, 256), w.bias(256)
    zero = w.const(np.zeros((2, 64), np.float32))
    body = w.body("cell")
    h, c, now = (body.formal((2, 64)) for _ in range(3))
    products = body.node("Add", body.node("MatMul", now, weight), body.node("MatMul", h, recurrent))
    gates = body.split("Split", body.node("Add", products, bias), outputs=4, axis=1)
    i, f, o = (body.node("Sigmoid", gate) for gate in gates[:3])
    new_c = body.node(
        "Add", body.node("Mul", f, c), body.node("Mul", i, body.node("Tanh", gates[3]))
    )
    new_h = body.node("Mul", o, body.node("Tanh", new_c))
    for value in (new_h, new_c, body.node("Identity", new_h)):
        body.output(value, (2, 64))
    last, _, every = w.split("Scan", zero, zero, x, outputs=3, body=body.graph(), num_scan_inputs=1)
    w.named_output("y", w.linear(every, 64, 30), ("time", 2, 30))
    w.named_output("last", last, (2, 64))
    return w.build()


@MODELS.add(quick=True)
def if_with_weights_in_both_branches() -> Built:
    """One model for two sampling rates: each branch has convolutions of its own."""
    w = Writer("if_with_weights_in_both_branches", 16)
    x = w.input("input", ("batch", 512), w.normal(2, 512))
    rate = w.input("sr", (), np.asarray(16000, np.int64))
    is_wide = w.node("Equal", rate, w.const(np.asarray(16000, np.int64)))
    branches = {}
    for branch, stride in (("then_branch", 8), ("else_branch", 4)):
        b = w.body(branch)
        image = b.over_axes("Unsqueeze", x, 1)
        value = b.conv(image, 1, 96, 64, strides=[stride], pads=[32, 32], activation="Relu")
        value = b.conv(value, 96, 96, 3, strides=[2], pads=[1, 1], activation="Relu")
        pooled = b.over_axes("ReduceMean", value, -1, keepdims=0)
        b.output(b.linear(pooled, 96, 64, "Sigmoid"), ("batch", 64))
        branches[branch] = b.graph()
    w.named_output("output", w.node("If", is_wide, **branches), ("batch", 64))
    return w.build({"input": w.normal(3, 512), "sr": np.asarray(8000, np.int64)})


@MODELS.add()
def if_on_a_constant() -> Built:
    """A condition that clean-up knows: what is left of a training flag."""
    w = Writer("if_on_a_constant", 14)
    x = w.input("x", ("batch", 200), w.normal(2, 200))
    then, other = w.body("train"), w.body("test")
    then.output(then.node("Dropout", then.linear(x, 200, 120)), ("batch", 120))
    other.output(other.linear(x, 200, 120), ("batch", 120))
    chosen = w.node("If", w.const(np.asarray(False)), then_branch=then.graph(),
                    else_branch=other.graph())  # fmt: skip
    w.output(w.linear(w.node("Relu", chosen), 120, 100), ("batch", 100))
    return w.build()


@MODELS.add()
def loop_around_if() -> Built:
    """Two levels of bodies; the inner ones read weights of both levels above."""
    w = Writer("loop_around_if", 15)
    x = w.input("x", ("batch", 128), w.normal(2, 128))
    shared = w.matrix(128, 128)
    body = w.body("outer")
    number, going = body.formal((), np.int64), body.formal((), np.bool_)
    value = body.formal(("batch", 128))
    own = body.matrix(128, 128)
    two = body.const(np.asarray(2, np.int64))
    even = body.node("Equal", body.node("Mod", number, two), body.const(np.asarray(0, np.int64)))
    then, other = body.body("even"), body.body("odd")
    then.output(then.node("MatMul", value, shared), ("batch", 128))
    other.output(other.node("MatMul", value, own), ("batch", 128))
    chosen = body.node("If", even, then_branch=then.graph(), else_branch=other.graph())
    body.output(body.node("Identity", going), (), np.bool_)
    body.output(body.node("Tanh", chosen), ("batch", 128))
    done = w.node("Loop", w.const(np.asarray(4, np.int64)), "", x, body=body.graph())
    w.output(w.linear(done, 128, 20), ("batch", 20))
    return w.build()


@MODELS.add(chooses=True)
def loop_that_ends_by_itself() -> Built:
    """Greedy writing: the number of steps, and so the length of the output, is in the data."""
    w = Writer("loop_that_ends_by_itself", 14)
    x = w.input("memory", (1, 128), w.normal(1, 128))
    table, weight, head = (
        w.const(w.normal(300, 128), "table"),
        w.matrix(128, 128),
        w.matrix(128, 300),
    )
    body = w.body("write")
    body.formal((), np.int64)
    body.formal((), np.bool_)
    state = body.formal((1, 128))
    new = body.node("Tanh", body.node("Add", body.node("MatMul", state, weight), x))
    token = body.node("ArgMax", body.node("MatMul", new, head), axis=1, keepdims=0)
    read = body.node("Add", new, body.node("Gather", table, token))
    going = body.node("Not", body.node("Less", token, body.const(np.asarray([30], np.int64))))
    body.output(body.over_axes("Squeeze", going, 0), (), np.bool_)
    body.output(read, (1, 128))
    body.output(token, (1,), np.int64)
    start = w.const(np.asarray(True))
    last, tokens = w.split("Loop", w.const(np.asarray(20, np.int64)), start, x, outputs=2,
                           body=body.graph())  # fmt: skip
    w.named_output("state", last, (1, 128))
    w.named_output("tokens", tokens, ("length", 1), np.int64)
    return w.build()


@MODELS.add()
def sequences_of_tensors() -> Built:
    """Cut into a sequence, read from it, put together again."""
    w = Writer("sequences_of_tensors", 13)
    x = w.input("x", (6, 128), w.normal(6, 128))
    parts = w.node("SplitToSequence", x, w.const(np.asarray(2, np.int64)), axis=0)
    made = []
    for index in range(3):
        one = w.node("SequenceAt", parts, w.const(np.asarray(index, np.int64)))
        made.append(w.linear(one, 128, 128, "Relu"))
    joined = w.node("ConcatFromSequence", w.node("SequenceConstruct", *made), axis=0)
    w.output(w.linear(joined, 128, 10), (6, 10))
    return w.build()


def _function(name: str, opset: int, weight: np.ndarray | None = None) -> object:
    """Linear layer and GELU; the weight is an input, or a constant inside of the function."""
    inputs = ["x", "b"] if weight is not None else ["x", "w", "b"]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["sum"]),
        helper.make_node("Constant", [], ["root"], value_float=float(np.sqrt(2))),
        helper.make_node("Constant", [], ["one"], value_float=1.0),
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Div", ["sum", "root"], ["scaled"]),
        helper.make_node("Erf", ["scaled"], ["erf"]),
        helper.make_node("Add", ["erf", "one"], ["shifted"]),
        helper.make_node("Mul", ["sum", "shifted"], ["doubled"]),
        helper.make_node("Mul", ["doubled", "half"], ["y"]),
    ]
    if weight is not None:
        tensor = numpy_helper.from_array(weight, "w")
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    return helper.make_function(
        "pkg.torch", name, inputs, ["y"], nodes, [helper.make_opsetid("", opset)]
    )


@MODELS.add(quick=True)
def functions_called_with_weights() -> Built:
    """One local function per module, as torch 2's exporter wrote them; called twice."""
    w = Writer("functions_called_with_weights", 18)
    w.functions.append(_function("Block", 18))  # type: ignore[arg-type]
    x = w.input("x", ("batch", 128), w.normal(3, 128))
    for _ in range(2):
        x = w.node("Block", x, w.matrix(128, 128), w.bias(128), domain="pkg.torch")
    w.output(w.linear(x, 128, 10), ("batch", 10))
    return w.build()


@MODELS.add()
def functions_that_hold_weights() -> Built:
    """The weight is a constant inside of the function, and so written once for two calls."""
    w = Writer("functions_that_hold_weights", 17)
    weight = w.normal(160, 160, scale=0.08)
    w.functions.append(_function("Held", 17, weight))  # type: ignore[arg-type]
    x = w.input("x", ("batch", 160), w.normal(3, 160))
    for _ in range(2):
        x = w.node("Held", x, w.bias(160), domain="pkg.torch")
    w.output(x, ("batch", 160))
    return w.build()


@MODELS.add(is_float=False)
def optional_input_left_out() -> Built:
    """A weight that is an input with a default: what the caller gives wins."""
    w = Writer("optional_input_left_out", 13)
    x = w.input("x", ("batch", 128), w.normal(2, 128))
    default = w.const(w.normal(128, 130, scale=0.09), name="weight")
    w.inputs.append(helper.make_tensor_value_info(default, TensorProto.FLOAT, [128, 130]))
    w.output(w.node("MatMul", x, default), ("batch", 130))
    other: Arrays = {"x": w.normal(2, 128), "weight": w.normal(128, 130)}
    return w.build(other)
