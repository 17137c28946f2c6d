"""A model as a message without the data of its weights, made without copying the model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import onnx
import onnx_ir as ir

from irtools.model.walk import iter_graphs

__all__ = ["graphs_in", "hollow_message", "kept_tensors", "light_message"]

_OF_TREES = ("nodes_", "target_", "class_", "leaf_")
"""Attributes of TreeEnsemble operators that list numbers of nodes and leaves."""
_SMALL = 1024
"""Tensors of at most so many bytes keep their data: shapes are computed from them."""


@contextmanager
def kept_tensors(model: ir.Model) -> Iterator[None]:
    """Let code put other tensors into initializers; at the end they have their own again.

    A copy of the graph would do too, and takes as long as writing the model does.
    """
    values = [value for graph in iter_graphs(model) for value in graph.initializers.values()]
    kept = [(value, value.const_value) for value in values]
    try:
        yield
    finally:
        for value, tensor in kept:
            if value.const_value is not tensor:
                value.const_value = tensor


def light_message(model: ir.Model) -> onnx.ModelProto:
    """Return a model as a message in which large tensors have a type and a shape, and no data."""
    with kept_tensors(model):
        for graph in iter_graphs(model):
            for value in graph.initializers.values():
                if value.const_value is not None and _is_large(value.const_value):
                    value.const_value = _hollow(value.const_value)
        message = ir.serde.serialize_model(model)
    hollow_message(message)
    return message


def hollow_message(message: onnx.ModelProto) -> None:
    """Take the data of large tensors out of a message, in place."""
    for function in message.functions:
        _hollow_attributes(function.node)
    pending = [message.graph]
    while pending:
        graph = pending.pop()
        for tensor in graph.initializer:
            _hollow_tensor(tensor)
        _hollow_attributes(graph.node)
        pending.extend(graphs_in(graph.node))


def graphs_in(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that nodes carry in their attributes."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield attribute.g
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                yield from attribute.graphs


def _hollow_attributes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        trees = node.domain == "ai.onnx.ml" and node.op_type.startswith("TreeEnsemble")
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _hollow_tensor(attribute.t)
            elif trees and attribute.name.startswith(_OF_TREES):
                # No shape follows from them, and a forest has millions.
                for numbers in (attribute.floats, attribute.ints, attribute.strings):
                    del numbers[_SMALL:]


def _hollow_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == onnx.TensorProto.STRING or tensor.ByteSize() <= _SMALL:
        return
    bits = math.prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth
    if bits <= 8 * _SMALL:  # It has a long name.
        return
    light = onnx.TensorProto(
        name=tensor.name,
        dims=tensor.dims,
        data_type=tensor.data_type,
        data_location=onnx.TensorProto.EXTERNAL,
    )
    light.external_data.add(key="location", value="absent")
    tensor.CopyFrom(light)


def _is_large(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype != ir.DataType.STRING and tensor.nbytes > _SMALL


def _hollow(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    shape = ir.Shape(tensor.shape.numpy())
    return ir.ExternalTensor("absent", None, None, tensor.dtype, shape=shape, name="absent")
