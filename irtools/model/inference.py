"""Shapes and types of inner values, computed by ONNX without handing it the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import onnx
import onnx_ir as ir

from irtools.model.operators import STANDARD_DOMAINS
from irtools.model.walk import iter_graphs

__all__ = ["infer_shapes", "inferred_types"]

_SMALL = 1024
"""Tensors of at most so many bytes go along: shapes are computed from them."""


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
    light = _without_weights(model)
    proto = ir.serde.serialize_model(light)
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError):
        # Nothing can be inferred of such a model; it stays as declared.
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
    model: ir.Model, sizes: Mapping[str, int] = MappingProxyType({})
) -> Iterator[tuple[ir.Value, onnx.TensorShapeProto]]:
    """Yield what nodes put out, with the shapes that ONNX infers from the inputs alone.

    What is declared of inner tensors and outputs is not looked at; outputs of operators that the
    standard does not have are taken as declared. Nothing is yielded where nothing is inferred.

    Args:
        model: Stays as it is.
        sizes: Of free axes of inputs, by their names.
    """
    light = _without_weights(model)
    for value in light.graph.inputs if sizes else ():
        if value.shape is not None:
            value.shape = ir.Shape([_sized(dim, sizes) for dim in value.shape])
    for value in light.graph.outputs:
        if not value.is_graph_input() and _is_made_by_standard(value):
            value.shape = None
    proto = ir.serde.serialize_model(light)
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError):
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


def _sized(dim: int | ir.SymbolicDim, sizes: Mapping[str, int]) -> int | ir.SymbolicDim:
    return dim if isinstance(dim, int) or dim.value is None else sizes.get(dim.value, dim)


def _is_made_by_standard(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and _is_standard(producer)


def _hollow(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Return a tensor of the same type and shape that holds no data."""
    shape = ir.Shape(tensor.shape.numpy())
    return ir.ExternalTensor("absent", None, None, tensor.dtype, shape=shape, name="absent")


def _without_weights(model: ir.Model) -> ir.Model:
    light = model.clone()
    inputs = {id(value) for value in light.graph.inputs}
    for graph in iter_graphs(light):
        for value in graph.initializers.values():
            if value.const_value is not None and _is_large(value.const_value):
                value.const_value = _hollow(value.const_value)
        for node in graph:
            _hollow_attributes(node)
            if _is_standard(node):
                for output in node.outputs:
                    if id(output) not in inputs and isinstance(output.type, ir.TensorType):
                        _forget(output)
    return light


def _hollow_attributes(node: ir.Node) -> None:
    for name, attribute in node.attributes.items():
        if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
            tensor = attribute.as_tensor()
            if _is_large(tensor):
                node.attributes[name] = ir.AttrTensor(name, _hollow(tensor))


def _is_large(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype != ir.DataType.STRING and tensor.nbytes > _SMALL


def _forget(value: ir.Value) -> None:
    if not value.is_graph_output():
        value.type = None
        value.shape = None


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
