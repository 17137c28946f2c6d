"""Why all positions of a model are computed."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irtools.analysis.provenance import module_name
from irtools.analysis.shapes import SymbolicShapes
from irtools.passes.positions.demand import Demand, is_work, row_taken

__all__ = ["which_rows", "why_not"]


def why_not(graph: ir.Graph, facts: SymbolicShapes) -> str:
    """Return the reason, as the end of a sentence, in a graph of which nothing is sunk."""
    takers = [(node, row_taken(node, facts)) for node in graph]
    found = [(node, row) for node, row in takers if row is not None and _is_computed(node)]
    if not found:
        return "nothing takes one position of what is computed, so all of them are read"
    node, row = found[-1]
    value = node.inputs[0]
    assert value is not None and row is not None
    others = [use.node for use in value.uses() if row_taken(use.node, facts) != row]
    if others or value.is_graph_output():
        reader = "a result of the model" if not others else f"read by {_name(others[0])}"
        return (
            f"several positions of {value.name} are read: {_name(node)} takes one, it is {reader}"
        )
    return (
        f"no product or attention lies before {_name(node)} that one position could be computed of"
    )


def which_rows(demands: Sequence[Demand]) -> str:
    """Return the positions that are read, in words."""
    rows: dict[int, None] = {}
    for demand in demands:
        rows.update((row.index, None) for row in demand.nodes.values())
    return " and ".join(_position(index) for index in rows)


def _position(index: int) -> str:
    return {-1: "the last position"}.get(index, f"position {index}")


def _is_computed(node: ir.Node) -> bool:
    """Whether products or attention lie before what a node takes a row of."""
    pending, seen = [node], {node}
    while pending:
        for value in pending.pop().inputs:
            maker = None if value is None else value.producer()
            if maker is None or maker in seen or maker.op_type == "Shape":
                continue
            if is_work(maker):
                return True
            seen.add(maker)
            pending.append(maker)
    return False


def _name(node: ir.Node) -> str:
    return f"{node.op_type} at {module_name(node)}"
