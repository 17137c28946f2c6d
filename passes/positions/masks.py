"""Which tensors of a model may say what is padding."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.analysis.types import element_type
from irtools.editing import constant_of
from irtools.passes.positions.padding.analysis import Mask
from irtools.passes.positions.padding.base import Number

__all__ = ["find_masks"]

_COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not"})
_MOST = 12
"""Each is tried, and a model that has more is none that we know."""


def find_masks(graph: ir.Graph, facts: SymbolicShapes) -> list[Mask]:
    """Return tensors [B, S] that are inputs or compare inputs, the likeliest first.

    Whether one is a padding mask is not guessed by its name: attention must close what it marks.
    """
    inputs = [value for value in graph.inputs if _has_positions(value, facts)]
    inputs.sort(key=lambda value: "mask" not in (value.name or ""))
    values = [*inputs, *_compared(graph, facts)]
    found = (
        Mask(value, number, (shape[0], shape[1]))
        for value in values
        if (shape := facts.shape(value)) is not None
        for number in _padding(value)
    )
    return [mask for _, mask in zip(range(_MOST), found, strict=False)]


def _has_positions(value: ir.Value, facts: SymbolicShapes) -> bool:
    dtype = value.dtype
    return facts.rank(value) == 2 and dtype is not None and dtype is not ir.DataType.STRING


def _padding(value: ir.Value) -> tuple[Number, ...]:
    """Return what may stand for padding: 0, and of a boolean either."""
    return (False, True) if element_type(value) is ir.DataType.BOOL else (0,)


def _compared(graph: ir.Graph, facts: SymbolicShapes) -> Iterator[ir.Value]:
    """Yield `ids != padding` and the like."""
    for node in graph:
        if node.domain != "" or node.op_type not in _COMPARISONS:
            continue
        made = (v for v in node.inputs if v is not None and constant_of(v) is None)
        if facts.rank(node.outputs[0]) == 2 and all(_is_of_input(value) for value in made):
            yield node.outputs[0]


def _is_of_input(value: ir.Value) -> bool:
    """Whether a value is an input, or a comparison or another type of one."""
    node = value.producer()
    while node is not None and node.op_type in (*_COMPARISONS, "Cast") and node.inputs:
        source = node.inputs[0]
        if source is None:
            return False
        value, node = source, source.producer()
    return node is None and value.is_graph_input()
