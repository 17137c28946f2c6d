"""Shapes of outputs from shapes of inputs, operator by operator.

A rule takes a node and what is known, and returns the shapes of the outputs, None where the
rank is not known. Operators without a rule keep their declared shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import onnx_ir as ir

from irtools.analysis.dims import (
    Dim,
    SymbolicSize,
    add,
    divide,
    is_named,
    multiply,
    symbol,
)

if TYPE_CHECKING:
    from irtools.analysis.shapes import Shape, SymbolicShapes

__all__ = ["RULES", "broadcast", "int_attribute", "ints_attribute", "unknown"]

Rule = Callable[[ir.Node, "SymbolicShapes"], Sequence["Shape | None"]]


def unknown(node: ir.Node, axis: int, output: int = 0) -> SymbolicSize:
    """A size of which nothing is known, unlike any other."""
    return symbol(f"?{node.outputs[output].name}.{axis}")


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The shape that numpy broadcasting gives."""
    rank = max(map(len, shapes), default=0)
    padded = [(1,) * (rank - len(s)) + s for s in shapes]
    return tuple(_broadcast_dim([s[axis] for s in padded]) for axis in range(rank))


def _broadcast_dim(dims: Sequence[Dim]) -> Dim:
    distinct: list[Dim] = []
    for dim in dims:
        if dim != 1 and dim not in distinct:
            distinct.append(dim)
    if len(distinct) <= 1:
        return distinct[0] if distinct else 1
    for dim in distinct:
        # A number above 1 decides: the others are that number or 1. So does n against
        # min(n, c), because c < n would not broadcast.
        if isinstance(dim, int) or all(d == dim or _is_minimum_of(d, dim) for d in distinct):
            return dim
    return symbol(f"?broadcast({', '.join(sorted(map(str, distinct)))})")


def minimum(a: Dim, b: Dim) -> Dim:
    """The smaller of two sizes."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    return a if a == b else symbol(f"?min({a}; {b})")


def _is_minimum_of(dim: Dim, other: Dim) -> bool:
    if not isinstance(dim, SymbolicSize):
        return False
    name = str(dim)
    return name.startswith(f"?min({other}; ") or (
        name.startswith("?min(") and name.endswith(f"; {other})")
    )


def int_attribute(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute or its default."""
    return node.attributes.get_int(name, default)


def ints_attribute(node: ir.Node, name: str) -> tuple[int, ...] | None:
    """A list attribute or None."""
    found = node.attributes.get_ints(name)
    return None if found is None else tuple(found)


