"""Operators on single numbers: what a mask holds at padding after arithmetic and comparisons."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from irtools.editing import array_of, scalar_of
from irtools.passes.positions.padding.base import Number

__all__ = ["compute", "constant_number"]

_MOST = 4096
"""Larger constants are not looked into."""


def constant_number(value: ir.Value | None) -> Number | None:
    """Return the number that every element of a constant is, or None; it may be stored in half."""
    node = None if value is None else value.producer()
    if node is not None and node.op_type == "Cast":
        stored = constant_number(node.inputs[0])
        return None if stored is None else compute(node, [stored])
    array = array_of(value)
    if array is None or not 0 < array.size <= _MOST or array.dtype.kind not in "biuf":
        return None
    first = array.reshape(-1)[0]
    return first.item() if bool((array == first).all()) else None


def compute(node: ir.Node, numbers: Sequence[Number]) -> Number | None:
    """Return what a node makes of one number for each of its inputs; None where no rule says."""
    rule = _RULES.get(node.op_type) if node.domain == "" else None
    if rule is None:
        return None
    try:
        found = rule(node, numbers)
    except (ArithmeticError, IndexError, ValueError):
        return None
    return None if found is None or math.isnan(found) else found


_Rule = Callable[[ir.Node, Sequence[Number]], "Number | None"]


def _of(function: Callable[..., Number]) -> _Rule:
    return lambda _, numbers: function(*numbers)


def _cast(node: ir.Node, numbers: Sequence[Number]) -> Number | None:
    kind = ir.DataType(node.attributes.get_int("to", 0))
    (number,) = numbers
    if kind is ir.DataType.BOOL:
        return bool(number)
    if not kind.is_floating_point():
        return int(number)
    # Below the range of half precision it becomes -inf, above it inf.
    return float(np.asarray(number).astype(kind.numpy()))


def _clip(node: ir.Node, numbers: Sequence[Number]) -> Number | None:
    low, high = (
        scalar_of(node.inputs[place]) if len(node.inputs) > place else None for place in (1, 2)
    )
    if "min" in node.attributes or "max" in node.attributes:
        return None
    number = numbers[0] if low is None else max(numbers[0], low)
    return number if high is None else min(number, high)


def _quantize(node: ir.Node, numbers: Sequence[Number]) -> Number | None:
    """round(x / scale) + zero point, of zero alone: nothing of the type's range is needed."""
    point = _zero_point(node)
    return point if numbers[0] == 0 else None


def _dequantize(node: ir.Node, numbers: Sequence[Number]) -> Number | None:
    point = _zero_point(node)
    return 0.0 if point is not None and numbers[0] == point else None


def _zero_point(node: ir.Node) -> Number | None:
    return constant_number(node.inputs[2]) if len(node.inputs) > 2 else 0


_RULES: Mapping[str, _Rule] = MappingProxyType(
    {
        "Abs": _of(abs),
        "Add": _of(lambda a, b: a + b),
        "And": _of(lambda a, b: a and b),
        "BitwiseAnd": _of(lambda a, b: a & b),
        "BitwiseNot": _of(lambda a: ~a),
        "BitwiseOr": _of(lambda a, b: a | b),
        "Cast": _cast,
        "Clip": _clip,
        "DequantizeLinear": _dequantize,
        "Div": _of(lambda a, b: int(a / b) if isinstance(a, int) else a / b),
        "Equal": _of(lambda a, b: a == b),
        "Greater": _of(lambda a, b: a > b),
        "GreaterOrEqual": _of(lambda a, b: a >= b),
        "IsNaN": _of(math.isnan),
        "Less": _of(lambda a, b: a < b),
        "LessOrEqual": _of(lambda a, b: a <= b),
        "Max": _of(max),
        "Min": _of(min),
        "Mul": _of(lambda a, b: a * b),
        "Neg": _of(lambda a: -a),
        "Not": _of(lambda a: not a),
        "Or": _of(lambda a, b: a or b),
        "QuantizeLinear": _quantize,
        "Relu": _of(lambda a: max(a, 0)),
        "Sub": _of(lambda a, b: a - b),
        "Sum": lambda _, numbers: sum(numbers),
        "Where": _of(lambda test, a, b: a if test else b),
        "Xor": _of(lambda a, b: a != b),
    }
)
