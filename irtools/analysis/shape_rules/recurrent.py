"""Recurrent layers and control flow."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irtools.analysis.dims import Dim
from irtools.analysis.facts import Shape, ShapeFacts
from irtools.analysis.shape_rules.common import (
    input_at,
    int_attribute,
    ints_attribute,
    unknown,
    unknown_shape,
)

__all__ = ["branches", "loop", "recurrent", "scan"]


def recurrent(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """X [S, B, I] -> Y [S, directions, B, H], and the last states [directions, B, H].

    With `layout=1` the batch is first: X [B, S, I], Y [B, S, directions, H], [B, directions, H].
    """
    x = facts.shape(node.inputs[0])
    weight = facts.shape(input_at(node, 1))
    batch_first = bool(int_attribute(node, "layout", 0))
    both = node.attributes.get_string("direction", "forward") == "bidirectional"
    directions = 2 if both else 1
    hidden = node.attributes.get_int("hidden_size", 0) or _hidden(node, weight)
    width: Dim = unknown(node, 3) if hidden is None else hidden
    length: Dim = unknown(node, 0) if x is None else x[1 if batch_first else 0]
    batch: Dim = unknown(node, 2) if x is None else x[0 if batch_first else 1]
    if batch_first:
        state: Shape = (batch, directions, width)
        return [(batch, length, directions, width), state, state]
    state = (directions, batch, width)
    return [(length, directions, batch, width), state, state]


def _hidden(node: ir.Node, weight: Shape | None) -> int | None:
    """W is [directions, gates * H, I]; of the quantized LSTM [directions, I, 4 * H]."""
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4, "DynamicQuantizeLSTM": 4}[node.op_type]
    place = 2 if node.op_type == "DynamicQuantizeLSTM" else 1
    size = None if weight is None else weight[place]
    return size // gates if isinstance(size, int) else None


def branches(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """What both branches of an If agree on."""
    then, other = (_body_outputs(node, name) for name in ("then_branch", "else_branch"))
    pairs = zip(then, other, strict=False)
    return [
        _agreed(node, index, facts.shape(a), facts.shape(b)) for index, (a, b) in enumerate(pairs)
    ]


def loop(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """Carried values keep what their start and the body agree on; what is collected gets an axis.

    Body: (iteration, condition, carried...) -> (condition, carried..., collected...).
    """
    outputs = _body_outputs(node, "body")[1:]
    carried = len(node.inputs) - 2
    found = [
        _agreed(node, index, facts.shape(node.inputs[index + 2]), facts.shape(value))
        for index, value in enumerate(outputs[:carried])
    ]
    return found + [
        _stacked(node, index, 0, facts.shape(value), unknown(node, 0, index))
        for index, value in enumerate(outputs[carried:], carried)
    ]


def scan(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """Body: (states..., slices...) -> (states..., slices of the results...)."""
    scanned = int_attribute(node, "num_scan_inputs", 1)
    states = len(node.inputs) - scanned
    outputs = _body_outputs(node, "body")
    if "directions" in node.attributes or (node.version or 9) < 9 or len(outputs) < states:
        return [None] * len(node.outputs)  # Opset 8: batched, with the lengths as first input.
    found = [
        _agreed(node, index, facts.shape(node.inputs[index]), facts.shape(value))
        for index, value in enumerate(outputs[:states])
    ]
    axes_in = ints_attribute(node, "scan_input_axes") or (0,)
    axes_out = ints_attribute(node, "scan_output_axes") or (0,) * len(outputs)
    source = facts.shape(node.inputs[states])
    length = None if source is None else source[axes_in[0] % len(source)]
    for index, value in enumerate(outputs[states:], states):
        size = unknown(node, 0, index) if length is None else length
        found.append(_stacked(node, index, axes_out[index - states], facts.shape(value), size))
    return found


def _body_outputs(node: ir.Node, name: str) -> Sequence[ir.Value]:
    body = node.attributes.get(name)
    return () if body is None or body.is_ref() else tuple(body.as_graph().outputs)


def _agreed(node: ir.Node, index: int, one: Shape | None, other: Shape | None) -> Shape | None:
    if one is None or other is None or len(one) != len(other):
        return None
    return tuple(
        a if a == b else unknown(node, axis, index)
        for axis, (a, b) in enumerate(zip(one, other, strict=True))
    )


def _stacked(
    node: ir.Node, index: int, axis: int, inner: Shape | None, length: Dim
) -> Shape | None:
    """Put a new axis in; a size that only one round of the body knows means nothing outside."""
    if inner is None:
        return None
    dims: list[Dim] = list(unknown_shape(node, len(inner) + 1, index))
    place = axis % len(dims)
    dims[place] = length
    for at, size in enumerate(inner):
        if isinstance(size, int):
            dims[at + (at >= place)] = size
    return tuple(dims)