def _same(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    return [facts.shape(node.inputs[0])]


def _elementwise(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    shapes = [facts.shape(value) for value in node.inputs]
    known = [s for s in shapes if s is not None]
    return [broadcast(known) if len(known) == len(shapes) else None]


def _matmul(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    a, b = (facts.shape(value) for value in node.inputs[:2])
    if not a or not b:
        return [None]
    rows = a[-2:-1]
    columns = b[-1:] if len(b) > 1 else ()
    return [broadcast([a[:-2], b[:-2]]) + rows + columns]


def _conv(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    x, w = (facts.shape(value) for value in node.inputs[:2])
    if w is None:
        return [None]
    rank = len(w) - 2
    if x is None or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        batch = x[0] if x else unknown(node, 0)
        return [(batch, w[0], *(unknown(node, axis + 2) for axis in range(rank)))]
    strides = ints_attribute(node, "strides") or (1,) * rank
    dilations = ints_attribute(node, "dilations") or (1,) * rank
    pads = ints_attribute(node, "pads") or (0,) * (2 * rank)
    dims: list[Dim] = [x[0], w[0]]
    for axis in range(rank):
        size, kernel = x[axis + 2], w[axis + 2]
        if isinstance(size, int) and isinstance(kernel, int):
            reach = size + pads[axis] + pads[axis + rank] - dilations[axis] * (kernel - 1) - 1
            dims.append(reach // strides[axis] + 1)
        else:
            dims.append(unknown(node, axis + 2))
    return [tuple(dims)]


def _pad(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    x = facts.shape(node.inputs[0])
    if x is None:
        return [None]
    pads: Sequence[Dim] | None = ints_attribute(node, "pads")
    if pads is None and len(node.inputs) > 1:
        found = facts.integers(node.inputs[1])
        pads = None if found is None else tuple(found)
    has_axes = len(node.inputs) > 3 and node.inputs[3] is not None
    if pads is None or has_axes or len(pads) != 2 * len(x):
        return [tuple(unknown(node, axis) for axis in range(len(x)))]
    ends = pads[len(x) :]
    return [tuple(add(add(d, p), q) for d, p, q in zip(x, pads, ends, strict=False))]


def _resize(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return [None]
    dims: list[Dim] = [unknown(node, axis) for axis in range(len(shape))]
    axes = [a % len(shape) for a in ints_attribute(node, "axes") or range(len(shape))]
    for axis in set(range(len(shape))).difference(axes):
        dims[axis] = shape[axis]
    sizes = facts.integers(node.inputs[3]) if len(node.inputs) > 3 else None
    policy = node.attributes.get_string("keep_aspect_ratio_policy", "stretch")
    if sizes is not None and len(sizes) == len(axes) and policy == "stretch":
        for axis, size in zip(axes, sizes, strict=True):
            dims[axis] = size
    scales = facts.constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if scales is not None and scales.size == len(axes):
        for axis, scale in zip(axes, scales.numpy(), strict=True):
            dims[axis] = shape[axis] if scale == 1 else dims[axis]
    return [tuple(dims)]


def _pool(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    x = facts.shape(node.inputs[0])
    if x is None or len(x) < 2:
        return [None]
    whole = node.op_type.startswith("Global")
    spatial: list[Dim] = [1 if whole else unknown(node, axis) for axis in range(2, len(x))]
    return [(*x[:2], *spatial)]


def _gemm(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    a, b = (facts.shape(value) for value in node.inputs[:2])
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return [None]
    rows = a[1 if int_attribute(node, "transA", 0) else 0]
    columns = b[0 if int_attribute(node, "transB", 0) else 1]
    return [(rows, columns)]


def _transpose(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    shape = facts.shape(node.inputs[0])
    perm = ints_attribute(node, "perm")
    if shape is None:
        return [None if perm is None else tuple(unknown(node, axis) for axis in range(len(perm)))]
    return [shape[::-1] if perm is None else tuple(shape[axis] for axis in perm)]


def _reshape(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    target = facts.integers(node.inputs[1]) if len(node.inputs) > 1 else None
    shape = facts.shape(node.inputs[0])
    if target is None or target.ndim != 1:
        length = facts.shape(node.inputs[1]) if len(node.inputs) > 1 else None
        if length and isinstance(length[0], int):
            return [tuple(unknown(node, axis) for axis in range(length[0]))]
        return [None]
    dims: list[Dim] = list(target)
    if not int_attribute(node, "allowzero", 0):
        for axis, dim in enumerate(dims):
            if dim == 0:
                copied = shape is not None and axis < len(shape)
                dims[axis] = shape[axis] if shape and copied else unknown(node, axis)
    if -1 in dims:
        axis = dims.index(-1)
        dims[axis] = _remaining(shape, dims[:axis] + dims[axis + 1 :]) or unknown(node, axis)
    return [tuple(dims)]


def _remaining(shape: Shape | None, others: Sequence[Dim]) -> Dim | None:
    if shape is None:
        return None
    return divide(product(shape), product(others))


def product(dims: Sequence[Dim]) -> Dim:
    """The number of elements of a shape."""
    total: Dim = 1
    for dim in dims:
        total = multiply(total, dim)
    return total


def _expand(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    shape, target = facts.shape(node.inputs[0]), facts.integers(node.inputs[1])
    if shape is None or target is None:
        length = facts.shape(node.inputs[1])
        if shape is not None and length and isinstance(length[0], int):
            rank = max(length[0], len(shape))
            return [tuple(unknown(node, axis) for axis in range(rank))]
        return [None]
    return [broadcast([shape, tuple(target)])]


def _axes(node: ir.Node, facts: SymbolicShapes) -> tuple[int, ...] | None:
    """Axes of Squeeze, Unsqueeze and reductions: an attribute before opset 13 or 18, an input
    after. An empty tuple where there are none, None where they are not constant."""
    if (found := ints_attribute(node, "axes")) is not None:
        return found
    if len(node.inputs) < 2 or node.inputs[1] is None:
        return ()
    values = facts.integers(node.inputs[1])
    if values is None or not all(isinstance(v, int) for v in values.reshape(-1)):
        return None
    return tuple(values.reshape(-1).tolist())


def _unsqueeze(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    shape, axes = facts.shape(node.inputs[0]), _axes(node, facts)
    if shape is None or axes is None:
        return [None]
    rank = len(shape) + len(axes)
    added = {axis % rank for axis in axes}
    rest = iter(shape)
    return [tuple(1 if axis in added else next(rest) for axis in range(rank))]


def _squeeze(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    shape, axes = facts.shape(node.inputs[0]), _axes(node, facts)
    if shape is None or not axes:
        return [None]
    dropped = {axis % len(shape) for axis in axes}
    return [tuple(dim for axis, dim in enumerate(shape) if axis not in dropped)]


def _reduce(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    shape, axes = facts.shape(node.inputs[0]), _axes(node, facts)
    if shape is None or not axes:
        return [None]
    reduced = {axis % len(shape) for axis in axes}
    if int_attribute(node, "keepdims", 1):
        return [tuple(1 if axis in reduced else dim for axis, dim in enumerate(shape))]
    return [tuple(dim for axis, dim in enumerate(shape) if axis not in reduced)]


def _concat(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    shapes = [facts.shape(value) for value in node.inputs]
    known = [s for s in shapes if s is not None]
    if len(known) < len(shapes) or not known or not known[0]:
        return [None]
    rank = len(known[0])
    if any(len(s) != rank for s in known):
        return [None]
    axis = int_attribute(node, "axis", 0) % rank
    total: Dim = 0
    for s in known:
        total = add(total, s[axis])
    first = known[0]
    # Along the other axes all inputs agree; one that is a number or a name says the most.
    best = [next((s[a] for s in known if is_named(s[a])), first[a]) for a in range(rank)]
    return [(*best[:axis], total, *best[axis + 1 :])]


def _gather(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    shape, indices = (facts.shape(value) for value in node.inputs[:2])
    if not shape or indices is None:
        return [None]
    axis = int_attribute(node, "axis", 0) % len(shape)
    return [shape[:axis] + indices + shape[axis + 1 :]]


def _gather_nd(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    shape, indices = (facts.shape(value) for value in node.inputs[:2])
    batch = int_attribute(node, "batch_dims", 0)
    if shape is None or not indices or not isinstance(indices[-1], int):
        return [None]
    return [indices[:-1] + shape[batch + indices[-1] :]]


def _gather_elements(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    return [facts.shape(node.inputs[1])]


def _slice(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    shape = facts.shape(node.inputs[0])
    if shape is None or len(node.inputs) < 3:
        return [None]
    given = [*node.inputs[1:], None, None]
    starts, ends, axes, steps = (facts.integers(value) for value in given[:4])
    if starts is None or (given[2] is not None and axes is None):
        return [tuple(unknown(node, axis) for axis in range(len(shape)))]
    dims = list(shape)
    for index, axis in enumerate(range(len(starts)) if axes is None else axes):
        axis %= len(shape)
        end = None if ends is None else ends[index]
        step = 1 if given[3] is None else None if steps is None else steps[index]
        dims[axis] = _sliced(dims[axis], starts[index], end, step) or unknown(node, axis)
    return [tuple(dims)]


def _sliced(size: Dim, start: Dim | None, end: Dim | None, step: Dim | None) -> Dim | None:
    """The length of `range(size)[start:end:step]`, or None (also for 0, which is rare)."""
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        return len(range(size)[start:end:step]) if isinstance(step, int) and step else None
    if start != 0 or step != 1 or end is None:
        return None
    if isinstance(end, int):
        if end >= 2**31 - 1:
            return size
        return add(size, end) if end < 0 else minimum(size, end)
    return minimum(end, size)


def _split(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    shape = facts.shape(node.inputs[0])
    if not shape:
        return [None]
    axis = int_attribute(node, "axis", 0) % len(shape)
    sizes: Sequence[Dim] | None = ints_attribute(node, "split")
    if sizes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        found = facts.integers(node.inputs[1])
        sizes = None if found is None else tuple(found)
    elif sizes is None:
        each = divide(shape[axis], len(node.outputs))
        sizes = None if each is None else (each,) * len(node.outputs)
    if sizes is None or len(sizes) != len(node.outputs):
        sizes = [unknown(node, axis, index) for index in range(len(node.outputs))]
    return [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]


def _flatten(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return [None]
    axis = int_attribute(node, "axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return [(product(shape[:axis]), product(shape[axis:]))]


def _shape(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    found = facts.rank(node.inputs[0])
    if found is None:
        return [(unknown(node, 0),)]
    start, end = int_attribute(node, "start", 0), int_attribute(node, "end", found)
    return [(len(range(found)[start:end]),)]


def _constant_of_shape(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    dims = facts.integers(node.inputs[0])
    return [None if dims is None or dims.ndim != 1 else tuple(dims)]


def _range(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    start, limit, delta = (facts.integers(value) for value in node.inputs)
    if start is None or limit is None or delta is None:
        return [(unknown(node, 0),)]
    a, b, d = start.item(), limit.item(), delta.item()
    if all(isinstance(x, int) for x in (a, b, d)) and d:
        return [(max(0, math.ceil((b - a) / d)),)]
    length = add(b, a, -1) if d == 1 else unknown(node, 0)
    return [(length,)]


def _attention(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    q, v = facts.shape(node.inputs[0]), facts.shape(node.inputs[2])
    if q is None or v is None or len(node.inputs) > 4:
        return [None]
    if len(q) == 4 and len(v) == 4:
        return [(*q[:3], v[3])]
    heads, kv_heads = (int_attribute(node, f"{s}_num_heads", 1) for s in ("q", "kv"))
    width = divide(multiply(v[-1], heads), kv_heads) or unknown(node, 2)
    return [(*q[:2], width)]


def _tile(node: ir.Node, facts: SymbolicShapes) -> Sequence[Shape | None]:
    shape, times = facts.shape(node.inputs[0]), facts.integers(node.inputs[1])
    if shape is None:
        return [None]
    if times is None or len(times) != len(shape):
        return [tuple(unknown(node, axis) for axis in range(len(shape)))]
    return [tuple(multiply(size, n) for size, n in zip(shape, times, strict=True))]


_SAME = frozenset(
    {"Abs", "BitwiseNot", "Cast", "CastLike", "Celu", "Ceil", "Clip", "Cos", "CumSum"}
    | {"DequantizeLinear", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"}
    | {"Hardmax", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "LogSoftmax", "Mish", "Neg"}
    | {"Not", "QuantizeLinear", "Reciprocal", "Relu", "Round", "ScatterElements", "ScatterND"}
    | {"Selu", "Sigmoid", "Sign", "Sin", "Softmax", "Softplus", "Softsign", "Sqrt", "Swish"}
    | {"Tanh", "ThresholdedRelu", "Trilu"}
    | {"BatchNormalization", "Dropout", "GroupNormalization", "InstanceNormalization", "LRN"}
    | {"LayerNormalization", "LpNormalization", "RMSNormalization", "RotaryEmbedding"}
)
_ELEMENTWISE = frozenset(
    {"Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal"}
    | {"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul"}
    | {"Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor"}
)
_REDUCTIONS = frozenset(
    {"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"}
    | {"ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"}
)

RULES: Mapping[str, Rule] = MappingProxyType(
    dict.fromkeys(_SAME, _same)
    | dict.fromkeys(_ELEMENTWISE, _elementwise)
    | dict.fromkeys(_REDUCTIONS, _reduce)
    | {
        "Attention": _attention,
        "AveragePool": _pool,
        "Concat": _concat,
        "ConstantOfShape": _constant_of_shape,
        "Conv": _conv,
        "Expand": _expand,
        "Flatten": _flatten,
        "Gather": _gather,
        "GatherElements": _gather_elements,
        "GatherND": _gather_nd,
        "Gemm": _gemm,
        "GlobalAveragePool": _pool,
        "GlobalMaxPool": _pool,
        "MatMul": _matmul,
        "MaxPool": _pool,
        "Pad": _pad,
        "Range": _range,
        "Reshape": _reshape,
        "Resize": _resize,
        "Shape": _shape,
        "Slice": _slice,
        "Split": _split,
        "Squeeze": _squeeze,
        "Tile": _tile,
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
    }
)
