"""Why there is nothing to prune: a user who asks for it expects an effect, or the reason."""

from __future__ import annotations

import onnx_ir as ir

from irtools.editing import weight_of
from irtools.model import iter_nodes
from irtools.operators import find_op
from irtools.words import counted

__all__ = ["count_quantized", "why_nothing"]

_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
_HOLDERS = frozenset({"DequantizeLinear", "Cast", "Mul", "Sub", "Transpose", "Reshape", "Gather"})
"""Through what a stored weight comes to a product: scales, layouts, a codebook."""
_INTEGERS = frozenset(
    {ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.INT8, ir.DataType.UINT8}
    | {ir.DataType.INT2, ir.DataType.UINT2}
)
_MAX_DEPTH = 6


def count_quantized(model: ir.Model) -> int:
    """Count the products whose weight is stored as integers; their channels are not pruned."""
    return sum(map(_is_quantized, iter_nodes(model)))


def _is_quantized(node: ir.Node) -> bool:
    op = find_op(node.domain, node.op_type)
    if op is not None and op.integers:
        return True
    if node.op_type not in _PRODUCTS or node.domain != "" or len(node.inputs) < 2:
        return False
    return _is_stored_as_integers(node.inputs[1], _MAX_DEPTH)


def _is_stored_as_integers(value: ir.Value | None, depth: int) -> bool:
    tensor = weight_of(value)
    if tensor is not None:
        return tensor.dtype in _INTEGERS
    producer = None if value is None else value.producer()
    if producer is None or not depth:
        return False
    if producer.op_type == "QuantizeLinear":
        return weight_of(producer.inputs[0]) is not None
    if producer.op_type not in _HOLDERS:
        return False
    if producer.op_type == "Gather":
        return _is_stored_as_integers(producer.inputs[1], depth - 1)
    return any(_is_stored_as_integers(v, depth - 1) for v in producer.inputs[:2])


def why_nothing(model: ir.Model, *, found: int, blocked: int, chosen: int) -> str:
    """Say why a plan to remove structure is empty.

    Args:
        found: Groups that could be pruned if options allowed it.
        blocked: Groups that cannot.
        chosen: Groups that options allow.
    """
    quantized = count_quantized(model)
    if chosen:
        return (
            f"none of {counted(chosen, 'group')} gets smaller with these settings of ratio, "
            "round-to and min-width"
        )
    if found:
        return f"options leave out {'the only group' if found == 1 else f'all {found} groups'}"
    if quantized:
        return (
            f"{counted(quantized, 'product')} {'is' if quantized == 1 else 'are'} quantized "
            "already, and only weights in floating point are pruned: prune before quantizing"
        )
    if blocked:
        return f"{counted(blocked, 'group')} of channels cannot be pruned"
    return "no MatMul, Gemm or Conv with a constant weight passes its channels to another one"
