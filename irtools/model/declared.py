"""Which initializers had their type declared in the file, although their tensor says it.

`onnx_ir` declares the type of every initializer in `value_info` when it writes a graph. What the
source did not declare is taken out again, in nested graphs as in the main one: a file that is
read and written does not grow.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir

__all__ = ["forget_undeclared", "mark_declared", "paired_graphs"]

_DECLARED = "irtools.declared"
"""Key in an initializer's `meta`: the file declared its type."""


def mark_declared(model: ir.Model, proto: onnx.ModelProto) -> None:
    """Note on each initializer of `model`, read from `proto`, that the file declares its type."""
    for graph, message in paired_graphs(model, proto):
        if graph.initializers:
            for info in message.value_info:
                value = graph.initializers.get(info.name)
                if value is not None:
                    value.meta[_DECLARED] = True


def forget_undeclared(model: ir.Model, proto: onnx.ModelProto) -> None:
    """Take out of `proto`, written from `model`, the types that nothing but `onnx_ir` declared."""
    for graph, message in paired_graphs(model, proto):
        if graph.initializers:
            infos = [i for i in message.value_info if not _is_redundant(graph, i.name)]
            del message.value_info[:]
            message.value_info.extend(infos)


def _is_redundant(graph: ir.Graph, name: str) -> bool:
    value = graph.initializers.get(name)
    if value is None or value.meta.get(_DECLARED):
        return False
    return not value.doc_string and not value.metadata_props


def paired_graphs(
    model: ir.Model, proto: onnx.ModelProto
) -> Iterator[tuple[ir.Graph, onnx.GraphProto]]:
    """Yield every graph with its message. Both list nodes in the same order."""
    yield model.graph, proto.graph
    pending = [(iter(model.graph), proto.graph.node)]
    functions = zip(model.functions.values(), proto.functions, strict=True)
    pending += [(iter(function), message.node) for function, message in functions]
    while pending:
        nodes, messages = pending.pop()
        for node, message in zip(nodes, messages, strict=True):
            for attribute in message.attribute:
                for graph, inner in _graphs(node, attribute):
                    yield graph, inner
                    pending.append((iter(graph), inner.node))


def _graphs(
    node: ir.Node, attribute: onnx.AttributeProto
) -> Iterator[tuple[ir.Graph, onnx.GraphProto]]:
    if attribute.type == onnx.AttributeProto.GRAPH and attribute.HasField("g"):
        yield node.attributes[attribute.name].as_graph(), attribute.g
    elif attribute.type == onnx.AttributeProto.GRAPHS:
        yield from zip(node.attributes[attribute.name].as_graphs(), attribute.graphs, strict=True)
