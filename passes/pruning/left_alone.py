"""What is left alone, and why: a user who asks for an effect gets it, or the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from irtools.analysis.channels import NO_RULE, BlockedGroup, ChannelGroup, ChannelGroups
from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import weight_of
from irtools.model import iter_nodes
from irtools.operators import find_op, op_key
from irtools.passmanager import PassContext
from irtools.words import counted

__all__ = ["blocked_notes", "count_left", "count_quantized", "left_notes", "why_nothing"]

_MAX_REASONS = 5
_RANK = "rank"
"""Word of every reason that a rule with shapes would have answered."""
_MAX_NAME = 60

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


def count_nested(model: ir.Model) -> int:
    """Count the products with constant float weights in subgraphs and functions."""
    return sum(
        node.graph is not model.graph and node.op_type in _PRODUCTS and _has_float_weight(node)
        for node in iter_nodes(model)
    )


def _has_float_weight(node: ir.Node) -> bool:
    tensor = weight_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return tensor is not None and tensor.dtype.is_floating_point()


def count_left(model: ir.Model, ctx: PassContext) -> dict[str, int]:
    """Count what no structure can be removed from."""
    blocked = ctx.analysis(ChannelGroups, model).blocked
    found = {
        "num-groups-blocked": len(blocked),
        "num-lacking-channel-rule": sum(group.reasons[0].text == NO_RULE for group in blocked),
        "num-skipped-quantized": count_quantized(model),
        "num-skipped-subgraph": count_nested(model),
    }
    return {name: n for name, n in found.items() if n or name == "num-groups-blocked"}


def why_nothing(model: ir.Model, chosen: Sequence[ChannelGroup], ctx: PassContext) -> str:
    """Say why a plan to remove structure is empty, where options allow the `chosen` groups."""
    found = ctx.analysis(ChannelGroups, model)
    if chosen:
        return (
            f"none of {counted(len(chosen), 'group')} gets smaller with these settings of ratio, "
            "round-to and min-width"
        )
    if found.groups:
        count = len(found.groups)
        return f"options leave out {'the only group' if count == 1 else f'all {count} groups'}"
    if quantized := count_quantized(model):
        return (
            f"{counted(quantized, 'product')} {'is' if quantized == 1 else 'are'} quantized "
            "already, and only weights in floating point are pruned: prune before quantizing"
        )
    if found.blocked:
        return f"{counted(len(found.blocked), 'group')} of channels cannot be pruned"
    return "no MatMul, Gemm or Conv with a constant weight passes its channels to another one"


def left_notes(model: ir.Model, ctx: PassContext) -> list[str]:
    """Say why groups stay, and which operators lack the rules that would let them go."""
    blocked = ctx.analysis(ChannelGroups, model).blocked
    notes = blocked_notes(blocked, _node_counts(model))
    if any(_RANK in reason.text for group in blocked for reason in group.reasons):
        notes += _shape_notes(ctx.analysis(SymbolicShapes, model))
    if nested := count_nested(model):
        notes.append(f"{counted(nested, 'product')} in subgraphs or functions not pruned")
    return notes


def blocked_notes(
    blocked: Sequence[BlockedGroup], nodes: Mapping[str, int] | None = None
) -> list[str]:
    """Say why groups stay: one line per reason, the commonest first, with one name each.

    Args:
        blocked: The groups.
        nodes: How many nodes the model has of an operator.
    """
    found: dict[tuple[str, str], list[BlockedGroup]] = {}
    for group in blocked:
        reason = group.reasons[0]
        found.setdefault((reason.op, reason.text), []).append(group)
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    notes = []
    for (op, text), groups in ordered[:_MAX_REASONS]:
        if text == NO_RULE:
            users = counted((nodes or {}).get(op, 1), "node")
            stay = counted(len(groups), "group")
            notes.append(f"{users} of {_cut(op)}: no channel rule, {stay} could not be pruned")
            continue
        where = f"at {op}: " if op else ""
        count = counted(len(groups), "group")
        example = "such as " * (len(groups) > 1) + _cut(groups[0].name)
        notes.append(f"{count} not pruned, {where}{_cut(text, 2 * _MAX_NAME)} ({example})")
    rest = ordered[_MAX_REASONS:]
    if rest:
        groups_left = sum(len(groups) for _, groups in rest)
        reasons = counted(len(rest), "other reason")
        notes.append(f"{counted(groups_left, 'more group')} not pruned, for {reasons}")
    return notes


def _shape_notes(shapes: SymbolicShapes) -> list[str]:
    """Name the operators after which ranks are not known."""
    return [
        f"{counted(count, 'node')} of {_cut(op)}: no shape rule, what follows has no known rank"
        for op, count in sorted(shapes.without_rule.items())[:_MAX_REASONS]
    ]


def _node_counts(model: ir.Model) -> Counter[str]:
    return Counter(op_key(node.domain, node.op_type) for node in model.graph)


def _cut(text: str, limit: int = _MAX_NAME) -> str:
    """Shorten in the middle: the ends of a name say most."""
    half = limit // 2
    return text if len(text) <= limit else f"{text[: half - 1]}…{text[-half:]}"
