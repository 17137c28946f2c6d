"""A model as Model Explorer's own graph JSON, which it opens without an adapter for ONNX.

Fields and their names are those of `model_explorer/graph_builder.py` (GraphCollection, Graph,
GraphNode, IncomingEdge, MetadataItem, KeyValue), package ai-edge-model-explorer 0.1.34.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from irtools.analysis.pairing import node_ids
from irtools.model import dtype_text, iter_graphs, subgraphs
from irtools.words import printable

__all__ = ["graph_collection", "main_graph_id"]

_INPUTS = "Inputs"
_OUTPUTS = "Outputs"


def main_graph_id(label: str) -> str:
    """Return the id of the main graph of a model; node data is filed under it."""
    return label


def graph_collection(
    model: ir.Model, label: str, modules: Mapping[str, str] = {}
) -> dict[str, Any]:
    """Return a model with all its graphs.

    Args:
        model: The model; its weights are not read.
        label: What to call it.
        modules: Id of a node to its module, which becomes its place among the nested layers.
    """
    ids = node_ids(model)
    names = {graph: _graph_id(graph, label, n) for n, graph in enumerate(iter_graphs(model))}
    makers = {
        value: (ids[node], str(place)) for node in ids for place, value in enumerate(node.outputs)
    }
    graphs = [
        {"id": name, "nodes": list(_nodes(graph, ids, makers, modules, names))}
        for graph, name in names.items()
    ]
    return {"label": label, "graphs": graphs}


def _graph_id(graph: ir.Graph, label: str, number: int) -> str:
    return main_graph_id(label) if not number else f"{label}/{graph.name or 'graph'}#{number}"


def _nodes(
    graph: ir.Graph,
    ids: Mapping[ir.Node, str],
    makers: Mapping[ir.Value, tuple[str, str]],
    modules: Mapping[str, str],
    names: Mapping[ir.Graph, str],
) -> Iterator[dict[str, Any]]:
    inputs = {
        value: (_INPUTS, str(place))
        for place, value in enumerate(graph.inputs)
        if value.name not in graph.initializers
    }
    if inputs:
        yield _node(_INPUTS, _INPUTS, outputs=list(inputs))
    known = {**makers, **inputs}
    for node in graph:
        yield _node(
            ids[node],
            printable(node.op_type),
            namespace=modules.get(ids[node], "").replace(".", "/"),
            attrs=list(_attributes(node)),
            edges=list(_edges(node.inputs, known)),
            outputs=list(node.outputs),
            subgraphs=[names[one] for one in subgraphs(node)],
        )
    yield _node(_OUTPUTS, _OUTPUTS, edges=list(_edges(graph.outputs, known)))


def _node(
    name: str,
    label: str,
    *,
    namespace: str = "",
    attrs: Sequence[Mapping[str, str]] = (),
    edges: Sequence[Mapping[str, str]] = (),
    outputs: Sequence[ir.Value] = (),
    subgraphs: Sequence[str] = (),
) -> dict[str, Any]:
    """Return a node with every field: the web page reads them without looking."""
    return {
        "id": name,
        "label": label,
        "namespace": namespace,
        "subgraphIds": list(subgraphs),
        "attrs": list(attrs),
        "incomingEdges": list(edges),
        "outputsMetadata": list(_metadata(outputs)),
        "inputsMetadata": [],
    }


def _edges(values: Any, known: Mapping[ir.Value, tuple[str, str]]) -> Iterator[dict[str, str]]:
    for place, value in enumerate(values):
        if value is not None and value in known:
            source, output = known[value]
            yield {
                "sourceNodeId": source,
                "sourceNodeOutputId": output,
                "targetNodeInputId": str(place),
            }


def _metadata(values: Any) -> Iterator[dict[str, Any]]:
    """Yield names and types of outputs; node data may be filed under `tensor_name`."""
    for place, value in enumerate(values):
        dtype = "" if value.dtype is None else dtype_text(value.dtype)
        shape = "" if value.shape is None else "x".join(map(str, value.shape))
        attrs = {"tensor_name": value.name or "", "type": f"{dtype} {shape}".strip()}
        yield {"id": str(place), "attrs": _pairs(attrs)}


def _attributes(node: ir.Node) -> Iterator[dict[str, str]]:
    yield from _pairs({"domain": node.domain} if node.domain else {})
    for name, attribute in node.attributes.items():
        if attribute.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            is_tensor = attribute.type == ir.AttributeType.TENSOR
            text = "tensor" if is_tensor else printable(attribute.value)
            yield from _pairs({name: text})
    for place, value in enumerate(node.inputs):
        tensor = None if value is None else value.const_value
        if value is not None and tensor is not None:
            shape = "x".join(map(str, tensor.shape))
            text = f"{value.name}: {dtype_text(tensor.dtype)} {shape}"
            yield from _pairs({f"weight {place}": printable(text)})


def _pairs(attrs: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in attrs.items()]
