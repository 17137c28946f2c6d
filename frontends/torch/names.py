"""Names that say where in the source a part of an exported model comes from."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from irtools.analysis.provenance import module_of
from irtools.editing import SCOPES

__all__ = ["normalize_names"]

_ORIGINAL = "pkg.torch.onnx.original_node_name"
_WITH_WEIGHTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def normalize_names(model: ir.Model) -> None:
    """Name nodes, inner values and folded weights after their modules, and drop other notes.

    `val_187` becomes `encoder.layer.3.intermediate.dense/MatMul`, and the transposed weight that
    the exporter calls `val_49` gets the name of the parameter that it was made from. Of the notes
    on nodes the module scopes stay; stack traces (which hold the paths of the machine) go.
    """
    graph = model.graph
    taken = {value.name for value in (*graph.inputs, *graph.outputs)}
    taken |= set(graph.initializers)
    _name_weights(graph, taken)
    for node in graph:
        node.name = _free(_base(node), taken)
        _name_outputs(graph, node, taken)
    _drop_notes(model)


def _base(node: ir.Node) -> str:
    module = module_of(node)
    return f"{module}/{node.op_type}" if module else node.op_type


def _name_outputs(graph: ir.Graph, node: ir.Node, taken: set[str | None]) -> None:
    public = set(map(id, graph.outputs))
    for position, value in enumerate(node.outputs):
        if value.name and id(value) not in public:
            value.name = _free(f"{node.name}.{position}", taken) if position else node.name


def _name_weights(graph: ir.Graph, taken: set[str | None]) -> None:
    anonymous = [v for v in graph.initializers.values() if _ORIGINAL not in v.metadata_props]
    for value in anonymous:
        module = _only_module(user for user, _ in value.uses())
        if not module:
            continue
        name = f"{module}.weight" if _is_weight(value) else f"{module}/constant"
        value.name = _free(name, taken)


def _only_module(nodes: Iterable[ir.Node]) -> str:
    modules = {module_of(node) for node in nodes}
    return modules.pop() if len(modules) == 1 else ""


def _is_weight(value: ir.Value) -> bool:
    if value.shape is None or len(value.shape) < 2:
        return False
    return any(user.op_type in _WITH_WEIGHTS and index == 1 for user, index in value.uses())


def _free(name: str, taken: set[str | None]) -> str:
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate


def _drop_notes(model: ir.Model) -> None:
    graph = model.graph
    for node in graph:
        scopes = node.metadata_props.get(SCOPES)
        node.metadata_props.clear()
        node.doc_string = None
        if scopes is not None:
            node.metadata_props[SCOPES] = scopes
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        value.metadata_props.clear()
    graph.metadata_props.clear()
