"""A cheap digest of a model's structure, to hold passes to their word."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import onnx_ir as ir

_LONG = 256
"""Numbers in an attribute above which it stands for itself as tensors do."""


def structure_digest(model: ir.Model) -> str:
    """Digest what the printed text shows, except that tensors and long lists are known by identity.

    Neither is ever written into, so a tensor that is the same object holds the same numbers.
    Equal digests mean equal texts; different ones may still come from equal tensors created twice.
    Two digests can only be compared while the tensors of both models are alive.
    """
    digest = hashlib.blake2b(digest_size=16)
    for line in _lines(model):
        digest.update(line.encode("utf-8", "surrogatepass"))
        digest.update(b"\n")
    return digest.hexdigest()


def _lines(model: ir.Model) -> Iterator[str]:
    yield f"{model.ir_version} {sorted(model.opset_imports.items())}"
    yield f"{sorted(model.metadata_props.items())}"
    yield from _graph_lines(model.graph)
    for key, function in model.functions.items():
        yield f"function {key}"
        yield from _graph_lines(function)


def _graph_lines(graph: ir.Graph | ir.Function) -> Iterator[str]:
    yield f"in {[_typed(v) for v in graph.inputs]} out {[_typed(v) for v in graph.outputs]}"
    if isinstance(graph, ir.Graph):
        for name, value in graph.initializers.items():
            yield f"init {name} {id(value.const_value)}"
    for node in graph:
        inputs = [None if v is None else v.name for v in node.inputs]
        outputs = [v.name for v in node.outputs]
        yield f"{node.domain} {node.op_type} {node.overload} {node.name} {inputs} {outputs}"
        for key, attribute in node.attributes.items():
            yield from _attribute_lines(key, attribute)


def _is_long(attribute: ir.Attr) -> bool:
    """Whether an attribute is a list that takes long to print, as those of forests are."""
    return isinstance(attribute.value, tuple) and len(attribute.value) > _LONG


def _attribute_lines(key: str, attribute: ir.Attr) -> Iterator[str]:
    if attribute.is_ref():
        yield f"ref {key} {attribute.ref_attr_name}"
    elif attribute.type == ir.AttributeType.GRAPH:
        yield f"graph {key}"
        yield from _graph_lines(attribute.as_graph())
    elif attribute.type == ir.AttributeType.GRAPHS:
        for graph in attribute.as_graphs():
            yield f"graph {key}"
            yield from _graph_lines(graph)
    elif attribute.type in (ir.AttributeType.TENSOR, ir.AttributeType.TENSORS) or _is_long(
        attribute
    ):
        yield f"attr {key} {id(attribute.value)}"
    else:
        yield f"attr {key} {attribute.value!r}"


def _typed(value: ir.Value) -> str:
    return f"{value.name}:{value.dtype}{value.shape}"
