"""What reads a stream: the products after each normalization, and everything else."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from irtools.editing import constant_of, only_user, producer_of, require_array, require_constant
from irtools.passes.rotation.layout import axis_after, is_layout
from irtools.passes.rotation.stream import NormReader, StreamNorm, Use
from irtools.passes.rotation.trail import Trail
from irtools.passes.rotation.writers import is_plain_gemm

__all__ = ["read_norm"]


def read_norm(trail: Trail, node: ir.Node) -> StreamNorm:
    """Return a normalization with all that reads it."""
    output = node.outputs[0]
    readers, others = [], []
    rank = trail.shapes.rank(output) or 0
    for use in output.uses():
        found = _readers(trail, use.node, use.idx, rank - 1)
        if found is None:
            others.append((use.node, use.idx))
        else:
            readers += found
    return StreamNorm(node, tuple(readers), tuple(others), output.is_graph_output())


def _readers(trail: Trail, node: ir.Node, position: int, axis: int) -> list[NormReader] | None:
    """Return the products that read a normalized value through a node; None: others do."""
    if node.graph is not trail.graph or node.domain != "":
        return None
    if node.op_type == "Shape":
        return []
    if node.op_type in ("MatMul", "Gemm") and position == 0:
        rank = trail.shapes.rank(node.inputs[0])
        reader = _product(node, trail.kept) if rank == axis + 1 else None
        return None if reader is None else [reader]
    if position or not is_layout(node):
        return None
    moved = axis_after(node, axis, trail.shapes)
    if moved is None or any(value.is_graph_output() for value in node.outputs):
        return None
    found = []
    for use in (use for value in node.outputs for use in value.uses()):
        readers = _readers(trail, use.node, use.idx, moved)
        if readers is None:
            return None
        found += readers
    return found


def _product(node: ir.Node, kept: Collection[ir.Value]) -> NormReader | None:
    if node.op_type == "Gemm":
        if not is_plain_gemm(node) or not _is_weight(node.inputs[1], kept):
            return None
        has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
        if has_bias and not _is_weight(node.inputs[2], set()):
            return None
        axis = 1 if node.attributes.get_int("transB", 0) else 0
        return NormReader(node, node, 1, axis, (node, 2) if has_bias else None)
    turn = producer_of(node.inputs[1], "Transpose")
    turned = turn is not None and turn.attributes.get_ints("perm", (1, 0)) == (1, 0)
    holder, position = (turn, 0) if turn is not None and turned else (node, 1)
    value = holder.inputs[position]
    if not _is_weight(value, kept) or (turned and holder.outputs[0].is_graph_output()):
        return None
    if len(require_constant(value).shape) != 2:
        return None
    axis = 1 if turned else 0
    return NormReader(node, holder, position, axis, _bias(node, require_constant(value), axis))


def _is_weight(value: ir.Value | None, kept: Collection[ir.Value]) -> bool:
    tensor = constant_of(value)
    return (
        value is not None
        and tensor is not None
        and value.producer() is None
        and value not in kept
        and tensor.dtype == ir.DataType.FLOAT
    )


def _bias(node: ir.Node, weight: ir.TensorProtocol, axis: int) -> Use | None:
    """Return the bias that is added to a product."""
    user = only_user(node.outputs[0])
    if user is None or user.op_type != "Add" or user.domain != "":
        return None
    position = 1 if user.inputs[0] is node.outputs[0] else 0
    value = user.inputs[position]
    if value is None or not _is_weight(value, set()):
        return None
    return (
        (user, position) if tuple(require_array(value).shape) == (weight.shape[1 - axis],) else None
    )
