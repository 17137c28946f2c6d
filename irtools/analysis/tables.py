"""Embedding tables that integer inputs index."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["index_consumers", "indexed_rows", "position_limit"]

# Operators whose output holds the same integers as their first input, in other places.
_CARRIERS = frozenset(
    {
        "Cast",
        "Expand",
        "Flatten",
        "Identity",
        "Reshape",
        "Slice",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)


def index_consumers(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """Return the uses (node, input index) of the integers of `value`, through operators that
    only move them."""
    found: list[tuple[ir.Node, int]] = []
    stack, seen = [value], {value}
    while stack:
        for use in stack.pop().uses():
            node, index = use
            if node.op_type in _CARRIERS and node.domain == "" and index == 0:
                fresh = node.outputs[0]
                if fresh not in seen:
                    seen.add(fresh)
                    stack.append(fresh)
            else:
                found.append((node, index))
    return found


def indexed_rows(value: ir.Value) -> int | None:
    """Return the rows of the smallest table that `value` indexes, or None where there is none.

    Follows the input to every Gather along axis 0 (or GatherBlockQuantized) of a tensor whose
    number of rows is known.
    """
    rows = [_rows(node) for node, index in index_consumers(value) if _is_lookup(node, index)]
    known = [count for count in rows if count is not None]
    return min(known, default=None)


def position_limit(graph: ir.Graph) -> int | None:
    """Return the longest sequence for which a model holds positions, or None.

    Exporters of learned positions keep the numbers 0..P-1 as an integer tensor [1, P] and slice
    it to the length of the input.
    """
    sizes = [
        value.shape[1]
        for value in graph.initializers.values()
        if value.shape is not None
        and value.shape.rank() == 2
        and value.shape[0] == 1
        and value.dtype in (ir.DataType.INT64, ir.DataType.INT32)
        and any(use.node.op_type == "Slice" and use.idx == 0 for use in value.uses())
    ]
    return min((size for size in sizes if isinstance(size, int) and size > 1), default=None)


def _is_lookup(node: ir.Node, index: int) -> bool:
    if node.op_type not in {"Gather", "GatherBlockQuantized"} or index != 1:
        return False
    name = "axis" if node.op_type == "Gather" else "gather_axis"
    attribute = node.attributes.get(name)
    return attribute is None or attribute.value == 0


def _rows(node: ir.Node) -> int | None:
    table = node.inputs[0]
    if table is None or table.shape is None or table.shape.rank() == 0:
        return None
    size = table.shape[0]
    return size if isinstance(size, int) else None
