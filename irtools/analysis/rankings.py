"""Outputs that list what is largest first: the boxes of a detector.

Of two scores that are nearly equal either may come first. Then a row that is as it was stands in
another place, and numbers compared place by place are those of different boxes.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from irtools.analysis.shapes import Shape, SymbolicShapes
from irtools.editing import constant_of
from irtools.words import printable

__all__ = ["ranked_outputs", "told_of_ranked"]


def ranked_outputs(model: ir.Model) -> frozenset[str]:
    """Return the outputs [..., K, D] of numbers whose K rows are in the order of a TopK of K.

    Where K is open, or rows that TopK chose end up in sums (experts of a mixture), the places of
    rows mean something, and the output is none of these.
    """
    counts: dict[ir.Value, set[int]] = {}
    for node in model.graph:
        found = set().union(*(counts.get(v, set()) for v in node.inputs if v is not None))
        for value in node.outputs:
            counts[value] = set(found)
        if node.op_type == "TopK" and node.domain == "" and len(node.outputs) > 1:
            wanted = _count(node)
            if wanted is not None:
                counts[node.outputs[1]].add(wanted)
    ranked = [value for value in model.graph.outputs if counts.get(value)]
    if not ranked:
        return frozenset()
    facts = SymbolicShapes.of(model)
    return frozenset(
        value.name or ""
        for value in ranked
        if value.dtype is not None
        and value.dtype.is_floating_point()
        and _has_rows(facts.shape(value), counts[value])
    )


def _count(node: ir.Node) -> int | None:
    """Return K where it is a constant; before opset 10 it is an attribute."""
    if "k" in node.attributes:
        return node.attributes["k"].as_int()
    wanted = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return int(wanted.numpy().reshape(-1)[0]) if wanted is not None and wanted.size == 1 else None


def told_of_ranked(names: Collection[str]) -> str:
    """Say how such outputs are compared, and why."""
    listed = ", ".join(printable(name) for name in sorted(names))
    return (
        f"{listed} lists what is largest first (TopK), and rounding alone changes that order: each "
        "row is compared with the nearest one of the other model"
    )


def _has_rows(shape: Shape | None, counts: set[int]) -> bool:
    # One row has no order.
    return shape is not None and len(shape) > 1 and shape[-2] in counts - {1}
