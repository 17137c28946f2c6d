"""Which inputs of which operators are weights, and along which axes their scales may differ.

Along every axis but those that are summed over:

    Conv, DeformConv    W [O, I/g, ..]          per O
    ConvTranspose       W [I, O/g, ..]          per O/g; in groups per O/g or per I
    LSTM, GRU, RNN      W, R [D, gates * H, I]  per direction and row
    MatMul              [.., K, N] per matrix and column; to the left [.., M, K] per row
    Gemm                likewise, turned or not
    Einsum              per index that the result has too
    Gather              per row along its axis
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import onnx_ir as ir

from irtools.passes.quantization.sites.quantized import (
    QUANTIZED_OPS,
    is_expansion,
    is_outlier_product,
)

__all__ = ["Axes", "Readers", "WeightSlot", "StoredKind", "find_readers"]

Axes: TypeAlias = tuple[int, ...]
StoredKind: TypeAlias = Literal["conv", "recurrent", "lookup", "product"]

_Rule: TypeAlias = Callable[[ir.Node, int, int], "tuple[Axes, ...] | None"]
"""Node, input, rank of the input to choices of axes; None where the input is not a weight."""

_Origin: TypeAlias = "tuple[int, ...] | None"
"""For each axis of a value the axis of the constant that it came from; None: they are mixed."""


@dataclass(frozen=True)
class WeightSlot:
    """A node that multiplies by a constant.

    Attributes:
        node: The node.
        kind: What it is, for the report.
        proposals: Axes of the constant along which scales may differ, at least one choice.
    """

    node: ir.Node
    kind: StoredKind
    proposals: tuple[Axes, ...]


@dataclass
class Readers:
    """Who reads a constant.

    Attributes:
        slots: Nodes that multiply by it or look up in it.
        others: Uses of any other kind: sums, comparisons, operators of foreign domains.
        rounded: A QuantizeLinear of the model itself is among the others.
        is_output: It is an output of a graph.
    """

    slots: list[WeightSlot] = field(default_factory=list)
    others: int = 0
    rounded: bool = False
    is_output: bool = False


def find_readers(model: ir.Model, value: ir.Value, tensor: ir.TensorProtocol) -> Readers:
    """Find who reads a constant, through what only moves it and through calls of functions.

    A loop that carries it from round to round as it is moves it, too: exporters from TensorFlow
    hand weights to the bodies of recurrent layers so. Reads as a parameter of quantization (a
    scale) are not counted at all.
    """
    found = Readers()
    rank = len(tensor.shape)
    pending: list[tuple[ir.Value, _Origin]] = [(value, tuple(range(rank)))]
    carried: set[ir.Value] = set()
    while pending:
        value, origin = pending.pop()
        found.is_output |= value.is_graph_output() and value not in carried
        for node, index in value.uses():
            function = model.functions.get(node.op_identifier())
            if function is not None:
                pending.append((function.inputs[index], origin))
            elif (slot := _slot(node, index, value, origin, rank)) is not None:
                found.slots.append(slot)
            elif node.domain == "" and (move := _MOVES.get(node.op_type)) and index == 0:
                pending += [(output, move(node, origin)) for output in node.outputs]
            elif (state := _carried_state(node, index)) is not None:
                inner, last, outer = state
                carried.add(last)
                pending += [(inner, origin), (outer, origin)]
            elif not _is_parameter(node, index):
                found.others += 1
                found.rounded |= node.op_type == "QuantizeLinear"
    return found


def _carried_state(node: ir.Node, index: int) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """Return the state of a loop that is the same in every round.

    Returns:
        What the body reads, what it gives to the next round, and what the loop gives; None where
        the input is another one.
    """
    if node.domain != "" or node.op_type not in ("Loop", "Scan") or "body" not in node.attributes:
        return None
    body = node.attributes["body"].as_graph()
    if len(body.inputs) != len(node.inputs):
        return None  # Scan of opset 8 has one input more.
    # The body of a Loop has its round and condition in the place of the number of rounds and the
    # first condition, and gives a condition before the states.
    first, given = (2, index - 1) if node.op_type == "Loop" else (0, index)
    states = len(node.inputs) - node.attributes.get_int("num_scan_inputs", 0)
    if not first <= index < states:
        return None
    inner, last = body.inputs[index], body.outputs[given]
    producer = last.producer()
    copied = producer is not None and producer.op_type == "Identity" and producer.inputs[0] is inner
    if not (last is inner or copied) or sum(value is last for value in body.outputs) > 1:
        return None
    return inner, last, node.outputs[index - first]


def _slot(
    node: ir.Node, index: int, value: ir.Value, origin: _Origin, rank: int
) -> WeightSlot | None:
    found = _RULES.get((node.domain, node.op_type))
    if found is None or is_outlier_product(node):
        return None
    rule, kind = found
    here = len(origin) if origin is not None else _declared_rank(value)
    proposals = rule(node, index, here)
    if proposals is None:
        return None
    if origin is None:
        # Mixed axes: the first or the last of the constant is the best guess, both are right.
        return WeightSlot(node, kind, tuple({(0,): None, (rank - 1,): None}) if rank else ((),))
    mapped = tuple(tuple(sorted(origin[a] for a in axes)) for axes in proposals)
    return WeightSlot(node, kind, mapped)


def _declared_rank(value: ir.Value) -> int:
    return len(value.shape) if value.shape is not None else 2


def _is_parameter(node: ir.Node, index: int) -> bool:
    """Whether an input is a scale, a bias of gates, or of an operator that is quantized already."""
    if node.op_type in _GATED:
        return index > 2
    if node.op_type in QUANTIZED_OPS or node.op_type in _QDQ:
        return index > 0
    return node.op_type == "Mul" and is_expansion(node.outputs[0])


_GATED = frozenset({"GRU", "LSTM", "RNN"})
_QDQ = frozenset({"DequantizeLinear", "QuantizeLinear"})


# --- what moves a constant -------------------------------------------------------------------


def _keep(node: ir.Node, origin: _Origin) -> _Origin:
    return origin


def _mix(node: ir.Node, origin: _Origin) -> _Origin:
    return None


def _turn(node: ir.Node, origin: _Origin) -> _Origin:
    perm = node.attributes.get_ints("perm", None)
    if origin is None:
        return None
    return origin[::-1] if perm is None else tuple(origin[int(axis)] for axis in perm)


_MOVES: dict[str, Callable[[ir.Node, _Origin], _Origin]] = {
    "Cast": _keep,
    "Identity": _keep,
    "Slice": _keep,
    "Split": _keep,
    "Transpose": _turn,
    "Flatten": _mix,
    "Reshape": _mix,
    "Squeeze": _mix,
    "Unsqueeze": _mix,
}


# --- what multiplies by it -------------------------------------------------------------------


def _conv(node: ir.Node, index: int, rank: int) -> tuple[Axes, ...] | None:
    return ((0,),) if index == 1 else None


def _conv_transpose(node: ir.Node, index: int, rank: int) -> tuple[Axes, ...] | None:
    if index != 1:
        return None
    # [I, O/g, ..]: in groups, one index of O/g belongs to an output channel of every group.
    return ((1,),) if node.attributes.get_int("group", 1) == 1 else ((0,), (1,))


def _recurrent(node: ir.Node, index: int, rank: int) -> tuple[Axes, ...] | None:
    return ((0, 1),) if index in (1, 2) else None


def _matmul(node: ir.Node, index: int, rank: int) -> tuple[Axes, ...] | None:
    if index > 1:
        return None
    turned = node.attributes.get_int("transB" if index else "transA", 0) == 1
    summed = max(rank - 2 if (index == 1) != turned else rank - 1, 0)
    return (tuple(axis for axis in range(rank) if axis != summed),)


def _einsum(node: ir.Node, index: int, rank: int) -> tuple[Axes, ...] | None:
    inputs, _, result = node.attributes.get_string("equation", "").replace(" ", "").partition("->")
    terms = inputs.split(",")
    labels = terms[index] if index < len(terms) else ""
    if "." in labels or len(labels) != rank:
        return ((),)
    kept = set(result) if result else {x for x in inputs if inputs.count(x) == 1}
    return (tuple(axis for axis, label in enumerate(labels) if label in kept),)


def _gather(node: ir.Node, index: int, rank: int) -> tuple[Axes, ...] | None:
    axis = node.attributes.get_int("axis", 0)
    return ((axis % rank if rank else 0,),) if index == 0 and rank > 1 else None


def _tables(node: ir.Node, index: int, rank: int) -> tuple[Axes, ...] | None:
    return ((0,),) if index in (2, 3, 4) and rank == 2 else None


def _attention(node: ir.Node, index: int, rank: int) -> tuple[Axes, ...] | None:
    return ((1,),) if index == 1 else None


_FOREIGN = "com.microsoft"
_RULES: dict[tuple[str, str], tuple[_Rule, StoredKind]] = {
    ("", "Conv"): (_conv, "conv"),
    ("", "ConvTranspose"): (_conv_transpose, "conv"),
    ("", "DeformConv"): (_conv, "conv"),
    ("", "Einsum"): (_einsum, "product"),
    ("", "GRU"): (_recurrent, "recurrent"),
    ("", "Gather"): (_gather, "lookup"),
    ("", "Gemm"): (_matmul, "product"),
    ("", "LSTM"): (_recurrent, "recurrent"),
    ("", "MatMul"): (_matmul, "product"),
    ("", "RNN"): (_recurrent, "recurrent"),
    (_FOREIGN, "Attention"): (_attention, "product"),
    (_FOREIGN, "EmbedLayerNormalization"): (_tables, "lookup"),
    (_FOREIGN, "FusedConv"): (_conv, "conv"),
    (_FOREIGN, "FusedMatMul"): (_matmul, "product"),
}
