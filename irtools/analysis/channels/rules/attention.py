"""ai.onnx Attention, whose units are groups of heads that share a key and a value head."""

from __future__ import annotations

import onnx_ir as ir

from irtools.analysis.channels.groups import AttributeEdit, Trace
from irtools.analysis.channels.index_map import IndexMap
from irtools.analysis.channels.rules.elementwise import couple_or_take
from irtools.analysis.channels.rules.port import Port, Refine
from irtools.analysis.dims import Dim
from irtools.editing import weight_of

__all__ = ["attention", "rotary"]


def attention(port: Port, trace: Trace) -> None:
    """ai.onnx Attention-23: 4-D [b, heads, s, d] or 3-D [b, s, heads * d]; GQA by kv heads."""
    node = port.node
    if any(port.other(i) is not None for i in (4, 5)) or any(o.uses() for o in node.outputs[1:]):
        trace.block(node, "it has a key-value cache or more than one output")
        return
    if port.is_input and port.position > 2:
        trace.block(node, "channels lie on its mask")
        return
    trace.is_attention = True
    data = [*node.inputs[:3], node.outputs[0]]
    shapes = [trace.shapes.shape(v) for v in data]
    if any(s is None or not 3 <= len(s) <= 4 for s in shapes):
        trace.block(node, "ranks of query, key and value are not known")
        return
    if port.axis == 0:
        trace.block(node, "channels lie on its batch axis")
        return
    axis, counts, widths = _attention_layout(node, [s for s in shapes if s is not None])
    if port.axis != axis or not all(isinstance(n, int) and n > 0 for n in (*counts, *widths)):
        trace.block(node, "its channels are not whole heads")
        return
    _couple_attention(
        port, trace, data, axis, [int(c) for c in counts if isinstance(c, int)], widths
    )


def _attention_layout(
    node: ir.Node, shapes: list[tuple[Dim, ...]]
) -> tuple[int, list[Dim], list[int]]:
    """Return the channel axis, and of Q, K, V, Y how many heads and how wide each is."""
    if len(shapes[0]) == 4:
        return 1, [s[1] for s in shapes], [1] * 4
    q = node.attributes.get_int("q_num_heads", 0)
    kv = node.attributes.get_int("kv_num_heads", 0)
    counts = [q, kv, kv, q]
    widths = [
        s[2] // n if isinstance(s[2], int) and n else 0 for s, n in zip(shapes, counts, strict=True)
    ]
    return 2, list(counts), widths


def _couple_attention(
    port: Port,
    trace: Trace,
    data: list[ir.Value | None],
    axis: int,
    counts: list[int],
    widths: list[int],
) -> None:
    node = port.node
    units = counts[1]
    here = port.position if port.is_input else 3
    per_unit = counts[here] // units * widths[here]
    if port.map != IndexMap(units, per_unit):
        if port.map.outer != 1 or port.map.offset or port.map.size != units * per_unit:
            trace.block(node, "its channels are not whole heads")
            return
        if per_unit % port.map.inner:
            trace.block(node, "its channels are not whole heads")
            return
        raise Refine((1, units, per_unit // port.map.inner))
    for value, count, width in zip(data, counts, widths, strict=True):
        assert value is not None
        trace.couple(value, axis, IndexMap(units, count // units * width))
    _attention_mask(port, trace, units, counts[0])
    for name, count in (("q_num_heads", counts[0]), ("kv_num_heads", counts[1])):
        if name in node.attributes:
            trace.edit_attribute(AttributeEdit(node, name, count // units))


def _attention_mask(port: Port, trace: Trace, units: int, heads: int) -> None:
    mask = port.other(3)
    if mask is None:
        return
    shape = trace.shapes.shape(mask)
    if shape is None:
        trace.block(port.node, f"the rank of mask {mask.name} is not known")
    elif len(shape) == 4 and shape[1] != 1:
        if shape[1] != heads:
            trace.block(port.node, f"axis 1 of mask {mask.name} may or may not be broadcast")
        elif weight_of(mask) is not None:
            trace.add_member(port.node, 3, 1, IndexMap(units, heads // units), "along")
        else:
            couple_or_take(port.node, 3, 1, IndexMap(units, heads // units), trace)


def rotary(port: Port, trace: Trace) -> None:
    """ai.onnx RotaryEmbedding: 4-D [b, heads, s, d] or 3-D [b, s, heads * d], whole heads only."""
    node = port.node
    rank = trace.shapes.rank(port.value)
    if rank is None or (port.is_input and port.position > 0):
        trace.block(node, "channels lie on its angles, or its rank is not known")
        return
    if (rank, port.axis) not in ((3, 2), (4, 1)) or port.map.outer is None:
        trace.block(node, "its channels are not whole heads")
        return
    heads = node.attributes.get_int("num_heads", 0)
    count = port.map.units * port.map.outer
    if rank == 4:
        heads = heads and count * port.map.inner
    elif not heads or port.map.offset or (heads % count and count % heads):
        trace.block(node, "its channels are not whole heads")
        return
    elif heads % count:
        raise Refine((1, heads, count // heads))
    if heads:
        trace.edit_attribute(AttributeEdit(node, "num_heads", heads // port.map.units))
    for value in (node.inputs[0], node.outputs[0]):
        assert value is not None
        trace.couple(value, port.axis, port.map)
