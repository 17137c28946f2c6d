"""Attention: a mask closes padding among the keys; padding among the queries stays there.

Rotary position embedding turns each row by itself, so padding stays there as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irtools.passes.positions.padding.base import (
    MixedError,
    Pad,
    Pads,
    Reader,
    TokenAxes,
    aligned,
    changed,
    keep_changed,
    union,
)

__all__ = ["attention", "multi_head_attention", "rotary"]

_QUERIES, _KEYS, _RANK = 2, 3, 4
"""Axes of scores [B, heads, S, T]."""


def attention(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    """ai.onnx Attention; a soft cap would open again what the mask closes."""
    mask, limits = _input(node, 3), node.inputs[4:]
    if node.attributes.get_float("softcap", 0.0) or any(value is not None for value in limits):
        return (keep_changed(_all(node, reader)),)
    return _attended(node, reader, aligned(mask, _RANK, reader))


def multi_head_attention(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    """com.microsoft MultiHeadAttention: a mask of keys [B, S], a bias [B, heads, S, T], or both."""
    limits = (_input(node, 3), *node.inputs[6:])
    if any(value is not None for value in limits):
        return (keep_changed(_all(node, reader)),)
    closed = _input(node, 4)
    mask = dict(aligned(_input(node, 5), _RANK, reader))
    for place, pad in reader.of(closed).items():
        if reader.facts.rank(closed) == 2 and place.position == 1 and pad.number == 0:
            mask[TokenAxes(place.batch, _KEYS)] = Pad(False, pad.kept)
        else:
            keep_changed({place: pad})
    return _attended(node, reader, mask)


def rotary(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    """ai.onnx RotaryEmbedding: rows and their angles; positions must be what they were."""
    keep_changed(reader.of(_input(node, 3)))
    rows = union([_rows(value, reader) for value in node.inputs[:3]])
    return (_as_result(rows, node, reader),)


def _attended(node: ir.Node, reader: Reader, mask: Pads) -> Sequence[Pads]:
    query, key, value = (_rows(_input(node, index), reader) for index in range(3))
    for place in (*key, *value):
        if not _closes(mask.get(TokenAxes(place.batch, _KEYS))):
            raise MixedError
    for place in changed(mask):
        if place.position != _QUERIES or place.batch not in (0, None):
            raise MixedError
        query[TokenAxes(place.batch, _QUERIES)] = Pad(None, kept=False)
    if query and any(_is_read(output) for output in node.outputs[3:]):
        raise MixedError
    return _as_result(query, node, reader), key, value


def _rows(value: ir.Value | None, reader: Reader) -> dict[TokenAxes, Pad]:
    """Return where rows of queries, keys or values have changed, as in [B, heads, S, D].

    Raises:
        MixedError: Something else has.
    """
    pads = changed(reader.of(value))
    axis = {3: 1, 4: 2}.get(reader.facts.rank(value) or 0)
    if any(place.position != axis or place.batch not in (0, None) for place in pads):
        raise MixedError
    return {TokenAxes(place.batch, _QUERIES): pad for place, pad in pads.items()}


def _as_result(rows: Pads, node: ir.Node, reader: Reader) -> Pads:
    """Return where rows of [B, heads, S, D] lie in a result, which may be [B, S, heads * D]."""
    axis = 1 if reader.facts.rank(node.outputs[0]) == 3 else _QUERIES
    return {TokenAxes(place.batch, axis): Pad(None, kept=False) for place in rows}


def _closes(pad: Pad | None) -> bool:
    """Whether a mask hides a key: false, or so low a score that it gets no weight."""
    return pad is not None and pad.kept and (pad.closed or pad.number is False)


def _all(node: ir.Node, reader: Reader) -> Pads:
    return {place: pad for value in node.inputs for place, pad in changed(reader.of(value)).items()}


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _is_read(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()
