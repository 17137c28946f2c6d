"""Values of small integer tensors, operator by operator: what exporters compute shapes with.

A rule returns the elements of the first output as an object array of `Dim | bool`, or None
unless all of them are known.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from irtools.analysis.dims import (
    Dim,
    add,
    divide,
    floor_divide,
    multiply,
    never_equal,
    never_negative,
)
from irtools.analysis.facts import ShapeFacts
from irtools.analysis.shape_rules.common import int_attribute, product
from irtools.operators import RuleTable

__all__ = ["VALUE", "Rule"]

Rule = Callable[[ir.Node, ShapeFacts], "np.ndarray | None"]

_MAX_CONSTANT = 64


def _array(dims: list[Dim], shape: tuple[int, ...] = (-1,)) -> np.ndarray:
    boxed = np.empty(len(dims), dtype=object)
    boxed[:] = dims
    return boxed.reshape(shape)


def _shape(node: ir.Node, facts: ShapeFacts) -> np.ndarray | None:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return None
    start, end = int_attribute(node, "start", 0), int_attribute(node, "end", len(shape))
    return _array(list(shape[start:end]))


def _size(node: ir.Node, facts: ShapeFacts) -> np.ndarray | None:
    shape = facts.shape(node.inputs[0])
    return None if shape is None else _array([product(shape)], ())


def _gather(node: ir.Node, facts: ShapeFacts) -> np.ndarray | None:
    data, indices = (facts.integers(value) for value in node.inputs[:2])
    if data is None or indices is None or data.ndim != 1:
        return None
    flat = indices.reshape(-1).tolist()
    if not all(isinstance(i, int) and -len(data) <= i < len(data) for i in flat):
        return None
    return _array([data[i] for i in flat], indices.shape)


def _slice(node: ir.Node, facts: ShapeFacts) -> np.ndarray | None:
    parts = [facts.integers(value) for value in node.inputs]
    if any(p is None for p in parts) or len(parts) < 3:
        return None
    data, starts, ends, axes, steps = [*parts, None, None][:5]
    assert data is not None and starts is not None and ends is not None
    if data.ndim == 0 or len(starts) != 1:
        return None
    axis = 0 if axes is None else axes[0]
    step = 1 if steps is None else steps[0]
    if not all(isinstance(x, int) for x in (starts[0], ends[0], axis, step)) or step == 0:
        return None
    return np.moveaxis(np.moveaxis(data, axis, 0)[starts[0] : ends[0] : step], 0, axis)


def _transpose(node: ir.Node, facts: ShapeFacts) -> np.ndarray | None:
    data = facts.integers(node.inputs[0])
    return None if data is None else np.transpose(data, node.attributes.get_ints("perm"))


def _concat(node: ir.Node, facts: ShapeFacts) -> np.ndarray | None:
    parts = [facts.integers(value) for value in node.inputs]
    known = [p for p in parts if p is not None]
    if len(known) < len(parts) or any(p.ndim != 1 for p in known):
        return None
    return np.concatenate(known)


def _reshaped(node: ir.Node, facts: ShapeFacts) -> np.ndarray | None:
    data, shape = facts.integers(node.inputs[0]), facts.shape(node.outputs[0])
    if data is None or shape is None or not all(isinstance(dim, int) for dim in shape):
        return None
    sizes = [dim for dim in shape if isinstance(dim, int)]
    return data.reshape(sizes) if np.prod(sizes, dtype=np.int64) == data.size else None


def _identity(node: ir.Node, facts: ShapeFacts) -> np.ndarray | None:
    return facts.integers(node.inputs[0])


def _cast(node: ir.Node, facts: ShapeFacts) -> np.ndarray | None:
    wide = int_attribute(node, "to", 0) in (ir.DataType.INT64, ir.DataType.INT32)
    data = facts.integers(node.inputs[0])
    if not wide or data is None or any(isinstance(item, bool) for item in data.reshape(-1)):
        return None
    return data


def _arithmetic(combine: Callable[[Dim, Dim], Dim | bool | None]) -> Rule:
    def rule(node: ir.Node, facts: ShapeFacts) -> np.ndarray | None:
        a, b = (facts.integers(value) for value in node.inputs[:2])
        if a is None or b is None:
            return None
        a, b = np.broadcast_arrays(a, b)
        results = [combine(x, y) for x, y in zip(a.reshape(-1), b.reshape(-1), strict=True)]
        if any(r is None for r in results):
            return None
        boxed = np.empty(len(results), dtype=object)
        boxed[:] = results
        return boxed.reshape(a.shape)

    return rule


def _negated(node: ir.Node, facts: ShapeFacts) -> np.ndarray | None:
    data = facts.integers(node.inputs[0])
    if data is None:
        return None
    boxed = np.empty(data.shape, dtype=object)
    boxed.reshape(-1)[:] = [multiply(dim, -1) for dim in data.reshape(-1)]
    return boxed


def _equal(a: Dim, b: Dim) -> bool | None:
    if a == b:
        return True
    return False if never_equal(a, b) else None


def _divide(a: Dim, b: Dim) -> Dim | None:
    if isinstance(a, int) and isinstance(b, int):
        return a // b if a >= 0 and b > 0 else None
    exact = divide(a, b)
    # The operator rounds towards 0, which is down where nothing is negative.
    if exact is None and isinstance(b, int) and b > 0 and never_negative(a):
        return floor_divide(a, b)
    return exact


def _where(node: ir.Node, facts: ShapeFacts) -> np.ndarray | None:
    parts = [facts.integers(value) for value in node.inputs]
    if any(p is None for p in parts):
        return None
    condition, a, b = np.broadcast_arrays(*parts)  # type: ignore[arg-type]
    return np.where(condition.astype(bool), a, b)


def _constant_of_shape(node: ir.Node, facts: ShapeFacts) -> np.ndarray | None:
    dims = facts.integers(node.inputs[0])
    attribute = node.attributes.get("value")
    if dims is None or attribute is None or not all(isinstance(d, int) for d in dims):
        return None
    fill = attribute.as_tensor()
    if fill.dtype not in (ir.DataType.INT64, ir.DataType.INT32):
        return None
    count = int(np.prod(dims.tolist(), dtype=np.int64))
    if count > _MAX_CONSTANT:
        return None
    return _array([int(fill.numpy().item())] * count, tuple(dims.tolist()))


VALUE: RuleTable[Rule] = RuleTable(
    "value",
    "small integers are followed",
    MappingProxyType(
        {
            "Add": _arithmetic(add),
            "Cast": _cast,
            "Concat": _concat,
            "ConstantOfShape": _constant_of_shape,
            "Div": _arithmetic(_divide),
            "Equal": _arithmetic(_equal),
            "Gather": _gather,
            "Identity": _identity,
            "Mul": _arithmetic(multiply),
            "Neg": _negated,
            "Reshape": _reshaped,
            "Shape": _shape,
            "Size": _size,
            "Slice": _slice,
            "Squeeze": _reshaped,
            "Sub": _arithmetic(lambda a, b: add(a, b, -1)),
            "Transpose": _transpose,
            "Unsqueeze": _reshaped,
            "Where": _where,
        }
    ),
)
