"""How channels pass each operator: one rule per operator, and none that guesses.

A rule is called with the port of a node where a slot was met (an input or output position) and
couples the other ports to it. What it cannot prove it blocks, with a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import onnx_ir as ir

from irtools.analysis.dims import Dim
from irtools.analysis.shapes import constant_of
from irtools.passes.pruning.groups import AttributeEdit, Trace
from irtools.passes.pruning.index_map import IndexMap

__all__ = ["RULES", "Port", "Refine", "Rule"]


@dataclass(frozen=True)
class Port:
    """Where a slot meets a node.

    Attributes:
        node: The node.
        is_input: Whether it is an input of the node.
        position: Which one.
        axis: Axis of the slot, not negative.
        map: Layout of the units on it.
    """

    node: ir.Node
    is_input: bool
    position: int
    axis: int
    map: IndexMap

    @property
    def value(self) -> ir.Value:
        value = (self.node.inputs if self.is_input else self.node.outputs)[self.position]
        assert value is not None
        return value

    def other(self, position: int) -> ir.Value | None:
        """Return an input of the node, or None where it is absent."""
        return self.node.inputs[position] if position < len(self.node.inputs) else None


class Refine(Exception):  # noqa: N818 - a request to start again, not an error
    """The units are too fine for what the channels meet: these (outer, units, inner) would do."""

    def __init__(self, *candidates: tuple[int, int, int]) -> None:
        self.candidates = candidates


Rule = Callable[[Port, Trace], None]


def _unary(port: Port, trace: Trace) -> None:
    """y = f(x) per element; other inputs are scalars."""
    if port.is_input and port.position > 0:
        trace.block(port.node, "its channels are a parameter here")
        return
    for value in (port.node.inputs[0], port.node.outputs[0]):
        assert value is not None
        trace.couple(value, port.axis, port.map)
    for extra in port.node.outputs[1:]:
        if extra.uses() or extra.is_graph_output():
            trace.block(port.node, f"second output {extra.name} is used")


def _elementwise(port: Port, trace: Trace) -> None:
    """Broadcasting operators: the axis counted from the end is coupled where it is not 1."""
    shape = trace.shapes.shape(port.value)
    if shape is None:
        trace.block(port.node, f"the rank of {port.value.name} is not known")
        return
    back = port.axis - len(shape)
    size = shape[port.axis]
    for position, value in enumerate(port.node.inputs):
        if value is not None:
            _broadcast(port, trace, value, position, back, size)
    _broadcast(port, trace, port.node.outputs[0], -1, back, size)


def _broadcast(
    port: Port, trace: Trace, value: ir.Value, position: int, back: int, size: Dim
) -> None:
    shape = trace.shapes.shape(value)
    if shape is None:
        trace.block(port.node, f"the rank of {value.name} is not known")
        return
    axis = len(shape) + back
    if axis < 0 or shape[axis] == 1:
        return
    if position >= 0 and constant_of(value) is not None:
        trace.add_member(port.node, position, axis, port.map, "along")
    elif shape[axis] == size:
        trace.couple(value, axis, port.map)
    else:
        trace.block(port.node, f"axis {axis} of {value.name} may or may not be broadcast")


def _matmul(port: Port, trace: Trace) -> None:
    a, b = port.other(0), port.other(1)
    assert a is not None and b is not None
    ranks = [trace.shapes.rank(v) for v in (a, b, port.node.outputs[0])]
    if any(r is None or r < 2 for r in ranks):
        trace.block(port.node, "an operand is a vector or its rank is not known")
        return
    back = port.axis - (trace.shapes.rank(port.value) or 0)
    for value, place in _matmul_axes(port, back):
        _couple_back(port, trace, value, place)


def _matmul_axes(port: Port, back: int) -> list[tuple[int, int]]:
    """List the (port, axis from the end) that an axis of MatMul is coupled to; 2 is Y."""
    here = port.position if port.is_input else 2
    match here, back:
        case (0, -1) | (1, -2):
            return [(0, -1), (1, -2)]
        case (0, -2) | (2, -2):
            return [(0, -2), (2, -2)]
        case (1, -1) | (2, -1):
            return [(1, -1), (2, -1)]
    return [(0, back), (1, back), (2, back)]


def _couple_back(port: Port, trace: Trace, place: int, back: int) -> None:
    node = port.node
    value = node.outputs[0] if place == 2 else node.inputs[place]
    assert value is not None
    shape = trace.shapes.shape(value) or ()
    axis = len(shape) + back
    if axis < 0 or (back < -2 and shape[axis] == 1):
        return
    if place < 2 and constant_of(value) is not None:
        if len(shape) != 2:
            trace.block(node, f"constant operand {value.name} has rank {len(shape)}")
            return
        contracted = (place, back) in ((0, -1), (1, -2))
        data_rank = trace.shapes.rank(node.inputs[1 - place]) or 0
        data_axis = data_rank - (1 if place == 1 else 2)
        role: str = "in" if contracted else "out"
        trace.add_member(node, place, axis, port.map, role, data_axis if contracted else None)  # type: ignore[arg-type]
    else:
        trace.couple(value, axis, port.map)


def _gemm(port: Port, trace: Trace) -> None:
    node = port.node
    a, b, c = port.other(0), port.other(1), port.other(2)
    attributes = node.attributes
    if a is None or constant_of(b) is None or attributes.get_int("transA", 0) != 0:
        trace.block(node, "its weight is not constant or its data is transposed")
        return
    transposed = attributes.get_int("transB", 0) != 0
    if port.is_input and port.position > 0:
        trace.block(node, "its channels are a weight or a bias here")
    elif port.axis == 0:
        trace.couple(a, 0, port.map)
        trace.couple(node.outputs[0], 0, port.map)
        if c is not None and (constant_of(c) is None or (trace.shapes.rank(c) or 0) > 1):
            trace.block(node, "its bias may have rows")
    elif port.is_input:
        trace.add_member(node, 1, 1 if transposed else 0, port.map, "in", 1)
    else:
        trace.couple(node.outputs[0], 1, port.map)
        trace.add_member(node, 1, 0 if transposed else 1, port.map, "out")
        _add_bias(port, trace, 2)


def _add_bias(port: Port, trace: Trace, position: int) -> None:
    bias = port.other(position)
    if bias is None:
        return
    tensor = constant_of(bias)
    if tensor is None:
        trace.block(port.node, f"bias {bias.name} is not constant")
    elif len(tensor.shape) and tensor.shape[-1] != 1:
        trace.add_member(port.node, position, len(tensor.shape) - 1, port.map, "along")


def _conv(port: Port, trace: Trace) -> None:
    node = port.node
    x, w = port.other(0), port.other(1)
    weight = constant_of(w)
    if x is None or weight is None or (port.is_input and port.position > 0):
        trace.block(node, "its weight is not constant")
        return
    if port.axis != 1:
        _pass_through(port, trace, "spatial axis")
        return
    group = node.attributes.get_int("group", 1)
    if group == 1:
        if port.is_input:
            trace.add_member(node, 1, 1, port.map, "in", 1)
            return
    elif group == weight.shape[0] and weight.shape[1] == 1:
        trace.couple(x, 1, port.map)
        trace.attribute_edits[node, "group"] = AttributeEdit(
            node, "group", (port.map.outer or 1) * port.map.inner
        )
    else:
        trace.block(node, f"{group} groups, neither 1 nor one per channel")
        return
    trace.couple(node.outputs[0], 1, port.map)
    trace.add_member(node, 1, 0, port.map, "out" if group == 1 else "along")
    _add_bias(port, trace, 2)


def _batch_norm(port: Port, trace: Trace) -> None:
    if port.axis != 1 or (port.is_input and port.position > 0):
        _pass_through(port, trace, "parameters")
        return
    _unary(port, trace)
    for position in range(1, len(port.node.inputs)):
        if constant_of(port.other(position)) is None:
            trace.block(port.node, "its parameters are not constant")
            return
        trace.add_member(port.node, position, 0, port.map, "along")


def _pass_through(port: Port, trace: Trace, what: str) -> None:
    """Axis 0 of data and result belong together; any other axis is not followed."""
    if port.axis == 0 and port.position == 0:
        _unary(port, trace)
    else:
        trace.block(port.node, f"channels lie on its {what}")


def _pool(port: Port, trace: Trace) -> None:
    if port.axis > 1:
        trace.block(port.node, "channels lie on a spatial axis")
    else:
        _unary(port, trace)


def _softmax(port: Port, trace: Trace) -> None:
    rank = trace.shapes.rank(port.value)
    default = -1 if (port.node.version or 13) >= 13 else 1
    axis = port.node.attributes.get_int("axis", default)
    if rank is None or axis % rank == port.axis or (default == 1 and axis % rank < port.axis):
        trace.block(port.node, "it normalises over the channels")
        return
    trace.is_attention = True
    _unary(port, trace)


def _normalization(port: Port, trace: Trace) -> None:
    rank = trace.shapes.rank(port.value)
    axis = port.node.attributes.get_int("axis", -1)
    if rank is None or port.axis >= axis % rank or (port.is_input and port.position > 0):
        trace.block(port.node, "it normalises over the channels")
    else:
        _unary(port, trace)


def _transpose(port: Port, trace: Trace) -> None:
    rank = trace.shapes.rank(port.value)
    if rank is None:
        trace.block(port.node, f"the rank of {port.value.name} is not known")
        return
    perm = list(port.node.attributes.get_ints("perm", tuple(reversed(range(rank)))))
    x = port.node.inputs[0]
    assert x is not None
    before, after = (
        (port.axis, perm.index(port.axis)) if port.is_input else (perm[port.axis], port.axis)
    )
    trace.couple(x, before, port.map)
    trace.couple(port.node.outputs[0], after, port.map)


def _reduce(port: Port, trace: Trace) -> None:
    x, y = port.node.inputs[0], port.node.outputs[0]
    rank = trace.shapes.rank(x)
    axes = _constant_axes(port, trace)
    if x is None or rank is None or axes is None or not axes:
        trace.block(port.node, "its axes are not known")
        return
    places = {a % rank for a in axes}
    keep = port.node.attributes.get_int("keepdims", 1)
    order = [i for i in range(rank) if keep or i not in places]
    axis = port.axis if port.is_input else order[port.axis]
    if axis in places:
        trace.block(port.node, "it sums over the channels")
        return
    trace.couple(x, axis, port.map)
    trace.couple(y, order.index(axis), port.map)


def _constant_axes(port: Port, trace: Trace) -> tuple[int, ...] | None:
    if "axes" in port.node.attributes:
        return tuple(port.node.attributes.get_ints("axes", ()))
    axes = trace.shapes.integers(port.other(1))
    if axes is None or not all(isinstance(a, int) for a in axes.reshape(-1)):
        return None
    return tuple(int(a) for a in axes.reshape(-1))


def _squeeze(port: Port, trace: Trace) -> None:
    _stretch(port, trace, port.node.inputs[0], port.node.outputs[0])


def _unsqueeze(port: Port, trace: Trace) -> None:
    _stretch(port, trace, port.node.outputs[0], port.node.inputs[0])


def _stretch(port: Port, trace: Trace, wide: ir.Value | None, narrow: ir.Value | None) -> None:
    axes = _constant_axes(port, trace)
    rank = trace.shapes.rank(wide)
    if wide is None or narrow is None or axes is None or rank is None or not axes:
        trace.block(port.node, "its axes are not known")
        return
    places = {a % rank for a in axes}
    order = [i for i in range(rank) if i not in places]
    axis = port.axis if port.value is wide else order[port.axis]
    if axis in places:
        trace.block(port.node, "it drops the axis of the channels")
        return
    trace.couple(wide, axis, port.map)
    trace.couple(narrow, order.index(axis), port.map)


def _gather(port: Port, trace: Trace) -> None:
    data, y = port.other(0), port.node.outputs[0]
    ranks = [trace.shapes.rank(v) for v in (data, port.other(1))]
    if data is None or ranks[0] is None or ranks[1] is None or (port.is_input and port.position):
        trace.block(port.node, "ranks are not known, or its channels are indices")
        return
    axis = port.node.attributes.get_int("axis", 0) % ranks[0]
    grown = ranks[1] - 1
    before = port.axis if port.is_input or port.axis < axis else port.axis - grown
    if before == axis or (not port.is_input and axis <= port.axis < axis + ranks[1]):
        trace.block(port.node, "it picks single channels")
        return
    if constant_of(data) is not None:
        trace.block(port.node, f"channels are columns of the table {data.name}")
        return
    trace.couple(data, before, port.map)
    trace.couple(y, before if before < axis else before + grown, port.map)


def _slice(port: Port, trace: Trace) -> None:
    rank = trace.shapes.rank(port.value)
    axes = trace.shapes.integers(port.other(3)) if port.other(3) is not None else None
    known = axes is not None and rank is not None and all(isinstance(a, int) for a in axes)
    if not known or port.position > 0 or axes is None or rank is None:
        trace.block(port.node, "its axes are not known")
    elif port.axis in {int(a) % rank for a in axes}:
        trace.block(port.node, "it cuts through the channels")
    else:
        _unary(port, trace)


def _concat(port: Port, trace: Trace) -> None:
    y = port.node.outputs[0]
    rank = trace.shapes.rank(port.value)
    if rank is None:
        trace.block(port.node, "its rank is not known")
        return
    if port.axis != port.node.attributes.get_int("axis", 0) % rank:
        for position, value in enumerate(port.node.inputs):
            assert value is not None
            if constant_of(value) is not None:
                trace.add_member(port.node, position, port.axis, port.map, "along")
            else:
                trace.couple(value, port.axis, port.map)
        trace.couple(y, port.axis, port.map)
        return
    sizes = [(trace.shapes.shape(v) or (None,) * rank)[port.axis] for v in port.node.inputs]
    starts = [0]
    for size in sizes:
        if not isinstance(size, int):
            trace.block(port.node, "sizes along its axis are not known")
            return
        starts.append(starts[-1] + size)
    if port.is_input:
        trace.couple(y, port.axis, port.map.shifted(starts[port.position]))
        return
    # Met from behind: the units of one part only, or the group would span several parts.
    extent = port.map.size
    if port.map.offset not in starts[:-1] or extent is None:
        trace.block(port.node, "its channels lie across several parts")
        return
    part = starts.index(port.map.offset)
    value = port.node.inputs[part]
    if extent != sizes[part] or value is None:
        trace.block(port.node, "its channels lie across several parts")
        return
    trace.couple(value, port.axis, port.map.shifted(-port.map.offset))


def _split(port: Port, trace: Trace) -> None:
    node = port.node
    x = node.inputs[0]
    rank = trace.shapes.rank(x)
    if x is None or rank is None or (port.is_input and port.position > 0):
        trace.block(node, "its rank is not known")
        return
    if port.axis != node.attributes.get_int("axis", 0) % rank:
        for value in (x, *node.outputs):
            trace.couple(value, port.axis, port.map)
        return
    parts = len(node.outputs)
    sizes = {(trace.shapes.shape(v) or (None,) * rank)[port.axis] for v in node.outputs}
    whole = port.map if port.is_input else None
    if len(sizes) != 1 or port.map.offset or port.map.outer is None:
        trace.block(node, "its parts differ in size")
        return
    if whole is None:
        whole = IndexMap(port.map.units, port.map.inner, port.map.outer * parts)
    assert whole.outer is not None
    if whole.outer % parts:
        if whole.outer != 1 or whole.units % parts:
            trace.block(node, "its parts cut through units")
            return
        raise Refine((parts, whole.units // parts, 1))
    trace.couple(x, port.axis, whole)
    part = IndexMap(whole.units, whole.inner, whole.outer // parts)
    for value in node.outputs:
        trace.couple(value, port.axis, part)


def _attention(port: Port, trace: Trace) -> None:
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
        trace.block(node, "its channels are no whole heads")
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
            trace.block(node, "its channels are no whole heads")
            return
        if per_unit % port.map.inner:
            trace.block(node, "its channels are no whole heads")
            return
        raise Refine((1, units, per_unit // port.map.inner))
    for value, count, width in zip(data, counts, widths, strict=True):
        assert value is not None
        trace.couple(value, axis, IndexMap(units, count // units * width))
    _attention_mask(port, trace, units, counts[0])
    for name, count in (("q_num_heads", counts[0]), ("kv_num_heads", counts[1])):
        if name in node.attributes:
            trace.attribute_edits[node, name] = AttributeEdit(node, name, count // units)


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
        elif constant_of(mask) is not None:
            trace.add_member(port.node, 3, 1, IndexMap(units, heads // units), "along")
        else:
            trace.couple(mask, 1, IndexMap(units, heads // units))


def _shape_of(port: Port, trace: Trace) -> None:
    """Sizes that are read from a slot follow by themselves; `reshape.py` checks where they go."""
    from irtools.passes.pruning.reshape import follow_size

    follow_size(port, trace)


def _reshape(port: Port, trace: Trace) -> None:
    from irtools.passes.pruning.reshape import reshape_rule

    reshape_rule(port, trace)


_UNARY_OPS = (
    "Abs Cast Ceil Celu Clip Cos Dropout Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity "
    "IsNaN IsInf LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus "
    "Softsign Sqrt Swish Tanh ThresholdedRelu FastGelu QuickGelu"
)
_ELEMENTWISE_OPS = (
    "Add Sub Mul Div Pow Min Max Mean Sum Mod And Or Xor Equal Less Greater LessOrEqual "
    "GreaterOrEqual Where PRelu BiasGelu"
)
_POOL_OPS = "MaxPool AveragePool GlobalAveragePool GlobalMaxPool LpPool GlobalLpPool"
_REDUCE_OPS = "ReduceMean ReduceSum ReduceMax ReduceMin ReduceL2 ReduceL1 ReduceProd"


def _table() -> Mapping[str, Rule]:
    table: dict[str, Rule] = {
        "Attention": _attention,
        "BatchNormalization": _batch_norm,
        "Concat": _concat,
        "Conv": _conv,
        "Flatten": _reshape,
        "Gather": _gather,
        "Gemm": _gemm,
        "InstanceNormalization": _batch_norm,
        "LayerNormalization": _normalization,
        "LogSoftmax": _softmax,
        "MatMul": _matmul,
        "RMSNormalization": _normalization,
        "Reshape": _reshape,
        "Shape": _shape_of,
        "Slice": _slice,
        "Softmax": _softmax,
        "Split": _split,
        "Squeeze": _squeeze,
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
    }
    for names, rule in (
        (_UNARY_OPS, _unary),
        (_ELEMENTWISE_OPS, _elementwise),
        (_POOL_OPS, _pool),
        (_REDUCE_OPS, _reduce),
    ):
        table.update(dict.fromkeys(names.split(), rule))
    return MappingProxyType(table)


RULES = _table()
"""Operator to rule. Microsoft's Gelu, BiasGelu, FastGelu and QuickGelu mean what they say; the
other operators of foreign domains have no rule (`rule_of`)."""
