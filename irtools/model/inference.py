"""Shapes and types of inner values, computed by ONNX without passing it the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

import onnx
import onnx_ir as ir

from irtools.model.light import graphs_in, hollow_message, light_message
from irtools.model.operators import STANDARD_DOMAINS

__all__ = ["infer_shapes", "inferred_types", "without_declared"]


def infer_shapes(model: ir.Model, *, refresh: bool = False) -> int:
    """Fill in the types and shapes of inner values, in place.

    Weights stay where they are: ONNX sees tensors without data, so that the size of the model does
    not matter. Inputs and outputs of the model are never changed. Sequence and optional types are
    kept as they are declared: the library pass replaces them wrongly.

    Args:
        model: The model.
        refresh: Forget first what is declared for outputs of standard operators, because a pass
            changed sizes. Otherwise declared sizes stay where nothing is inferred.

    Returns:
        How many values have another type or shape than before.
    """
    inferred = _inferred(_undeclared(light_message(model)))
    if inferred is None:
        return 0
    fixed = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    changed = 0
    for graph, graph_proto in _paired(model.graph, inferred.graph):
        found = {info.name: info for info in (*graph_proto.value_info, *graph_proto.output)}
        for node in graph:
            for value in node.outputs:
                if value.name in found and id(value) not in fixed:
                    changed += _update(value, found[value.name], refresh and _is_standard(node))
    return changed


def inferred_types(
    model: ir.Model, message: onnx.ModelProto, sizes: Mapping[str, int] = MappingProxyType({})
) -> Iterator[tuple[ir.Value, onnx.TensorShapeProto]]:
    """Yield what nodes put out, with the shapes that ONNX infers from the inputs alone.

    What is declared of inner tensors and outputs is not looked at; outputs of operators that the
    standard does not have are taken as declared. Nothing is yielded where nothing is inferred.

    Args:
        model: Stays as it is.
        message: The same without the data of its weights, as `without_declared` returns it.
        sizes: Of free axes of inputs, by their names.
    """
    inferred = _inferred(_sized(message, sizes) if sizes else message)
    if inferred is None:
        return
    for graph, graph_proto in _paired(model.graph, inferred.graph):
        found = {info.name: info.type for info in (*graph_proto.value_info, *graph_proto.output)}
        for node in graph:
            for value in node.outputs:
                kind = found.get(value.name or "")
                if kind is None or not _is_standard(node) or not kind.HasField("tensor_type"):
                    continue
                if kind.tensor_type.HasField("shape"):
                    yield value, kind.tensor_type.shape


def without_declared(message: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy without the data of weights, and without what is declared of outputs of nodes.

    Sequence and optional types stay, and what outputs of other operators than the standard's are
    declared to be.
    """
    light = onnx.ModelProto()
    light.CopyFrom(message)
    hollow_message(light)
    _undeclared(light)
    inputs = {info.name for info in light.graph.input}
    made = {n: node for node in light.graph.node for n in node.output}
    for info in light.graph.output:
        node = made.get(info.name)
        is_tensor = info.type.HasField("tensor_type")
        if node is None or info.name in inputs or not is_tensor:
            continue
        if node.domain in STANDARD_DOMAINS:
            info.type.tensor_type.ClearField("shape")
    return light


def _inferred(message: onnx.ModelProto) -> onnx.ModelProto | None:
    """Return a message with what ONNX infers; None where nothing can be inferred of it."""
    try:
        return onnx.shape_inference.infer_shapes(message, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError):
        return None


def _sized(message: onnx.ModelProto, sizes: Mapping[str, int]) -> onnx.ModelProto:
    """Return a copy with numbers for the free axes of its inputs."""
    sized = onnx.ModelProto()
    sized.CopyFrom(message)
    for info in sized.graph.input:
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    return sized


def _undeclared(message: onnx.ModelProto) -> onnx.ModelProto:
    """Forget, in place, the tensor types that are declared of outputs of standard operators."""
    for function in message.functions:
        _forget(function, function.node)
    pending = [message.graph]
    while pending:
        graph = pending.pop()
        _forget(graph, graph.node)
        pending.extend(graphs_in(graph.node))
    return message


def _forget(body: onnx.GraphProto | onnx.FunctionProto, nodes: Iterable[onnx.NodeProto]) -> None:
    made = {n for node in nodes if node.domain in STANDARD_DOMAINS for n in node.output}
    kept = [
        info
        for info in body.value_info
        if info.name not in made or not info.type.HasField("tensor_type")
    ]
    if len(kept) < len(body.value_info):
        del body.value_info[:]
        body.value_info.extend(kept)


def _is_standard(node: ir.Node) -> bool:
    return node.domain in STANDARD_DOMAINS


def _paired(graph: ir.Graph, proto: onnx.GraphProto) -> Iterator[tuple[ir.Graph, onnx.GraphProto]]:
    """Yield each graph of the model with its message; both have the same nodes in one order."""
    pending = [(graph, proto)]
    while pending:
        current, message = pending.pop()
        yield current, message
        for node, node_proto in zip(current, message.node, strict=True):
            for attribute in node_proto.attribute:
                mine = node.attributes[attribute.name]
                if attribute.type == onnx.AttributeProto.GRAPH:
                    pending.append((mine.as_graph(), attribute.g))
                elif attribute.type == onnx.AttributeProto.GRAPHS:
                    pending.extend(zip(mine.as_graphs(), attribute.graphs, strict=True))


def _update(value: ir.Value, info: onnx.ValueInfoProto, refresh: bool) -> int:
    """Merge what was inferred into a value; 1 if that changed it."""
    if not info.type.HasField("tensor_type") or not info.type.tensor_type.elem_type:
        return 0
    if value.type is not None and not isinstance(value.type, ir.TensorType):
        return 0
    kind = ir.serde.deserialize_type_proto_for_type(info.type)
    shape = ir.serde.deserialize_type_proto_for_shape(info.type)
    merged = shape if refresh else _merge(value.shape, shape)
    if kind == value.type and merged == value.shape:
        return 0
    value.type, value.shape = kind, merged
    return 1


def _merge(declared: ir.Shape | None, inferred: ir.Shape | None) -> ir.Shape | None:
    if inferred is None or declared is None or len(inferred) != len(declared):
        return declared if inferred is None else inferred
    return ir.Shape([_merge_size(d, i) for d, i in zip(declared, inferred, strict=True)])


def _merge_size(
    declared: int | ir.SymbolicDim, inferred: int | ir.SymbolicDim
) -> int | ir.SymbolicDim:
    if isinstance(inferred, int):
        return inferred
    return declared if isinstance(declared, int) or declared.value is not None else inferred
