"""Graphs in graphs, functions and long chains, as the hazards of graphs need them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .base import FLOAT, Builder, graph, model, node, of, value, with_graph


def make_branch(nodes, outputs=("r",), inputs=(), weights=(), name="branch"):
    shaped = [value(o, None) for o in outputs]
    return helper.make_graph(nodes, name, [value(i, None) for i in inputs], shaped, list(weights))


def _if(then, orelse=None, outputs: str = "y"):
    orelse = orelse or make_branch([node("Neg", "x", "r2")], ["r2"])
    return node("If", "c", outputs, then_branch=then, else_branch=orelse)


def make_if_model(then, orelse=None, outputs: str = "y", extra=()) -> Builder:
    nodes = [_if(then, orelse, outputs), *extra]
    inputs = [value("x"), value("c", (), TensorProto.BOOL)]
    results = [value(name, None) for name in outputs.split()]
    return with_graph(nodes=nodes, inputs=inputs, outputs=results, weights=[])


def _message(number: int, payload: bytes) -> bytes:
    """Encode one length-delimited protobuf field."""
    length, size = bytearray(), len(payload)
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2]) + bytes([*length, size]) + payload


def make_nested_if(depth: int) -> Builder:
    """Ifs inside Ifs; put together as bytes, because the library refuses to nest so deep."""

    def build() -> bytes:
        body = make_branch([node("Neg", "x", "r0")], ["r0"]).SerializeToString()
        for level in range(1, depth + 1):
            other = make_branch([node("Relu", "x", f"e{level}")], [f"e{level}"]).SerializeToString()
            item = node("If", "c", f"r{level}").SerializeToString()
            for name, part in (("then_branch", body), ("else_branch", other)):
                graph_type = b"\xa0\x01\x05"
                item += _message(5, _message(1, name.encode()) + _message(6, part) + graph_type)
            result = value(f"r{level}", None).SerializeToString()
            body = _message(1, item) + _message(2, b"b") + _message(12, result)
        for info in (value("x"), value("c", (), TensorProto.BOOL)):
            body += _message(11, info.SerializeToString())
        head = model()
        head.ClearField("graph")
        return head.SerializeToString() + _message(7, body)

    return of(build)


def make_function(name: str, body, *, domain="local", inputs=("a",), outputs=("r",), **more):
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_function(domain, name, list(inputs), list(outputs), body, imports, **more)


def make_call(name: str, inputs: str = "a", outputs: str = "r", **attributes: object):
    return helper.make_node(name, inputs.split(), outputs.split(), domain="local", **attributes)


def make_calling(*functions: onnx.FunctionProto, name: str = "F", **attributes: object) -> Builder:
    def build() -> onnx.ModelProto:
        body = [make_call(name, "x", "y", **attributes)]
        return model(
            graph(body, outputs=[value("y", None)], weights=[]), functions=functions, local=1
        )

    return of(build)


def make_doubling(levels: int) -> list[onnx.FunctionProto]:
    made = [make_function("F0", [node("Neg", "a", "r")])]
    for i in range(1, levels):
        made.append(
            make_function(
                f"F{i}", [make_call(f"F{i - 1}", "a", "m"), make_call(f"F{i - 1}", "m", "r")]
            )
        )
    made.append(make_function("F", [make_call(f"F{levels - 1}")]))
    return made


def make_loop(body_nodes, outputs=("co", "so"), state: str = "s", extra=()) -> Builder:
    body = helper.make_graph(
        body_nodes,
        "body",
        [value("i", (), TensorProto.INT64), value("ci", (), TensorProto.BOOL), value(state, None)],
        [value("co", (), TensorProto.BOOL), *(value(o, None) for o in outputs[1:])],
        list(extra),
    )
    loop = node("Loop", "n c x", " ".join(f"y{k}" for k in range(len(outputs) - 1)), body=body)
    inputs = [value("x"), value("n", (), TensorProto.INT64), value("c", (), TensorProto.BOOL)]
    results = [value(f"y{k}", None) for k in range(len(outputs) - 1)]
    return with_graph(nodes=[loop], inputs=inputs, outputs=results, weights=[])


def make_scan_identity() -> Builder:
    body = make_branch(
        [node("Identity", "s", "so"), node("Identity", "e", "eo")], ["so", "eo"], "se"
    )
    scan = node("Scan", "x0 x", "y z", num_scan_inputs=1, body=body)
    return with_graph(
        nodes=[scan],
        inputs=[value("x0", (4,)), value("x")],
        outputs=[value("y", None), value("z", None)],
        weights=[],
    )


def make_chain(length: int) -> Builder:
    def build() -> onnx.ModelProto:
        nodes = [node("Neg", f"v{i}", f"v{i + 1}") for i in range(length)]
        return model(graph(nodes, [value("v0")], [value(f"v{length}")], []))

    return of(build)


def make_fan_out(width: int) -> Builder:
    def build() -> onnx.ModelProto:
        nodes = [node("Neg", "x", f"v{i}") for i in range(width)]
        nodes.append(node("Sum", " ".join(f"v{i}" for i in range(width)), "y"))
        return model(graph(nodes, outputs=[value("y")], weights=[]))

    return of(build)


def _sum_of(first: str, second: str) -> list[onnx.NodeProto]:
    return [node("Neg", "x", first), node("Neg", "x", second), node("Add", "a b", "y")]


def make_plain(*nodes: onnx.NodeProto, outputs=None, **more: object) -> Builder:
    return with_graph(
        nodes=list(nodes),
        outputs=outputs or [value("y", None)],
        weights=more.pop("weights", []),
        **more,
    )


def make_attribute_edit(edit: Callable[[onnx.AttributeProto], object]) -> Builder:
    def build() -> onnx.ModelProto:
        proto = model(graph([node("Softmax", "x", "y", axis=-1)], outputs=[value("y")], weights=[]))
        edit(proto.graph.node[0].attribute[0])
        return proto

    return of(build)


def make_repeat_attribute() -> Builder:
    def build() -> onnx.ModelProto:
        proto = model(graph([node("Softmax", "x", "y", axis=-1)], outputs=[value("y")], weights=[]))
        proto.graph.node[0].attribute.append(helper.make_attribute("axis", 0))
        return proto

    return of(build)


def nest_type(depth: int) -> Callable[[onnx.ModelProto], None]:
    def edit(proto: onnx.ModelProto) -> None:
        kind = helper.make_tensor_type_proto(FLOAT, [1])
        for _ in range(depth):
            kind = helper.make_sequence_type_proto(kind)
        proto.graph.input[0].type.CopyFrom(kind)

    return edit


def make_fold_bomb() -> Builder:
    size = numpy_helper.from_array(np.array([2**20, 2**20], np.int64), "size")
    body = [
        node("ConstantOfShape", "size", "t"),
        node("ReduceMax", "t", "r", keepdims=0),
        node("Add", "x r", "y"),
    ]
    return make_plain(*body, weights=[size])


def make_softmax_function() -> onnx.FunctionProto:
    inner = node("Softmax", "a", "r")
    inner.attribute.add(name="axis", ref_attr_name="axis", type=onnx.AttributeProto.INT)
    return make_function("F", [inner], attributes=["axis"])


def make_overloaded() -> onnx.ModelProto:
    first, second = (make_function("F", [node(op, "a", "r")]) for op in ("Neg", "Relu"))
    second.overload = "other"
    calls = [make_call("F", "x", "m"), make_call("F", "m", "y")]
    calls[1].overload = "other"
    body = graph(calls, outputs=[value("y", None)], weights=[])
    return model(body, functions=[first, second], local=1)


def make_sequence() -> Builder:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))
    output = helper.make_value_info("y", kind)
    return make_plain(node("SequenceConstruct", "x x", "y"), outputs=[output])


def make_quantized() -> onnx.ModelProto:
    scale = numpy_helper.from_array(np.float32(0.1), "s")
    zero = numpy_helper.from_array(np.uint8(128), "z")
    body = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    return model(graph(body, outputs=[value("y")], weights=[scale, zero]))


def annotate(proto: onnx.ModelProto) -> None:
    item = proto.graph.quantization_annotation.add(tensor_name="w")
    item.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="b")


def add_training(proto: onnx.ModelProto) -> None:
    part = proto.training_info.add()
    part.algorithm.CopyFrom(graph(name="step"))
    part.update_binding.add(key="w", value="y")


def add_metadata(proto: onnx.ModelProto) -> None:
    proto.doc_string, proto.producer_name, proto.domain = "what it is", "me", "org.example"
    proto.model_version = 7
    proto.metadata_props.add(key="license", value="Apache-2.0")
    proto.graph.doc_string = "the graph"
    proto.graph.metadata_props.add(key="a", value="b")
    proto.graph.node[0].doc_string = "the node"
    proto.graph.node[0].metadata_props.add(key="module", value="encoder.0")
    proto.graph.initializer[0].doc_string = "the weight"
    proto.graph.initializer[0].metadata_props.add(key="k", value="v")
    proto.graph.input[0].doc_string = "the input"
