"""Which row of an operator's inputs one row of its result needs: one rule per operator.

What a rule cannot prove it declines: then the row is taken from the whole result.
"""

from __future__ import annotations

from types import MappingProxyType

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import array_of, constant_of
from irtools.operators import Kind, RuleTable
from irtools.passes.positions.attention import attention, multi_head_attention, rotary
from irtools.passes.positions.row import Row, Rule, Sources, broadcast_axis, of_broadcast
from irtools.passes.positions.targets import expand, reshape

__all__ = ["ROWS"]


def _elementwise(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    """y = f(a, b, ...): the row of every input that is as long as the result."""
    return of_broadcast(node, range(len(node.inputs)), row, facts)


def _unary(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    return {0: row.axis}


def _reduce(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    """Sums and the like along other axes."""
    rank, axes = facts.rank(node.inputs[0]), _axes(node)
    if rank is None or not axes:
        return None
    gone = {axis % rank for axis in axes}
    if node.attributes.get_int("keepdims", 1):
        return None if row.axis in gone else {0: row.axis}
    return {0: [axis for axis in range(rank) if axis not in gone][row.axis]}


def _normalize(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    """LayerNormalization and RMSNormalization over the axes from `axis` on."""
    rank = facts.rank(node.inputs[0])
    if rank is None or row.axis >= node.attributes.get_int("axis", -1) % rank:
        return None
    shape = facts.shape(node.inputs[0])
    for value in node.inputs[1:]:
        if value is not None and broadcast_axis(facts.shape(value), shape, row.axis) != -1:
            return None
    return {0: row.axis}


def _skip_normalize(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    """Residual and normalization in one: LayerNorm(x + skip), and the sum as fourth result."""
    shapes = [facts.shape(value) for value in node.inputs[:2]]
    if shapes[0] is None or shapes[0] != shapes[1] or row.axis >= len(shapes[0]) - 1:
        return None
    return {0: row.axis, 1: row.axis}


def _softmax(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    """Along a later axis, where old and new versions of the operator mean the same."""
    rank = facts.rank(node.inputs[0])
    if rank is None or "axis" not in node.attributes:
        return None
    return {0: row.axis} if row.axis < node.attributes.get_int("axis", -1) % rank else None


def _matmul(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    """A @ B: the row of A; a column of B where B is computed."""
    left, right = (facts.rank(value) for value in node.inputs)
    if left is None or right is None or min(left, right) < 2:
        return None
    rank = max(left, right)
    if row.axis == rank - 2:
        return {0: left - 2}
    if row.axis == rank - 1:
        return {1: right - 1} if constant_of(node.inputs[1]) is None else None
    return of_broadcast(node, range(2), row, facts)


def _gemm(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    """A @ B + C: the row of A, and of C where it has as many."""
    if row.axis != 0 or node.attributes.get_int("transA", 0) != 0:
        return None
    bias = of_broadcast(node, range(2, len(node.inputs)), row, facts)
    return None if bias is None else {0: 0, **bias}


def _block_product(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    """MatMulNBits quantizes activations row by row, if at all."""
    rank = facts.rank(node.inputs[0])
    return None if rank is None or row.axis >= rank - 1 else {0: row.axis}


def _quantize(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    """One scale for all, or one per channel of another axis."""
    scale, rank = facts.shape(node.inputs[1]), facts.rank(node.inputs[0])
    if scale is None or rank is None or len(scale) > 1:
        return None
    if scale not in ((), (1,)) and node.attributes.get_int("axis", 1) % rank == row.axis:
        return None
    return {0: row.axis}


def _transpose(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    rank = facts.rank(node.inputs[0])
    if rank is None:
        return None
    perm = node.attributes.get_ints("perm") or range(rank)[::-1]
    return {0: list(perm)[row.axis]}


def _squeeze(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    rank, axes = facts.rank(node.inputs[0]), _axes(node)
    if rank is None or axes is None:
        return None
    gone = {axis % rank for axis in axes}
    return {0: [axis for axis in range(rank) if axis not in gone][row.axis]}


def _unsqueeze(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    rank, axes = facts.rank(node.outputs[0]), _axes(node)
    if rank is None or axes is None:
        return None
    new = {axis % rank for axis in axes}
    kept = [axis for axis in range(rank) if axis not in new]
    return {0: kept.index(row.axis)} if row.axis in kept else None


def _gather(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    """Of the indices, where the axis is one of theirs, else of the data."""
    data, indices = (facts.rank(value) for value in node.inputs)
    if data is None or indices is None:
        return None
    axis = node.attributes.get_int("axis", 0) % data
    if axis <= row.axis < axis + indices:
        return {1: row.axis - axis}
    return {0: row.axis if row.axis < axis else row.axis - indices + 1}


def _gather_elements(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    """Along the axis that is looked up, indices only; else both, where they are as long."""
    data, indices = (facts.shape(value) for value in node.inputs)
    if data is None or indices is None or len(data) != len(indices):
        return None
    if node.attributes.get_int("axis", 0) % len(data) == row.axis:
        return {1: row.axis}
    return {0: row.axis, 1: row.axis} if data[row.axis] == indices[row.axis] else None


def _slice(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    rank = facts.rank(node.inputs[0])
    axes = array_of(node.inputs[3]) if len(node.inputs) > 3 else None
    if rank is None or axes is None:
        return None
    return None if row.axis in {int(a) % rank for a in axes.reshape(-1)} else {0: row.axis}


def _along_another_axis(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    """Concat and Split along another axis."""
    rank = facts.rank(node.outputs[0])
    if rank is None or node.attributes.get_int("axis", 0) % rank == row.axis:
        return None
    joined = node.op_type == "Concat"
    return dict.fromkeys(range(len(node.inputs) if joined else 1), row.axis)


def _axes(node: ir.Node) -> list[int] | None:
    """Return `axes`, an attribute or the second input; None where they are not known."""
    if "axes" in node.attributes:
        return list(node.attributes.get_ints("axes", ()))
    found = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if found is None else [int(axis) for axis in found.reshape(-1)]


ROWS: RuleTable[Rule] = RuleTable(
    "rows",
    "one row of the result can be computed alone",
    by_kind=MappingProxyType(
        {Kind.ELEMENTWISE: _elementwise, Kind.REDUCTION: _reduce, Kind.UNARY: _unary}
    ),
    by_name=MappingProxyType(
        {
            "Attention": attention,
            "Concat": _along_another_axis,
            "DequantizeLinear": _quantize,
            "Expand": expand,
            "Gather": _gather,
            "GatherElements": _gather_elements,
            "Gemm": _gemm,
            "Identity": _unary,
            "LayerNormalization": _normalize,
            "LogSoftmax": _softmax,
            "MatMul": _matmul,
            "QuantizeLinear": _quantize,
            "RMSNormalization": _normalize,
            "Reshape": reshape,
            "RotaryEmbedding": rotary,
            "SimplifiedLayerNormalization": _normalize,
            "Slice": _slice,
            "Softmax": _softmax,
            "Split": _along_another_axis,
            "Squeeze": _squeeze,
            "Transpose": _transpose,
            "Unsqueeze": _unsqueeze,
            "com.microsoft::MatMulNBits": _block_product,
            "com.microsoft::MultiHeadAttention": multi_head_attention,
            "com.microsoft::SkipLayerNormalization": _skip_normalize,
            "com.microsoft::SkipSimplifiedLayerNormalization": _skip_normalize,
        }
    ),
)
"""By kind: a normalization or a change of layout is never guessed, only its own rule holds."""
